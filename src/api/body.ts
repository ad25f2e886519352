import { invalidRequest, XrpcError } from '../atproto/errors.ts'

/** Bytes of a JSON body. @see protocol.md, section 5 */
export const bodyBytesMax = 1024 * 1024

/**
 * The JSON of a request, never more of it in memory than the limit.
 * @throws XrpcError 413 PayloadTooLarge, 400 InvalidRequest
 */
export async function readJson(request: Request): Promise<unknown> {
  const type = request.headers.get('content-type') ?? ''
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw invalidRequest('the body must be JSON, with Content-Type: application/json')
  }
  const text = await readText(request)
  try {
    return JSON.parse(text)
  } catch {
    throw invalidRequest('the body is no valid JSON')
  }
}

async function readText(request: Request): Promise<string> {
  const length = Number(request.headers.get('content-length') ?? Number.NaN)
  if (length > bodyBytesMax) throw tooLarge()
  const bytes = Number.isNaN(length) ? await readChunks(request) : await request.bytes()
  if (bytes.length > bodyBytesMax) throw tooLarge()
  try {
    return utf8.decode(bytes)
  } catch {
    throw invalidRequest('the body is no valid UTF-8')
  }
}

/** A body of unannounced length is cut off at the limit. */
async function readChunks(request: Request): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let total = 0
  for await (const chunk of request.body ?? []) {
    total += chunk.length
    if (total > bodyBytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function tooLarge(): XrpcError {
  const message = `the body must not be larger than ${bodyBytesMax} bytes`
  return new XrpcError(413, 'PayloadTooLarge', message)
}
