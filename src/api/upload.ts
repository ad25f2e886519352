import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { invalidRequest, XrpcError } from '../atproto/errors.ts'

interface Limits {
  readonly bytesMax: number
  /** A body that brings less than `windowBytesMin` within `windowMs` is given up. */
  readonly windowBytesMin: number
  readonly windowMs: number
}

/**
 * The body of a request as a file of its own in `folder`, for as long as `task` runs.
 * @throws XrpcError 413 PayloadTooLarge, 408 RequestTimeout, 400 for a body that is cut off
 */
export async function withUpload<Result>(
  request: Request,
  { folder, ...limits }: Limits & { readonly folder: string },
  task: (path: string) => Promise<Result>,
): Promise<Result> {
  checkLength(request, limits.bytesMax)
  const path = join(folder, randomUUID())
  try {
    await using file = await open(path, 'wx', 0o600)
    await receive(request, file, limits)
    return await task(path)
  } finally {
    await rm(path, { force: true })
  }
}

/** @throws XrpcError 413 PayloadTooLarge for a body that says itself that it is too large */
export function checkLength({ headers }: Request, bytesMax: number): void {
  const length = Number(headers.get('content-length') ?? Number.NaN)
  if (length > bytesMax) throw tooLarge(bytesMax)
}

async function receive(
  request: Request,
  file: FileHandle,
  { bytesMax, windowBytesMin, windowMs }: Limits,
): Promise<void> {
  const reader = request.body?.getReader()
  const late = Promise.withResolvers<never>()
  let bytes = 0
  let before = 0
  const timer = setInterval(() => {
    if (bytes - before < windowBytesMin) late.reject(tooSlow(windowBytesMin, windowMs))
    before = bytes
  }, windowMs)
  try {
    for (;;) {
      const next = await Promise.race([reader?.read(), late.promise])
      if (next?.value === undefined) return
      bytes += next.value.length
      if (bytes > bytesMax) throw tooLarge(bytesMax)
      await file.writeFile(next.value)
    }
  } catch (error) {
    await reader?.cancel()
    if (request.signal.aborted) throw invalidRequest('the body was cut off')
    throw error
  } finally {
    clearInterval(timer)
  }
}

function tooLarge(bytesMax: number): XrpcError {
  const message = `the body must not be larger than ${bytesMax} bytes`
  return new XrpcError(413, 'PayloadTooLarge', message)
}

/** The rest of the body would stand in the way of a next request: there is none. */
function tooSlow(bytes: number, ms: number): XrpcError {
  const message = `the body must bring ${bytes} bytes every ${ms / 1000} seconds`
  return new XrpcError(408, 'RequestTimeout', message, { headers: { connection: 'close' } })
}
