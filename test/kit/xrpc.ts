/** How a test or the demo calls an XRPC method over plain HTTP. */
export interface Call {
  readonly params?: Readonly<Record<string, string | number | boolean | readonly string[]>>
  /** A JSON body; its presence makes the call a POST. */
  readonly input?: Readonly<Record<string, unknown>>
  /** A body that is no JSON, of the type that `headers` name; its presence makes the call a POST. */
  readonly body?: Bun.BodyInit
  /** For a procedure that takes no body, and for an answer without one. */
  readonly verb?: 'POST' | 'HEAD'
  readonly authorization?: string | undefined
  readonly headers?: Readonly<Record<string, string>>
}

export interface Answer {
  readonly status: number
  /** Empty when the answer is not JSON. */
  readonly body: Readonly<Record<string, unknown>>
  readonly headers: Headers
}

export const requestMs = 30_000

export async function xrpc(origin: string, nsid: string, call: Call = {}): Promise<Answer> {
  const response = await xrpcResponse(origin, nsid, call)
  const isJson = response.headers.get('content-type')?.startsWith('application/json') === true
  const body: unknown = isJson ? await response.json() : undefined
  if (!isJson) await response.body?.cancel()
  return { status: response.status, body: isFields(body) ? body : {}, headers: response.headers }
}

/** The same before its body is read, for answers that are not JSON. */
export function xrpcResponse(origin: string, nsid: string, call: Call = {}): Promise<Response> {
  const url = new URL(`/xrpc/${nsid}`, origin)
  const body = call.body ?? (call.input === undefined ? undefined : JSON.stringify(call.input))
  for (const [name, value] of Object.entries(call.params ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      url.searchParams.append(name, String(one))
    }
  }
  return fetch(url, {
    method: verbOf(call),
    headers: {
      ...(call.input === undefined ? {} : { 'content-type': 'application/json' }),
      ...(call.authorization === undefined ? {} : { authorization: call.authorization }),
      ...call.headers,
    },
    ...(body === undefined ? {} : { body }),
    redirect: 'manual',
    signal: AbortSignal.timeout(requestMs),
  })
}

export function verbOf({ input, body, verb }: Call): 'GET' | 'POST' | 'HEAD' {
  return verb ?? (input === undefined && body === undefined ? 'GET' : 'POST')
}

export function isFields(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A text member of an answer or record; anything else there is a failed expectation. */
export function textOf(fields: Readonly<Record<string, unknown>>, name: string): string {
  const value = fields[name]
  if (typeof value === 'string') return value
  throw new Error(`expected a text in "${name}" of ${JSON.stringify(fields)}`)
}

/** An object member. */
export function fieldsOf(fields: Readonly<Record<string, unknown>>, name: string) {
  const value = fields[name]
  if (isFields(value)) return value
  throw new Error(`expected an object in "${name}" of ${JSON.stringify(fields)}`)
}

/** A list member of objects. */
export function listOf(fields: Readonly<Record<string, unknown>>, name: string) {
  const value = fields[name]
  if (Array.isArray(value) && value.every(isFields)) return value
  throw new Error(`expected a list of objects in "${name}" of ${JSON.stringify(fields)}`)
}
