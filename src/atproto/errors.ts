/**
 * A refusal that a caller can understand: HTTP status, lexicon error name, text for people.
 * The one place that turns errors into replies is the XRPC door.
 * @see https://atproto.com/specs/xrpc#error-responses
 */
export class XrpcError extends Error {
  override readonly name = 'XrpcError'
  readonly status: number
  /** The error name of the lexicon, such as `RecordNotFound`. */
  readonly error: string
  readonly headers: Readonly<Record<string, string>>
  /** Further members of the JSON body, beside `error` and `message`. */
  readonly fields: Readonly<Record<string, unknown>>

  constructor(status: number, error: string, message: string, extra: XrpcErrorExtra = {}) {
    super(message, extra.cause === undefined ? undefined : { cause: extra.cause })
    this.status = status
    this.error = error
    this.headers = extra.headers ?? {}
    this.fields = extra.fields ?? {}
  }
}

interface XrpcErrorExtra {
  readonly headers?: Readonly<Record<string, string>>
  readonly fields?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

export function invalidRequest(message: string): XrpcError {
  return new XrpcError(400, 'InvalidRequest', message)
}

export function overloaded(message: string): XrpcError {
  return new XrpcError(503, 'Overloaded', message, { headers: { 'retry-after': '1' } })
}

/** A refusal as plain data, for the way from one thread to another. */
export interface Fault extends Pick<
  XrpcError,
  'status' | 'error' | 'message' | 'headers' | 'fields'
> {}

export function faultOf({ status, error, message, headers, fields }: XrpcError): Fault {
  return { status, error, message, headers, fields }
}

export function refusalFrom({ status, error, message, headers, fields }: Fault): XrpcError {
  return new XrpcError(status, error, message, { headers, fields })
}

/** What a caller is told of a fault of ours; the log has the rest. */
export const internalFault: Fault = {
  status: 500,
  error: 'InternalServerError',
  message: 'Internal Server Error',
  headers: {},
  fields: {},
}
