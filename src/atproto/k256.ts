import { secp256k1 } from '@noble/curves/secp256k1.js'
import { createHash } from 'node:crypto'

/** Verifies signatures of secp256k1, which `node:crypto` of Bun does not know. */
export interface K256Verifier {
  /** For the operator. */
  readonly name: string
  verify(signed: Signed): 'good' | 'bad' | 'no key'
}

interface Signed {
  /** 33 bytes; the key, compressed. */
  readonly point: Uint8Array
  /** Whose SHA-256 was signed. */
  readonly bytes: Uint8Array
  /** 64 bytes, r and s; with a high s it is bad. */
  readonly sig: Uint8Array
}

/** Runs everywhere. */
export const nobleK256: K256Verifier = {
  name: '@noble/curves',
  verify: ({ point, bytes, sig }) => {
    if (secp256k1.verify(sig, bytes, point, strict)) return 'good'
    return secp256k1.utils.isValidPublicKey(point, true) ? 'bad' : 'no key'
  },
}

const strict = { prehash: true, lowS: true, format: 'compact' } as const

export interface FoundVerifier {
  readonly verifier: K256Verifier
  /** Why a faster one is not in use. */
  readonly because?: string
}

/**
 * The fastest verifier that loads here. libsecp256k1 takes a tenth of the time of the other; what
 * loads has to show first that it tells good from bad.
 */
export function fastestK256(load: () => unknown = loadAddon): FoundVerifier {
  try {
    const verifier = nativeK256(load())
    const because = faultOf(verifier)
    return because === undefined ? { verifier } : { verifier: nobleK256, because }
  } catch (error) {
    const because = error instanceof Error ? error.message : String(error)
    return { verifier: nobleK256, because }
  }
}

/** Paths are spelled out, so that the file becomes part of the built binary. */
function loadAddon(): unknown {
  const { platform, arch } = process
  if (platform === 'linux' && arch === 'x64') {
    return require('secp256k1/prebuilds/linux-x64/secp256k1.glibc.node')
  }
  if (platform === 'darwin' && arch === 'arm64') {
    return require('secp256k1/prebuilds/darwin-arm64/secp256k1.node')
  }
  throw new Error(`there is none for ${platform} ${arch}`)
}

/** What the addon exports, by its C++ source: `ecdsaVerify` answers 0 for good, 2 for no key. */
interface Addon {
  readonly Secp256k1: new () => {
    ecdsaVerify(sig: Uint8Array, hash: Uint8Array, point: Uint8Array): number
  }
}

function nativeK256(addon: unknown): K256Verifier {
  if (!isAddon(addon)) throw new Error('what was loaded is not libsecp256k1')
  const native = new addon.Secp256k1()
  return {
    name: 'libsecp256k1',
    verify: ({ point, bytes, sig }) => {
      const hash = createHash('sha256').update(bytes).digest()
      switch (native.ecdsaVerify(sig, hash, point)) {
        case 0:
          return 'good'
        case 2:
          return 'no key'
        default:
          // Of r or s out of range it does not come to look at the key.
          return secp256k1.utils.isValidPublicKey(point, true) ? 'bad' : 'no key'
      }
    },
  }
}

function isAddon(value: unknown): value is Addon {
  return (
    typeof value === 'object' &&
    value !== null &&
    'Secp256k1' in value &&
    typeof value.Secp256k1 === 'function'
  )
}

/** One good signature, and what must not pass for one. */
function faultOf(verifier: K256Verifier): string | undefined {
  const { secretKey, publicKey: point } = secp256k1.keygen(new Uint8Array(48).fill(1))
  const bytes = Buffer.from('a signature to try a verifier on')
  const sig = secp256k1.sign(bytes, secretKey, strict)
  const { r, s } = secp256k1.Signature.fromBytes(sig, 'compact')
  const high = new secp256k1.Signature(r, secp256k1.Point.Fn.neg(s)).toBytes('compact')
  const other = secp256k1.keygen(new Uint8Array(48).fill(2)).publicKey
  const bad = [
    { point, bytes: Buffer.from('another text'), sig },
    { point, bytes, sig: high },
    { point, bytes, sig: new Uint8Array(64) },
    { point: other, bytes, sig },
  ]
  if (verifier.verify({ point, bytes, sig }) !== 'good') return 'it refuses a good signature'
  return bad.every((signed) => verifier.verify(signed) === 'bad')
    ? undefined
    : 'it takes a bad signature'
}
