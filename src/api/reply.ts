import { XrpcError } from '../atproto/errors.ts'
import type { Log } from '../lib/log.ts'

/** Headers of every answer that depends on who asks. What it says may be anybody's words. */
export const privateHeaders = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  vary: 'Authorization, DPoP, Cookie',
} as const

/** Any site may call, none of them with a cookie. @see protocol.md, section 2 */
export const corsHeaders = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers':
    'DPoP-Nonce, WWW-Authenticate, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, ' +
    'RateLimit-Policy, Retry-After, Atproto-Repo-Rev, X-Request-Id',
} as const

/** Of every answer to a browser on our own pages, where cookies count. */
export function ownHeadersOf({ publicUrl }: { readonly publicUrl: string }) {
  return publicUrl.startsWith('https:') ? { ...ownHeaders, ...secureHeaders } : ownHeaders
}

export const ownHeaders = {
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
} as const

/** Of the same where the service has https: a year without the first visit by http. */
const secureHeaders = {
  'strict-transport-security': 'max-age=31536000',
} as const

const preflightHeaders = {
  ...corsHeaders,
  ...privateHeaders,
  'access-control-allow-methods': 'GET, HEAD, POST',
  'access-control-allow-headers':
    'authorization, dpop, dpop-bind, content-type, atproto-proxy, atproto-accept-labelers',
  'access-control-max-age': '86400',
} as const

const xrpcBase = new Headers({
  ...corsHeaders,
  ...privateHeaders,
  'content-type': 'application/json',
})

/** Of an XRPC answer. To copy what all of them have takes a third of the time of naming it anew. */
export function xrpcHeaders(own: Readonly<Record<string, string>>): Headers {
  const headers = new Headers(xrpcBase)
  for (const [name, value] of Object.entries(own)) headers.set(name, value)
  return headers
}

export function preflight(): Response {
  return new Response(null, { status: 204, headers: preflightHeaders })
}

export function json(
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
  status = 200,
): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/json', ...headers },
  })
}

/**
 * The one place where errors become refusals. What is no refusal is a fault of ours: it is logged
 * with its request id, and the caller learns nothing but that.
 */
export function refusalOf(error: unknown, about: { log: Log; requestId: string }): XrpcError {
  if (error instanceof XrpcError) return error
  about.log.error('request.failed', { requestId: about.requestId, error })
  return new XrpcError(500, 'InternalServerError', 'Internal Server Error')
}

export function refusalBody(refusal: XrpcError): object {
  return { error: refusal.error, message: refusal.message, ...refusal.fields }
}
