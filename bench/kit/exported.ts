import { crc32 } from 'node:zlib'
import { carHeaderLength, readCarSection } from '../../src/atproto/car.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { residentMb } from './process.ts'
import type { Exporter } from './verify.ts'

/** One repo, as a client took it. */
export interface Exported {
  readonly bytes: number
  /** Of all of them: two exports of one repo are the same. */
  readonly sum: number
  readonly ms: number
  /** From the request to the first record that is whole. */
  readonly firstRecordMs: number
}

/** Takes a whole repo, and keeps none of it. */
export async function takeExport(exporter: Exporter, did: Did): Promise<Exported> {
  const { url, method, headersOf } = exporter
  const startedAt = performance.now()
  const response = await fetch(`${url}/xrpc/${method}?did=${did}`, { headers: headersOf(did) })
  if (!response.ok || response.body === null) {
    throw new Error(`${method}: ${response.status} ${await response.text()}`)
  }
  let [bytes, sum, firstRecordMs] = [0, 0, Number.NaN]
  const start: Uint8Array[] = []
  for await (const chunk of response.body) {
    bytes += chunk.length
    sum = crc32(chunk, sum)
    if (!Number.isNaN(firstRecordMs)) continue
    start.push(chunk)
    if (hasRecord(Buffer.concat(start))) firstRecordMs = performance.now() - startedAt
  }
  return { bytes, sum, ms: performance.now() - startedAt, firstRecordMs }
}

/** Whether these first bytes of a CAR have a whole block that is neither commit nor node. */
function hasRecord(car: Uint8Array): boolean {
  let isCommit = true
  for (let at = carHeaderLength; at + 100 < car.length;) {
    const { start, end } = readCarSection(car.subarray(at, at + 100), at)
    if (end > car.length) return false
    // A map of two whose first name is `e`.
    const isNode = Buffer.compare(car.subarray(start, start + 3), nodeStart) === 0
    if (!isCommit && !isNode) return true
    isCommit = false
    at = end
  }
  return false
}

const nodeStart = new Uint8Array([0xa2, 0x61, 0x65])

/** Exports one after the other, until it is told to end. */
export class Exporting {
  readonly #done: Promise<void>
  #bytes = 0
  #ended = false

  constructor(exporter: Exporter, did: Did) {
    const run = async () => {
      while (!this.#ended) this.#bytes += (await takeExport(exporter, did)).bytes
    }
    this.#done = run()
  }

  /** @returns bytes that were sent meanwhile */
  async end(): Promise<number> {
    this.#ended = true
    await this.#done
    return this.#bytes
  }
}

const lookEveryMs = 5

/** The most memory that a process has resident while `run` does its work. */
export async function peakMbOf<Result>(
  pid: number,
  run: () => Promise<Result>,
): Promise<{ readonly result: Result; readonly peakMb: number }> {
  let peakMb = residentMb(pid)
  const timer = setInterval(() => {
    peakMb = Math.max(peakMb, residentMb(pid))
  }, lookEveryMs)
  try {
    const result = await run()
    return { result, peakMb }
  } finally {
    clearInterval(timer)
  }
}
