import { secp256k1 } from '@noble/curves/secp256k1.js'
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { fastestK256, type K256Verifier, nobleK256 } from '../../src/atproto/k256.ts'
import { KeyError, ServiceKey, verifySignature } from '../../src/atproto/keys.ts'
import { base58btc } from 'multiformats/bases/base58'
import { hasVectors, vectorJson } from './vectors.ts'

const found = fastestK256()
const hasAddon = process.platform === 'linux' && process.arch === 'x64'
const verifiers = found.verifier === nobleK256 ? [nobleK256] : [nobleK256, found.verifier]
const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n
const prime = 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2fn
const bytes = Buffer.from('some bytes')
const { secretKey, publicKey: point } = secp256k1.keygen()
const sig = secp256k1.sign(bytes, secretKey, { prehash: true, format: 'compact' })
const s = BigInt(`0x${sig.subarray(32).toHex()}`)

test.skipIf(!hasAddon)('where the addon was built for, it is what is used', () => {
  expect(found).toMatchObject({ verifier: { name: 'libsecp256k1' } })
  expect(found.because).toBeUndefined()
})

describe.each(verifiers)('$name', (k256) => {
  const outcome = (over: Partial<Parameters<K256Verifier['verify']>[0]>) =>
    k256.verify({ point, bytes, sig, ...over })

  test('refuses the same signature with a high s', () => {
    expect(outcome({ sig: withS(order - s) })).toBe('bad')
    const half = order >> 1n
    for (const bad of [half + 1n, order - 1n]) expect(outcome({ sig: withS(bad) })).toBe('bad')
  })

  test.each([0n, order, order + 1n, prime, (1n << 256n) - 1n])(
    'refuses an r or an s of %p',
    (value) => {
      expect(outcome({ sig: withS(value) })).toBe('bad')
      expect(outcome({ sig: Buffer.concat([hex(value), sig.subarray(32)]) })).toBe('bad')
      expect(outcome({ sig: Buffer.concat([hex(value), hex(value)]) })).toBe('bad')
    },
  )

  test('refuses an s to which the order was added', () => {
    if (s + order < 1n << 256n) expect(outcome({ sig: withS(s + order) })).toBe('bad')
  })

  test('refuses other bytes, another key, and each changed bit', () => {
    expect(outcome({ bytes: bytes.subarray(1) })).toBe('bad')
    expect(outcome({ bytes: new Uint8Array() })).toBe('bad')
    expect(outcome({ point: secp256k1.keygen().publicKey })).toBe('bad')
    const mirrored = Buffer.from(point)
    mirrored[0] = (mirrored[0] ?? 0) ^ 1
    expect(outcome({ point: mirrored })).toBe('bad')
    for (let bit = 0; bit < 512; bit += 5) {
      const changed = Buffer.from(sig)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(outcome({ sig: changed })).toBe('bad')
    }
  })

  test('says of a point that is not on the curve that it is no key, whatever was signed', () => {
    const seven = Buffer.concat([Buffer.from([2]), hex(5n)])
    const beyond = Buffer.concat([Buffer.from([2]), hex(prime + 1n)])
    const zero = Buffer.concat([Buffer.from([2]), hex(0n)])
    for (const off of [seven, beyond, zero]) {
      for (const one of [sig, new Uint8Array(64), Buffer.alloc(64, 0xff)]) {
        expect(outcome({ point: off, sig: one })).toBe('no key')
      }
    }
  })

  test('takes a good one, also in a part of a larger buffer', () => {
    expect(outcome({})).toBe('good')
    const inside = (part: Uint8Array) => Buffer.concat([Buffer.alloc(3), part, part]).subarray(3)
    expect(
      outcome({ sig: inside(sig).subarray(0, 64), point: inside(point).subarray(0, 33) }),
    ).toBe('good')
  })

  test('says what noble says', () => {
    const field = fc.uint8Array({ minLength: 32, maxLength: 32 })
    const signature = fc.oneof(
      fc.tuple(field, field).map(([r, other]) => Buffer.concat([r, other])),
      fc.tuple(fc.nat(63), fc.nat(255)).map(([at, byte]) => {
        const changed = Buffer.from(sig)
        changed[at] = byte
        return changed
      }),
    )
    const key = fc.oneof(
      fc.constant(point),
      fc.tuple(fc.constantFrom(2, 3), field).map(([sign, x]) => Buffer.from([sign, ...x])),
    )
    const same = fc.property(signature, key, (one, of) => {
      const signed = { point: of, bytes, sig: one }
      expect(k256.verify(signed)).toBe(nobleK256.verify(signed))
    })
    fc.assert(same, { numRuns: 100 })
  })

  test('throws for a did:key that is no key', () => {
    const didKey = `did:key:${base58btc.encode(Uint8Array.from([0xe7, 1, 2, ...hex(5n)]))}`
    expect(() => verifySignature({ didKey, bytes, sig }, k256)).toThrow(KeyError)
  })

  test.each([0, 63, 65, 70])('refuses %p bytes before they are looked at', (length) => {
    const cut = new Uint8Array(length)
    const didKey = ServiceKey.import(secretKey.toHex()).did
    expect(verifySignature({ didKey, bytes, sig: cut }, k256)).toBeFalse()
  })

  test.skipIf(!hasVectors)('agrees with the interop vectors', () => {
    const vectors: SignatureVector[] = vectorJson('crypto/signature-fixtures.json')
    expect(vectors.length).toBeGreaterThan(3)
    for (const vector of vectors) {
      const signed = {
        didKey: vector.publicKeyDid,
        bytes: Uint8Array.fromBase64(vector.messageBase64),
        sig: Uint8Array.fromBase64(vector.signatureBase64),
      }
      expect(verifySignature(signed, k256)).toBe(vector.validSignature)
    }
  })
})

describe('noble stands in, and it is said why,', () => {
  class Answers {
    readonly #answer: number
    constructor(answer: number) {
      this.#answer = answer
    }
    ecdsaVerify(): number {
      return this.#answer
    }
  }
  const always = (answer: number) =>
    class extends Answers {
      constructor() {
        super(answer)
      }
    }
  const cases: Record<string, [() => unknown, string]> = {
    'where nothing loads': [
      () => {
        throw new Error('no such file')
      },
      'no such file',
    ],
    'where something else loads': [() => ({}), 'what was loaded is not libsecp256k1'],
    'for what takes everything': [() => ({ Secp256k1: always(0) }), 'it takes a bad signature'],
    'for what takes nothing': [() => ({ Secp256k1: always(3) }), 'it refuses a good signature'],
  }
  test.each(Object.entries(cases))('%s', (_, [load, because]) => {
    expect(fastestK256(load)).toEqual({ verifier: nobleK256, because })
  })
})

interface SignatureVector {
  readonly messageBase64: string
  readonly publicKeyDid: string
  readonly signatureBase64: string
  readonly validSignature: boolean
}

function withS(value: bigint): Uint8Array {
  return Buffer.concat([sig.subarray(0, 32), hex(value)])
}

function hex(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(64, '0'), 'hex')
}
