import { invalidRequest, XrpcError } from '../atproto/errors.ts'

/** Bytes of a JSON body. @see protocol.md, section 5 */
const bodyBytesMax = 1024 * 1024

/**
 * The JSON of a request, never more of it in memory than the limit, which is that of XRPC where
 * none is given.
 * @throws XrpcError 413 PayloadTooLarge, 400 InvalidRequest
 */
export async function readJson(request: Request, bytesMax = bodyBytesMax): Promise<unknown> {
  if (!isJson(request)) {
    throw invalidRequest('the body must be JSON, with Content-Type: application/json')
  }
  const value = parse(await readText(request, bytesMax))
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

async function readText(request: Request, bytesMax: number): Promise<string> {
  const length = Number(request.headers.get('content-length') ?? Number.NaN)
  if (length > bytesMax) throw tooLarge(bytesMax)
  const bytes = await readBytes(request, { length, bytesMax })
  if (bytes.length > bytesMax) throw tooLarge(bytesMax)
  try {
    return utf8.decode(bytes)
  } catch {
    throw invalidRequest('the body is no valid UTF-8')
  }
}

/** A client that leaves in the middle is no fault of ours. */
async function readBytes(
  request: Request,
  { length, bytesMax }: { readonly length: number; readonly bytesMax: number },
): Promise<Uint8Array> {
  try {
    return Number.isNaN(length) ? await readChunks(request, bytesMax) : await request.bytes()
  } catch (error) {
    if (request.signal.aborted) throw invalidRequest('the body was cut off')
    throw error
  }
}

/** A body of unannounced length is cut off at the limit. */
async function readChunks(request: Request, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let total = 0
  for await (const chunk of request.body ?? []) {
    total += chunk.length
    if (total > bytesMax) throw tooLarge(bytesMax)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function tooLarge(bytesMax: number): XrpcError {
  const message = `the body must not be larger than ${bytesMax} bytes`
  return new XrpcError(413, 'PayloadTooLarge', message)
}
