import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'

import { isThumbprint, readPublicJwk } from '../../src/atproto/jwk.ts'
import { k256Key } from '../remote/issuer.ts'

const p256Order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
const bytes = Buffer.from('to be signed')
const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const good: Readonly<Record<string, unknown>> = { ...publicKey.export({ format: 'jwk' }) }
const sig = sign('sha256', bytes, { key: privateKey, dsaEncoding: 'ieee-p1363' })

describe('no public key that signs is', () => {
  const bad: Record<string, unknown> = {
    nothing: undefined,
    null: null,
    'a text': JSON.stringify(good),
    'a list': [good],
    'an empty object': {},
    'a private key': { ...good, ...privateKey.export({ format: 'jwk' }) },
    'a key with a private member': { ...good, d: '' },
    'a key with a secret': { ...good, k: 'AAAA' },
    'a symmetric key': { kty: 'oct', k: 'AAAA' },
    'an RSA key': { kty: 'RSA', n: 'AAAA', e: 'AQAB' },
    'an Ed25519 key': { kty: 'OKP', crv: 'Ed25519', x: good['x'] },
    'a key of P-384': { ...good, crv: 'P-384' },
    'a key of P-256 under secp256k1': { ...good, crv: 'secp256k1' },
    'a key without a curve': { ...good, crv: undefined },
    'a key for ES384': { ...good, alg: 'ES384' },
    'a key for HS256': { ...good, alg: 'HS256' },
    'a key to encrypt': { ...good, use: 'enc' },
    'a key to derive': { ...good, key_ops: ['deriveBits'] },
    'a key whose uses are no list': { ...good, key_ops: 'verify' },
    'a key whose name is none': { ...good, kid: 5 },
    'a point without y': { ...good, y: undefined },
    'a point with a number': { ...good, y: 5 },
    'a point off the curve': { ...good, y: good['x'] },
    'a point of zeros': { ...good, x: 'A'.repeat(43), y: 'A'.repeat(43) },
    'a point with padding': { ...good, x: `${String(good['x'])}=` },
    'a point in plain base64': { ...good, x: `+${String(good['x']).slice(1)}` },
    'a short point': { ...good, x: String(good['x']).slice(1) },
    'a point with a zero in front': { ...good, x: `AA${String(good['x'])}` },
    'a point with bits left over': { ...good, x: `${String(good['x']).slice(0, 42)}B` },
    // The order of the field and more: the same point by another name.
    'a point beyond the field': { ...good, x: `${'_'.repeat(42)}8` },
  }
  for (const [name, jwk] of Object.entries(bad)) {
    test(name, () => expect(readPublicJwk(jwk)).toBeUndefined())
  }
})

describe('it does not verify', () => {
  const key = readPublicJwk(good)
  const bad: Record<string, Uint8Array> = {
    nothing: new Uint8Array(),
    zeros: new Uint8Array(64),
    'r of zero': Buffer.concat([new Uint8Array(32), sig.subarray(32)]),
    's of zero': Buffer.concat([sig.subarray(0, 32), new Uint8Array(32)]),
    's of the order': Buffer.concat([sig.subarray(0, 32), bytesOf(p256Order)]),
    'a signature with a byte more': Buffer.concat([sig, new Uint8Array(1)]),
    'a signature with a byte less': sig.subarray(1),
    'a signature in DER': sign('sha256', bytes, privateKey),
    'a signature over something else': sign('sha256', Buffer.from('else'), {
      key: privateKey,
      dsaEncoding: 'ieee-p1363',
    }),
  }
  for (const [name, one] of Object.entries(bad)) {
    test(name, () => expect(key?.verify(bytes, one)).toBeFalse())
  }
})

test('both halves of s verify', () => {
  const key = readPublicJwk(good)
  const s = BigInt(`0x${sig.subarray(32).toString('hex')}`)
  const other = Buffer.concat([sig.subarray(0, 32), bytesOf(p256Order - s)])
  expect([sig, other].map((one) => key?.verify(bytes, one))).toEqual([true, true])
})

test('a key of secp256k1 verifies what it signed, and one of P-256 does not', async () => {
  const { jwk, sign: signed } = await k256Key('a')
  const made = signed(bytes)
  expect(readPublicJwk(jwk)).toMatchObject({ algorithm: 'ES256K', kid: 'a' })
  expect(readPublicJwk(jwk)?.verify(bytes, made)).toBeTrue()
  expect(readPublicJwk(good)?.verify(bytes, made)).toBeFalse()
  expect(readPublicJwk({ ...jwk, y: jwk.x })).toBeUndefined()
})

test('the thumbprint is that of the RFC, whatever else the key says', () => {
  const named = JSON.stringify({ crv: 'P-256', kty: 'EC', x: good['x'], y: good['y'] })
  const thumbprint = Bun.SHA256.hash(named, 'base64url')
  const more = { ext: true, ...good, kid: 'a', use: 'sig', alg: 'ES256', key_ops: ['verify'] }
  expect(readPublicJwk(good)?.thumbprint).toBe(thumbprint)
  expect(readPublicJwk(more)?.thumbprint).toBe(thumbprint)
  expect(isThumbprint(thumbprint)).toBeTrue()
  for (const text of ['', thumbprint.slice(1), `${thumbprint}=`, 'B'.repeat(43)]) {
    expect(isThumbprint(text)).toBeFalse()
  }
})

test('any value is a key or none, and never an error', () => {
  const keyish = fc.record({ kty: fc.constant('EC'), crv: fc.constant('P-256'), x: fc.anything() })
  fc.assert(
    fc.property(fc.oneof(fc.anything(), keyish), (value) => {
      expect(readPublicJwk(value)).toBeUndefined()
    }),
  )
})

function bytesOf(value: bigint): Uint8Array {
  return Buffer.from(value.toString(16).padStart(64, '0'), 'hex')
}
