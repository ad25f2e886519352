import { P256Keypair, Secp256k1Keypair } from '@atproto/crypto'
import { p256 } from '@noble/curves/nist.js'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { base58btc } from 'multiformats/bases/base58'
import { hasVectors, vectorJson } from '../atproto/vectors.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { compact, asDer, type Sign, withHighS } from './jwt.ts'
import { patiently } from './sent.ts'
import { WebHost } from './web-host.ts'

setDefaultTimeout(60_000)

// Keys and signatures of others, as those of people whose DID documents hold them in every form.
interface SignatureVector {
  readonly comment: string
  readonly algorithm: 'ES256' | 'ES256K'
  readonly didDocSuite: string
  readonly publicKeyDid: string
  readonly publicKeyMultibase: string
  readonly signatureBase64: string
}

const signatures: SignatureVector[] = vectorJson('crypto/signature-fixtures.json')
const k256Keys: { privateKeyBytesHex: string; publicDidKey: string }[] = vectorJson(
  'crypto/w3c_didkey_K256.json',
)
const p256Keys: { privateKeyBytesBase58: string; publicDidKey: string }[] = vectorJson(
  'crypto/w3c_didkey_P256.json',
)
const keys = [
  ...k256Keys.map(({ privateKeyBytesHex: hex, publicDidKey }) => {
    return { algorithm: 'ES256K', hex, publicDidKey } as const
  }),
  ...p256Keys.map(({ privateKeyBytesBase58, publicDidKey }) => {
    const hex = base58btc.decode(`z${privateKeyBytesBase58}`).toHex()
    return { algorithm: 'ES256', hex, publicDidKey } as const
  }),
]
const oneOfEach = [keys[0], keys.at(-1)].flatMap((key) => key ?? [])
const suites = {
  ES256: 'EcdsaSecp256r1VerificationKey2019',
  ES256K: 'EcdsaSecp256k1VerificationKey2019',
}
const lxm = 'zone.stratos.server.listDomains'
const invalid: Refusal = [401, 'InvalidToken']

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: {} })
})
afterAll(async () => {
  await stratos?.stop()
})

describe.skipIf(!hasVectors)('by published vectors', () => {
  test.each(signatures)(
    'no token is signed by what signs something else: $comment',
    async (one) => {
      const { algorithm, didDocSuite, publicKeyDid, publicKeyMultibase } = one
      const sig = Uint8Array.fromBase64(one.signatureBase64)
      const forms = [
        { type: 'Multikey', publicKeyMultibase: publicKeyDid.slice('did:key:'.length) },
        { type: didDocSuite, publicKeyMultibase },
      ]
      for (const form of forms) {
        await using host = hostOf(form)
        expectRefusal(await ask(host, { alg: algorithm, sign: () => sig }), invalid)
      }
    },
  )

  test.each(keys)(
    '$publicDidKey signs in the one form that counts',
    async ({ algorithm, hex, publicDidKey }) => {
      const key = await (algorithm === 'ES256' ? P256Keypair : Secp256k1Keypair).import(hex)
      expect(key.did()).toBe(publicDidKey)
      const sign: Sign = (bytes) => key.sign(bytes)
      const bad: Record<string, Sign> = {
        'high S': async (bytes) => withHighS(await key.sign(bytes), algorithm),
        DER: async (bytes) => asDer(await key.sign(bytes)),
      }
      for (const form of formsOf(publicDidKey, algorithm)) {
        await using host = hostOf(form)
        expect(await ask(host, { alg: algorithm, sign })).toMatchObject({ status: 200 })
        for (const other of Object.values(bad)) {
          expectRefusal(await ask(host, { alg: algorithm, sign: other }), invalid)
        }
        const alg = algorithm === 'ES256' ? 'ES256K' : 'ES256'
        expectRefusal(await ask(host, { alg, sign }), invalid)
      }
    },
  )

  test.each(oneOfEach)(
    '$publicDidKey in no form that AT Protocol knows speaks for nobody',
    async ({ algorithm, hex, publicDidKey }) => {
      const key = await (algorithm === 'ES256' ? P256Keypair : Secp256k1Keypair).import(hex)
      const sign: Sign = (bytes) => key.sign(bytes)
      const multibase = publicDidKey.slice('did:key:'.length)
      const forms = [
        { type: 'JsonWebKey2020', publicKeyJwk: { kty: 'EC', crv: 'P-256' } },
        { type: 'Ed25519VerificationKey2020', publicKeyMultibase: multibase },
        { type: 'Multikey', publicKeyMultibase: publicDidKey },
        { type: 'Multikey', publicKeyMultibase: `u${multibase.slice(1)}` },
        { type: 'Multikey', publicKeyMultibase: multibase.slice(0, -1) },
        { type: 'Multikey', publicKeyMultibase: '' },
        // The type is that of the other curve.
        { type: suites[algorithm === 'ES256' ? 'ES256K' : 'ES256'], publicKeyMultibase: multibase },
      ]
      for (const form of forms) {
        await using host = hostOf(form)
        expectRefusal(await ask(host, { alg: algorithm, sign }), invalid)
      }
    },
  )
})

type Form = Readonly<Record<string, unknown>>

/** A key as DID documents hold it: under its own number, or bare under the name of its curve. */
function formsOf(didKey: string, algorithm: 'ES256' | 'ES256K'): readonly Form[] {
  const multibase = didKey.slice('did:key:'.length)
  const compressed = base58btc.decode(multibase).subarray(2)
  const { Point } = algorithm === 'ES256' ? p256 : secp256k1
  const whole = Point.fromBytes(compressed).toBytes(false)
  return [
    { type: 'Multikey', publicKeyMultibase: multibase },
    { type: suites[algorithm], publicKeyMultibase: base58btc.encode(whole) },
  ]
}

function hostOf(form: Form): WebHost {
  return new WebHost((did) => ({
    '@context': ['https://www.w3.org/ns/did/v1'],
    id: did,
    verificationMethod: [{ id: `${did}#atproto`, controller: did, ...form }],
  }))
}

async function ask({ did }: WebHost, { alg, sign }: { alg: string; sign: Sign }) {
  const iat = Math.floor(Date.now() / 1000)
  const claims = { iss: did, aud: stratos.did, lxm, iat, exp: iat + 60, jti: crypto.randomUUID() }
  const token = await compact({ typ: 'JWT', alg }, claims, sign)
  const authorization = `Bearer ${token}`
  return await patiently(() => stratos.call(lxm, { authorization }))
}
