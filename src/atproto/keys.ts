import {
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from 'node:crypto'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { base58btc } from 'multiformats/bases/base58'
import { type K256Verifier, nobleK256 } from './k256.ts'

/** A user's P-256 key, which signs commits. The private part leaves it through `exportHex` only. */
export class SigningKey {
  readonly did: string
  readonly #key: KeyObject
  readonly #hex: string

  private constructor(hex: string) {
    this.#hex = hex
    this.#key = createPrivateKey({
      key: Buffer.from(p256PrivateDer + hex, 'hex'),
      format: 'der',
      type: 'pkcs8',
    })
    const spki = createPublicKey(this.#key).export({ format: 'der', type: 'spki' })
    this.did = formatDidKey('ES256', compress(spki.subarray(-64)))
  }

  static generate(): SigningKey {
    return new SigningKey(randomScalar(p256Order))
  }

  /** @param hex 64 hexadecimal digits, as `exportHex` gives them */
  static import(hex: string): SigningKey {
    return new SigningKey(checkedScalar(hex, p256Order))
  }

  exportHex(): string {
    return this.#hex
  }

  /** 64 bytes, r and s, with the low s that AT Protocol demands, over the SHA-256 of `bytes`. */
  sign(bytes: Uint8Array): Uint8Array {
    const sig = new Uint8Array(sign('sha256', bytes, { key: this.#key, dsaEncoding: 'ieee-p1363' }))
    if (isHighS(sig)) negateS(sig)
    return sig
  }
}

/** The service's secp256k1 key, which signs attestations. */
export class ServiceKey {
  readonly did: string
  readonly #secret: Uint8Array

  private constructor(hex: string) {
    this.#secret = Uint8Array.fromHex(hex)
    this.did = formatDidKey('ES256K', secp256k1.getPublicKey(this.#secret, true))
  }

  static generate(): ServiceKey {
    return new ServiceKey(randomScalar(k256Order))
  }

  static import(hex: string): ServiceKey {
    return new ServiceKey(checkedScalar(hex, k256Order))
  }

  exportHex(): string {
    return this.#secret.toHex()
  }

  /** 64 bytes, r and s (low), over the SHA-256 of `bytes`. */
  sign(bytes: Uint8Array): Uint8Array {
    return secp256k1.sign(bytes, this.#secret, { prehash: true, lowS: true, format: 'compact' })
  }
}

/**
 * Strict: DER, a high s, and anything but 64 bytes are refused.
 * @throws KeyError when `didKey` is no P-256 or secp256k1 key; a bad signature is `false`
 */
export function verifySignature(
  input: {
    readonly didKey: string
    readonly bytes: Uint8Array
    readonly sig: Uint8Array
  },
  k256: K256Verifier = nobleK256,
): boolean {
  const { algorithm, point } = parseDidKey(input.didKey)
  if (input.sig.length !== 64) return false
  if (algorithm === 'ES256') return verifyP256(point, input.bytes, input.sig)
  const outcome = k256.verify({ point, bytes: input.bytes, sig: input.sig })
  if (outcome === 'no key') throw new KeyError('the key is no point of its curve')
  return outcome === 'good'
}

/** @throws KeyError for any other kind of key */
export function didKeyAlgorithm(didKey: string): KeyAlgorithm {
  return parseDidKey(didKey).algorithm
}

/** The part of a did:key that a Multikey in a DID document carries, from its `z` on. */
export function multibaseOfDidKey(didKey: string): string {
  parseDidKey(didKey)
  return didKey.slice(didKeyScheme.length)
}

/** A key that cannot be read, or of a kind that AT Protocol does not know. */
export class KeyError extends Error {
  override readonly name = 'KeyError'
}

export type KeyAlgorithm = 'ES256' | 'ES256K'

const didKeyScheme = 'did:key:'
const didKeyCharsMax = 100
const pointLength = 33
/** Multicodec numbers 0x1200 and 0xe7 as varints. */
const multicodec: Record<KeyAlgorithm, readonly [number, number]> = {
  ES256: [0x80, 0x24],
  ES256K: [0xe7, 0x01],
}

/** DER of a PKCS #8 private key without its public part, up to the 32 bytes of the key. */
const p256PrivateDer = '3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420'
/** DER of a public key in SPKI form, up to the 33 bytes of the compressed point. */
const p256PublicDer = Buffer.from('3039301306072a8648ce3d020106082a8648ce3d030107032200', 'hex')
const p256Order = Buffer.from(
  'ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551',
  'hex',
)
const p256HalfOrder = Buffer.from(
  '7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8',
  'hex',
)
const k256Order = Buffer.from(
  'fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141',
  'hex',
)

function parseDidKey(text: string): { algorithm: KeyAlgorithm; point: Uint8Array } {
  if (!text.startsWith(`${didKeyScheme}z`) || text.length > didKeyCharsMax) {
    throw new KeyError('a key must be written as did:key:z...')
  }
  const bytes = base58(text.slice(didKeyScheme.length))
  for (const algorithm of ['ES256', 'ES256K'] as const) {
    const [first, second] = multicodec[algorithm]
    if (bytes[0] !== first || bytes[1] !== second) continue
    const point = bytes.subarray(2)
    if (point.length === pointLength && (point[0] === 2 || point[0] === 3)) {
      return { algorithm, point }
    }
  }
  throw new KeyError('a key must be P-256 or secp256k1, with a compressed point')
}

function base58(text: string): Uint8Array {
  try {
    return base58btc.decode(text)
  } catch (cause) {
    throw new KeyError('a key must be written in base58', { cause })
  }
}

function formatDidKey(algorithm: KeyAlgorithm, point: Uint8Array): string {
  const bytes = new Uint8Array(2 + pointLength)
  bytes.set(multicodec[algorithm])
  bytes.set(point, 2)
  return didKeyScheme + base58btc.encode(bytes)
}

/** @param affine x and y, 32 bytes each */
function compress(affine: Uint8Array): Uint8Array {
  const point = new Uint8Array(pointLength)
  point[0] = 2 + ((affine[63] ?? 0) & 1)
  point.set(affine.subarray(0, 32), 1)
  return point
}

function verifyP256(point: Uint8Array, bytes: Uint8Array, sig: Uint8Array): boolean {
  if (isHighS(sig)) return false
  const der = Buffer.concat([p256PublicDer, point])
  let key: KeyObject
  try {
    key = createPublicKey({ key: der, format: 'der', type: 'spki' })
  } catch (cause) {
    throw new KeyError('the key is no point of its curve', { cause })
  }
  return verify('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' }, sig)
}

function isHighS(sig: Uint8Array): boolean {
  return Buffer.compare(sig.subarray(32), p256HalfOrder) > 0
}

/** s becomes order - s, which verifies as well. */
function negateS(sig: Uint8Array): void {
  let borrow = 0
  for (let index = 31; index >= 0; index--) {
    const difference = (p256Order[index] ?? 0) - (sig[32 + index] ?? 0) - borrow
    sig[32 + index] = difference
    borrow = difference < 0 ? 1 : 0
  }
}

function isScalar(bytes: Uint8Array, order: Uint8Array): boolean {
  return bytes.some((byte) => byte !== 0) && Buffer.compare(bytes, order) < 0
}

function randomScalar(order: Uint8Array): string {
  const bytes = randomBytes(32)
  // Misses about once in 2^32 for P-256 and never in practice for secp256k1.
  return isScalar(bytes, order) ? bytes.toString('hex') : randomScalar(order)
}

/** The text itself never stands in the error. */
function checkedScalar(hex: string, order: Uint8Array): string {
  if (!/^[0-9a-f]{64}$/i.test(hex) || !isScalar(Buffer.from(hex, 'hex'), order)) {
    throw new KeyError(
      'a private key must be 64 hexadecimal digits, from 1 to the order of its curve',
    )
  }
  return hex.toLowerCase()
}
