import { invalidRequest, XrpcError } from '../atproto/errors.ts'

/** Bytes of a JSON body. @see protocol.md, section 5 */
const bodyBytesMax = 1024 * 1024

/**
 * For a whole body, be it sent by the byte: at its limit that is 280 kbit/s. Bun itself closes, after
 * 60 s and without a word, what brings less than 16 kB/s.
 */
const bodyMsMax = 30_000

interface BodyLimits {
  readonly bytesMax?: number
  readonly msMax?: number
}

/**
 * The JSON of a request, never more of it in memory than the limit, which is that of XRPC where
 * none is given.
 * @throws XrpcError 413 PayloadTooLarge, 408 RequestTimeout, 400 InvalidRequest
 */
export async function readJson(request: Request, limits: BodyLimits = {}): Promise<unknown> {
  const { bytesMax = bodyBytesMax, msMax = bodyMsMax } = limits
  if (!isJson(request)) {
    throw invalidRequest('the body must be JSON, with Content-Type: application/json')
  }
  const value = parse(await readText(request, { bytesMax, msMax }))
  checkContent(value)
  return value
}

/** Whether the body is said to be JSON, which no form of another site's page can say. */
export function isJson({ headers }: Request): boolean {
  return /^application\/json\s*(;|$)/i.test(headers.get('content-type') ?? '')
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw invalidRequest('the body is no valid JSON')
  }
}

/**
 * Refuses what JSON can say and its writer cannot repeat, for on the way to a shard it is written
 * again: a number too large to be finite would arrive as null, and deep nesting ends the stack.
 */
function checkContent(root: unknown): void {
  let level: unknown[] = [root]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > depthMax) throw invalidRequest(`the body is nested deeper than ${depthMax}`)
    const next: unknown[] = []
    for (const value of level) {
      if (typeof value === 'number' && !Number.isFinite(value)) {
        throw invalidRequest('the body holds a number that is too large')
      }
      if (typeof value !== 'object' || value === null) continue
      for (const member of Object.values(value)) next.push(member)
    }
    level = next
  }
}

/** More than records may have, which say so themselves, with their envelopes. */
const depthMax = 100

async function readText(
  request: Request,
  { bytesMax, msMax }: Required<BodyLimits>,
): Promise<string> {
  const length = Number(request.headers.get('content-length') ?? Number.NaN)
  if (length > bytesMax) throw tooLarge(bytesMax)
  const bytes = await readBytes(request, { length, bytesMax, msMax })
  if (bytes.length > bytesMax) throw tooLarge(bytesMax)
  try {
    return utf8.decode(bytes)
  } catch {
    throw invalidRequest('the body is no valid UTF-8')
  }
}

/** A client that leaves in the middle is no fault of ours, and neither is one that lags. */
async function readBytes(
  request: Request,
  { length, bytesMax, msMax }: Required<BodyLimits> & { readonly length: number },
): Promise<Uint8Array> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(tooSlow(msMax)), msMax)
  try {
    const read = Number.isNaN(length)
      ? readChunks(request, { bytesMax, late: late.promise })
      : request.bytes()
    return await Promise.race([read, late.promise])
  } catch (error) {
    if (request.signal.aborted) throw invalidRequest('the body was cut off')
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** A body of unannounced length is cut off at the limit. */
async function readChunks(
  request: Request,
  { bytesMax, late }: { readonly bytesMax: number; readonly late: Promise<never> },
): Promise<Uint8Array> {
  const reader = request.body?.getReader()
  const chunks: Uint8Array[] = []
  let total = 0
  try {
    for (;;) {
      const next = await Promise.race([reader?.read(), late])
      if (next?.value === undefined) return Buffer.concat(chunks)
      total += next.value.length
      if (total > bytesMax) throw tooLarge(bytesMax)
      chunks.push(next.value)
    }
  } catch (error) {
    await reader?.cancel()
    throw error
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function tooLarge(bytesMax: number): XrpcError {
  const message = `the body must not be larger than ${bytesMax} bytes`
  return new XrpcError(413, 'PayloadTooLarge', message)
}

/** The rest of the body would stand in the way of a next request: there is none. */
function tooSlow(msMax: number): XrpcError {
  const message = `the body must arrive within ${msMax / 1000} seconds`
  return new XrpcError(408, 'RequestTimeout', message, { headers: { connection: 'close' } })
}
