import { decodeFirst } from '@atcute/cbor'
import { Outlet, type EndReason, type Format, type Socket } from '../../src/stream/outlet.ts'
import { isFields } from '../kit/xrpc.ts'

/** The far end of a stream that takes as much as a test lets it. */
export class Sink implements Socket {
  readonly outlet: Outlet
  readonly sent: Uint8Array[] = []
  readonly texts: string[] = []
  readonly reasons: EndReason[] = []
  readonly faults: unknown[] = []
  closed: readonly [number, string] | undefined
  terminated = false
  pings = 0
  /** Of what was sent this much was not taken. */
  waiting = 0
  /** The most that ever was. */
  waitingMost = 0
  /** Whether it takes at once what comes. */
  takes = true
  /** Whether it drops what comes, as a socket that is gone. */
  drops = false

  constructor(format: Format = 'cbor', stalledMsMax?: number) {
    const given = stalledMsMax === undefined ? {} : { stalledMsMax }
    this.outlet = new Outlet(this, {
      format,
      ended: (reason) => void this.reasons.push(reason),
      failed: (error) => void this.faults.push(error),
      ...given,
    })
  }

  sendBinary(bytes: Uint8Array): number {
    if (this.drops) return 0
    this.sent.push(bytes.slice())
    return this.#keep(bytes.length)
  }

  sendText(text: string): number {
    if (this.drops) return 0
    this.texts.push(text)
    return this.#keep(text.length)
  }

  cork(task: () => void): void {
    task()
  }

  getBufferedAmount(): number {
    return this.waiting
  }

  ping(): number {
    this.pings += 1
    return 1
  }

  close(code: number, reason: string): void {
    this.closed = [code, reason]
    // A socket may tell of it at once.
    this.outlet.left()
  }

  terminate(): void {
    this.terminated = true
  }

  /** Takes some of what waits. */
  take(bytes: number): void {
    this.waiting = Math.max(0, this.waiting - bytes)
    this.outlet.drained()
  }

  /** Type and body of each frame that was sent. */
  get told(): readonly (readonly [string, Readonly<Record<string, unknown>>])[] {
    return this.sent.map((bytes) => {
      const [header, rest] = decodeFirst(bytes)
      const [body] = decodeFirst(rest)
      if (!isFields(header) || !isFields(body)) throw new Error('a frame is two maps')
      return [typeof header['t'] === 'string' ? header['t'] : 'error', body]
    })
  }

  #keep(length: number): number {
    if (this.takes) return length
    this.waiting += length
    this.waitingMost = Math.max(this.waitingMost, this.waiting)
    return -1
  }
}
