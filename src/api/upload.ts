import { randomUUID } from 'node:crypto'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { invalidRequest, XrpcError } from '../atproto/errors.ts'

interface Limits {
  readonly bytesMax: number
  /** A body that brings less than `windowBytesMin` within `windowMs` is given up. */
  readonly windowBytesMin: number
  readonly windowMs: number
}

/**
 * The body of a request as a file, alone in a folder below `folder`, for as long as `task` runs:
 * what that puts beside it goes with it.
 * @throws XrpcError 413 PayloadTooLarge, 408 RequestTimeout, 400 for a body that is cut off
 */
export async function withUpload<Result>(
  request: Request,
  { folder, ...limits }: Limits & { readonly folder: string },
  task: (path: string) => Promise<Result>,
): Promise<Result> {
  checkLength(request, limits.bytesMax)
  const own = join(folder, randomUUID())
  await mkdir(own, { mode: 0o700 })
  try {
    const path = join(own, 'body')
    await receive(request, path, limits)
    return await task(path)
  } finally {
    await rm(own, { recursive: true, force: true })
  }
}

/** @throws XrpcError 413 PayloadTooLarge for a body that says itself that it is too large */
export function checkLength({ headers }: Request, bytesMax: number): void {
  const length = Number(headers.get('content-length') ?? Number.NaN)
  if (length > bytesMax) throw tooLarge(bytesMax)
}

async function receive(request: Request, path: string, limits: Limits): Promise<void> {
  await using file = await open(path, 'wx', 0o600)
  // A body may come in pieces of one byte each.
  const gathered = new Uint8Array(writeBytes)
  let used = 0
  const flush = async () => {
    await file.writeFile(gathered.subarray(0, used))
    used = 0
  }
  await receiveBody(request, limits, async (bytes) => {
    if (used + bytes.length > writeBytes) await flush()
    if (bytes.length > writeBytes) await file.writeFile(bytes)
    else {
      gathered.set(bytes, used)
      used += bytes.length
    }
  })
  await flush()
}

/**
 * Gives the body of a request piece by piece, the next one when `take` is done with the last.
 * @throws XrpcError as `withUpload`, and whatever `take` throws
 */
export async function receiveBody(
  { body, signal }: Request,
  limits: Limits,
  take: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  if (body === null) return
  const reader = body.getReader()
  const pace = new Pace(limits, () => void reader.cancel())
  try {
    for (;;) {
      const { value } = await reader.read()
      pace.check()
      if (value === undefined) return
      pace.add(value.length)
      await take(value)
    }
  } catch (error) {
    if (signal.aborted) throw invalidRequest('the body was cut off')
    await reader.cancel()
    throw error
  } finally {
    pace.end()
  }
}

/** How much of a body has come, and whether it comes fast enough. */
class Pace {
  readonly #limits: Limits
  readonly #timer: ReturnType<typeof setInterval>
  #bytes = 0
  #before = 0
  #isSlow = false

  /** @param slow is called as soon as it does not */
  constructor(limits: Limits, slow: () => void) {
    this.#limits = limits
    this.#timer = setInterval(() => {
      if (this.#bytes - this.#before < limits.windowBytesMin) {
        this.#isSlow = true
        slow()
      }
      this.#before = this.#bytes
    }, limits.windowMs)
  }

  /** @throws XrpcError 413 PayloadTooLarge */
  add(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes > this.#limits.bytesMax) throw tooLarge(this.#limits.bytesMax)
  }

  /** @throws XrpcError 408 RequestTimeout */
  check(): void {
    if (this.#isSlow) throw tooSlow(this.#limits)
  }

  end(): void {
    clearInterval(this.#timer)
  }
}

/** What is written to the disk at once, at least. */
const writeBytes = 256 * 1024

function tooLarge(bytesMax: number): XrpcError {
  const message = `the body must not be larger than ${bytesMax} bytes`
  return new XrpcError(413, 'PayloadTooLarge', message)
}

/** The rest of the body would stand in the way of a next request: there is none. */
function tooSlow({ windowBytesMin, windowMs }: Limits): XrpcError {
  const message = `the body must bring ${windowBytesMin} bytes every ${windowMs / 1000} seconds`
  return new XrpcError(408, 'RequestTimeout', message, { headers: { connection: 'close' } })
}
