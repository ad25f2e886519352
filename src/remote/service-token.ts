import type { ServiceKey } from '../atproto/keys.ts'
import type { Did } from '../atproto/syntax.ts'

export interface ServiceTokenClaims {
  readonly iss: Did
  readonly aud: Did
  /** The method that it opens. */
  readonly lxm: string
  readonly nowMs: number
}

/** A service-auth token for one call, good for a minute. @see https://atproto.com/specs/xrpc */
export function serviceToken(key: ServiceKey, claims: ServiceTokenClaims): string {
  const { iss, aud, lxm, nowMs } = claims
  const iat = Math.floor(nowMs / 1000)
  const jti = crypto.randomUUID()
  const signed = [
    { typ: 'JWT', alg: 'ES256K' },
    { iss, aud, lxm, iat, exp: iat + lifetimeSeconds, jti },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  const sig = Buffer.from(key.sign(Buffer.from(signed))).toString('base64url')
  return `${signed}.${sig}`
}

const lifetimeSeconds = 60
