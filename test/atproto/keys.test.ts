import { describe, expect, test } from 'bun:test'
import { P256Keypair, Secp256k1Keypair, verifySignature as theirVerify } from '@atproto/crypto'
import { base58btc } from 'multiformats/bases/base58'
import {
  didKeyAlgorithm,
  KeyError,
  multibaseOfDidKey,
  ServiceKey,
  SigningKey,
  verifySignature,
} from '../../src/atproto/keys.ts'
import { hasVectors, vectorJson } from './vectors.ts'

const kinds = [
  { name: 'P-256', Key: SigningKey, Theirs: P256Keypair, algorithm: 'ES256' },
  { name: 'secp256k1', Key: ServiceKey, Theirs: Secp256k1Keypair, algorithm: 'ES256K' },
] as const
const orders = {
  ES256: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  ES256K: 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n,
}
const bytes = new TextEncoder().encode('some bytes')

describe.each(kinds)('a key of $name', ({ Key, Theirs, algorithm }) => {
  const key = Key.generate()
  const sig = key.sign(bytes)
  const didKey = key.did

  test.each([
    ['too short', 'ab'],
    ['too long', `${'ab'.repeat(32)}a`],
    ['no digits', 'zz'.repeat(32)],
    ['zero', '00'.repeat(32)],
    ['the order', orders[algorithm].toString(16)],
    ['above the order', 'ff'.repeat(32)],
  ])('is not made of bad text, which stays out of the error: %s', (_, hex) => {
    expect(() => Key.import(hex)).toThrow(KeyError)
    expect(() => Key.import(hex)).not.toThrow(hex)
  })

  test('verifies no signature with a high s', () => {
    const high = new Uint8Array(sig)
    const s = orders[algorithm] - BigInt(`0x${sig.subarray(32).toHex()}`)
    high.set(Uint8Array.fromHex(s.toString(16).padStart(64, '0')), 32)
    expect(verifySignature({ didKey, bytes, sig: high })).toBeFalse()
  })

  test('verifies no signature with r or s of zero or of the order', () => {
    const order = Uint8Array.fromHex(orders[algorithm].toString(16))
    for (const value of [new Uint8Array(32), order]) {
      for (const at of [0, 32]) {
        const bad = new Uint8Array(sig)
        bad.set(value, at)
        expect(verifySignature({ didKey, bytes, sig: bad })).toBeFalse()
      }
    }
  })

  test.each([0, 1, 63, 65, 70, 128])('verifies no signature of %p bytes', (length) => {
    const cut = new Uint8Array(length)
    cut.set(sig.subarray(0, length))
    expect(verifySignature({ didKey, bytes, sig: cut })).toBeFalse()
  })

  test('verifies no signature of other bytes or by another key', () => {
    expect(verifySignature({ didKey, bytes: bytes.subarray(1), sig })).toBeFalse()
    expect(verifySignature({ didKey: Key.generate().did, bytes, sig })).toBeFalse()
  })

  test('verifies each of its own signatures', () => {
    for (let run = 0; run < 40; run++) {
      const message = crypto.getRandomValues(new Uint8Array(run))
      expect(verifySignature({ didKey, bytes: message, sig: key.sign(message) })).toBeTrue()
    }
  })

  test('signs what @atproto/crypto verifies, and the other way round', async () => {
    for (let run = 0; run < 10; run++) {
      const message = crypto.getRandomValues(new Uint8Array(50))
      expect(await theirVerify(didKey, message, key.sign(message))).toBeTrue()
      const theirs = await Theirs.create()
      const theirSig = await theirs.sign(message)
      expect(verifySignature({ didKey: theirs.did(), bytes: message, sig: theirSig })).toBeTrue()
    }
  })

  test('has the did:key that @atproto/crypto gives it', async () => {
    for (let run = 0; run < 20; run++) {
      const some = Key.generate()
      expect(some.did).toBe((await Theirs.import(some.exportHex())).did())
    }
  })

  test('comes back from its export', () => {
    const again = Key.import(key.exportHex())
    expect(again.did).toBe(didKey)
    expect(Key.import(key.exportHex().toUpperCase()).exportHex()).toBe(key.exportHex())
    expect(verifySignature({ didKey, bytes, sig: again.sign(bytes) })).toBeTrue()
  })

  test('does not show its private part in JSON or inspection', () => {
    const shown = [JSON.stringify(key), Bun.inspect(key), Object.keys(key).join()]
    for (const text of shown) expect(text.toLowerCase()).not.toContain(key.exportHex())
  })

  test('names its algorithm and its multibase form', () => {
    expect(didKeyAlgorithm(didKey)).toBe(algorithm)
    expect(`did:key:${multibaseOfDidKey(didKey)}`).toBe(didKey)
  })

  test('is refused when its point is not on the curve', () => {
    const prefix = algorithm === 'ES256' ? [0x80, 0x24] : [0xe7, 0x01]
    const off = new Uint8Array([...prefix, 2, ...new Uint8Array(32).fill(0xff)])
    const bad = `did:key:${base58btc.encode(off)}`
    expect(() => verifySignature({ didKey: bad, bytes, sig })).toThrow(KeyError)
  })
})

test.each([
  '',
  'did:key:',
  'did:key:z',
  'did:plc:44ybard66vv44zksje25o7dz',
  'did:key:f0123',
  'did:key:z0OIl',
  // Ed25519
  'did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp',
  // P-256 with a point that is not compressed
  `did:key:${base58btc.encode(new Uint8Array([0x80, 0x24, 4, ...new Uint8Array(64)]))}`,
  `did:key:z${'1'.repeat(100_000)}`,
])('a did:key of another kind is refused: %p', (text) => {
  expect(() => didKeyAlgorithm(text)).toThrow(KeyError)
  expect(() => multibaseOfDidKey(text)).toThrow(KeyError)
})

interface SignatureVector {
  readonly comment: string
  readonly messageBase64: string
  readonly algorithm: string
  readonly publicKeyDid: string
  readonly signatureBase64: string
  readonly validSignature: boolean
}

const signatures: SignatureVector[] = vectorJson('crypto/signature-fixtures.json')
const k256: { privateKeyBytesHex: string; publicDidKey: string }[] = vectorJson(
  'crypto/w3c_didkey_K256.json',
)
const p256: { privateKeyBytesBase58: string; publicDidKey: string }[] = vectorJson(
  'crypto/w3c_didkey_P256.json',
)

describe.skipIf(!hasVectors)('interop vectors', () => {
  test.each(signatures)('$comment', (vector) => {
    const didKey = vector.publicKeyDid
    expect<string>(didKeyAlgorithm(didKey)).toBe(vector.algorithm)
    const message = Uint8Array.fromBase64(vector.messageBase64)
    const sig = Uint8Array.fromBase64(vector.signatureBase64)
    expect(verifySignature({ didKey, bytes: message, sig })).toBe(vector.validSignature)
  })

  test('private keys have their did:keys', () => {
    expect(k256.length + p256.length).toBeGreaterThan(1)
    for (const { privateKeyBytesHex, publicDidKey } of k256) {
      expect(ServiceKey.import(privateKeyBytesHex).did).toBe(publicDidKey)
    }
    for (const { privateKeyBytesBase58, publicDidKey } of p256) {
      const hex = base58btc.decode(`z${privateKeyBytesBase58}`).toHex()
      expect(SigningKey.import(hex).did).toBe(publicDidKey)
    }
  })
})
