import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import type { KeyAlgorithm } from './keys.ts'

/** A public key as OAuth writes it. */
export interface PublicJwk {
  readonly algorithm: KeyAlgorithm
  /** SHA-256 over what makes the key this one, in base64url. @see RFC 7638 */
  readonly thumbprint: string
  readonly kid: string | undefined
  /**
   * Strict in form: r and s, 32 bytes each. A high s is as good as a low one: JOSE makes no
   * difference, and half of what WebCrypto signs in browsers has it.
   */
  verify(bytes: Uint8Array, sig: Uint8Array): boolean
}

/**
 * A key of P-256 or secp256k1 that signs, or nothing: for any other kind, a private or symmetric
 * key, one meant for something else, coordinates in another form than the canonical one, and a
 * point that is not on its curve.
 * @see https://www.rfc-editor.org/rfc/rfc7518#section-6.2.1
 */
export function readPublicJwk(value: unknown): PublicJwk | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  const jwk: Readonly<Record<string, unknown>> = { ...value }
  const { kty, crv, x, y, kid } = jwk
  const algorithm = crv === 'P-256' ? 'ES256' : crv === 'secp256k1' ? 'ES256K' : undefined
  if (kty !== 'EC' || algorithm === undefined || !isForSigning(jwk, algorithm)) return undefined
  if (secretMembers.some((name) => name in jwk)) return undefined
  if (!isCoordinate(x) || !isCoordinate(y)) return undefined
  if (kid !== undefined && typeof kid !== 'string') return undefined
  const verifies = algorithm === 'ES256' ? p256({ x, y }) : k256({ x, y })
  if (verifies === undefined) return undefined
  const named = `{"crv":"${algorithm === 'ES256' ? 'P-256' : 'secp256k1'}","kty":"EC"`
  const thumbprint = Bun.SHA256.hash(`${named},"x":"${x}","y":"${y}"}`, 'base64url')
  return {
    algorithm,
    thumbprint,
    kid,
    verify: (bytes, sig) => sig.length === 64 && verifies(bytes, sig),
  }
}

/** As `thumbprint` of a key is written. */
export function isThumbprint(text: string): boolean {
  return isCoordinate(text)
}

/** Of private keys of all kinds, and of symmetric ones. */
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'] as const

function isForSigning({ alg, use, key_ops }: Readonly<Record<string, unknown>>, own: KeyAlgorithm) {
  if (alg !== undefined && alg !== own) return false
  if (use !== undefined && use !== 'sig') return false
  return key_ops === undefined || (Array.isArray(key_ops) && key_ops.includes('verify'))
}

/** 32 bytes in base64url, without padding and without bits that are left over. */
function isCoordinate(value: unknown): value is string {
  return typeof value === 'string' && /^[\w-]{42}[AEIMQUYcgkosw048]$/.test(value)
}

type Verify = (bytes: Uint8Array, sig: Uint8Array) => boolean
type Point = Readonly<Record<'x' | 'y', string>>

function p256(point: Point): Verify | undefined {
  let key: KeyObject
  try {
    key = createPublicKey({ key: { kty: 'EC', crv: 'P-256', ...point }, format: 'jwk' })
  } catch {
    // The only thing that was not looked at is whether the point is on the curve.
    return undefined
  }
  return (bytes, sig) => verify('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' }, sig)
}

function k256({ x, y }: Point): Verify | undefined {
  const bytes = Buffer.concat([
    Buffer.from([4]),
    Buffer.from(x, 'base64url'),
    Buffer.from(y, 'base64url'),
  ])
  if (!secp256k1.utils.isValidPublicKey(bytes, false)) return undefined
  const options = { prehash: true, lowS: false, format: 'compact' } as const
  return (signed, sig) => secp256k1.verify(sig, signed, bytes, options)
}
