import { Secp256k1Keypair } from '@atproto/crypto'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { base58btc } from 'multiformats/bases/base58'
import { createHmac } from 'node:crypto'

import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { basic, type Person, SeededStratos } from '../kit/seeded.ts'
import { serviceToken, type TokenOptions } from '../kit/token.ts'
import type { Call } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const invalid: Refusal = [401, 'InvalidToken']
const now = Math.floor(Date.now() / 1000)
const foreignKey = await Secp256k1Keypair.create()

let stratos: SeededStratos
let alice: Person
/** Known to the directory by a document without a key. */
let keyless: string
/** By documents whose keys are no point of their curve. */
let offK256: string
let offP256: string

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] } })
  alice = stratos.person('alice')
  keyless = stratos.directory.add({})
  offK256 = stratos.directory.add({ didKey: noPoint([0xe7, 0x01]) })
  offP256 = stratos.directory.add({ didKey: noPoint([0x80, 0x24]) })
})
afterAll(async () => {
  await stratos?.stop()
})

type Mint = (nsid: string) => Promise<string> | string

function minted(options: TokenOptions | (() => TokenOptions), aud = () => stratos.did): Mint {
  return async (lxm) => {
    const made = typeof options === 'function' ? options() : options
    return `Bearer ${await serviceToken(alice, { aud: aud(), lxm }, made)}`
  }
}

const badTokens: Record<string, [Mint, Refusal]> = {
  'for another audience': [minted({}, () => 'did:web:other.example.com'), invalid],
  'for another fragment of the service': [minted({}, () => `${stratos.did}#stratos`), invalid],
  'for another method': [minted({ claims: { lxm: 'zone.stratos.repo.putRecord' } }), invalid],
  'for the twin of the method': [
    async (nsid) => `Bearer ${await serviceToken(alice, { aud: stratos.did, lxm: twin(nsid) })}`,
    invalid,
  ],
  'for no method': [minted({ claims: { lxm: undefined } }), invalid],
  expired: [minted({ claims: { iat: now - 120, exp: now - 60 } }), [401, 'ExpiredToken']],
  'from the future': [minted({ claims: { iat: now + 600, exp: now + 660 } }), invalid],
  'not yet valid': [minted({ claims: { nbf: now + 600 } }), invalid],
  'that lives longer than an hour': [minted({ claims: { exp: now + 3700 } }), invalid],
  'signed by another key': [minted({ sign: (bytes) => foreignKey.sign(bytes) }), invalid],
  'with a high S': [
    minted({ sign: async (bytes) => withHighS(await alice.key.sign(bytes)) }),
    invalid,
  ],
  'of alg none, without a signature': [
    minted({ header: { alg: 'none' }, sign: () => new Uint8Array() }),
    invalid,
  ],
  'of alg none, with a good signature': [minted({ header: { alg: 'none' } }), invalid],
  'of alg HS256, with the public key as the secret': [
    minted({
      header: { alg: 'HS256' },
      sign: (bytes) => createHmac('sha256', alice.key.publicKeyBytes()).update(bytes).digest(),
    }),
    invalid,
  ],
  'of another type': [minted({ header: { typ: 'at+jwt' } }), invalid],
  'of an issuer whom the directory does not know': [
    minted({ claims: { iss: `did:plc:${'a'.repeat(24)}` } }),
    invalid,
  ],
  'of an issuer without a key': [minted(() => ({ claims: { iss: keyless } })), invalid],
  'of an issuer whose K-256 key is no point': [
    minted(() => ({ claims: { iss: offK256 } })),
    invalid,
  ],
  'of an issuer whose P-256 key is no point': [
    minted(() => ({ header: { alg: 'ES256' }, claims: { iss: offP256 } })),
    invalid,
  ],
  'of somebody else': [minted(() => ({ claims: { iss: stratos.person('bob').did } })), invalid],
}

const badTexts: Record<string, [Mint, Refusal]> = {
  nothing: [() => '', invalid],
  'Bearer and nothing': [() => 'Bearer', invalid],
  'no token': [() => 'Bearer no-token', invalid],
  'four parts': [() => 'Bearer a.b.c.d', invalid],
  'three empty parts': [() => 'Bearer ..', invalid],
  'half a DID': [() => 'Bearer did:', invalid],
  'a DID with a fragment': [() => `Bearer ${alice.did}#atproto`, invalid],
  'a DID after another scheme': [() => `DPoP ${alice.did}`, invalid],
  'a DID without a scheme': [() => alice.did, invalid],
  'a scheme that nobody knows': [() => 'Digest username="admin"', invalid],
  'Basic, and no Base64': [() => 'Basic %%%', invalid],
  'a wrong password of the operator': [() => basic('admin', 'x'.repeat(24)), invalid],
}
const badCredentials = { ...badTokens, ...badTexts }

describe.each(['zone.stratos.repo.createRecord', 'com.atproto.repo.createRecord'])('%s', (nsid) => {
  test('is refused without a credential', async () => {
    await expectNoChange(stratos, [401, 'AuthMissing'], () => write(nsid, {}))
  })

  test.each(Object.entries(badTokens))('is refused with a token %s', async (_, [mint, refusal]) => {
    const authorization = await mint(nsid)
    await expectNoChange(stratos, refusal, () => write(nsid, { authorization }))
  })

  test.each(Object.entries(badTexts))('is refused with %s', async (_, [mint, refusal]) => {
    const authorization = await mint(nsid)
    await expectNoChange(stratos, refusal, () => write(nsid, { authorization }))
  })

  test('is refused to the operator', async () => {
    const call = { authorization: stratos.adminBasic }
    await expectNoChange(stratos, [403, 'Forbidden'], () => write(nsid, call))
  })

  test('takes a token for it, with the fragment or without, as often as it comes', async () => {
    for (const aud of [stratos.did, `${stratos.did}#atproto_pns`]) {
      const token = await serviceToken(alice, { aud, lxm: nsid })
      for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
        const answer = await write(nsid, { authorization: `${scheme} ${token}` })
        expect(answer).toMatchObject({ status: 200 })
      }
    }
  })
})

describe('a bad credential is not the same as none on', () => {
  const queries = (): Record<string, Call> => {
    const list = { params: { repo: alice.did, collection: postCollection } }
    const get = { params: { ...list.params, rkey: 'missing' } }
    return {
      'zone.stratos.repo.listRecords': list,
      'com.atproto.repo.listRecords': list,
      'zone.stratos.repo.getRecord': get,
      'com.atproto.repo.getRecord': get,
      'zone.stratos.sync.getRepo': { params: { did: alice.did } },
      'zone.stratos.enrollment.status': { params: { did: alice.did } },
      'zone.stratos.server.listDomains': {},
    }
  }
  test.each([
    'zone.stratos.repo.listRecords',
    'com.atproto.repo.listRecords',
    'zone.stratos.repo.getRecord',
    'com.atproto.repo.getRecord',
    'zone.stratos.sync.getRepo',
    'zone.stratos.enrollment.status',
    'zone.stratos.server.listDomains',
  ])('%s', async (nsid) => {
    // The operator's tries are few: they are counted in a test of their own.
    const all = Object.entries(badCredentials).filter(([name]) => !name.includes('operator'))
    for (const [, [mint, refusal]] of all) {
      const authorization = await mint(nsid)
      if (authorization.startsWith('Basic')) continue
      expectRefusal(await stratos.call(nsid, { ...queries()[nsid], authorization }), refusal)
    }
  })
})

describe('the operator', () => {
  const nsid = 'zone.stratos.admin.setBoundaries'
  const input = () => ({ did: alice.did, boundaries: [stratos.boundary('a')] })

  test.each<[string, () => string, Refusal]>([
    ['another user name', () => basic('root', stratos.adminPassword), invalid],
    ['no user name', () => basic('', stratos.adminPassword), invalid],
    ['a longer password', () => basic('admin', `${stratos.adminPassword}x`), invalid],
    ['no password', () => basic('admin', ''), invalid],
    ['a wrong bearer', () => 'Bearer wrong', invalid],
    ['a person’s token', () => alice.bearer, [403, 'Forbidden']],
  ])('is not %s', async (_, authorization, refusal) => {
    const call = { input: { did: alice.did, boundaries: [] }, authorization: authorization() }
    await expectNoChange(stratos, refusal, () => stratos.call(nsid, call))
    expect(await stratos.boundariesOf('alice')).toEqual(input().boundaries)
  })

  test('is nobody without a credential', async () => {
    const ask = () => stratos.call(nsid, { input: { did: alice.did, boundaries: [] } })
    await expectNoChange(stratos, [401, 'AuthMissing'], ask)
    expect(await stratos.boundariesOf('alice')).toEqual(input().boundaries)
  })

  test('may send the password as Basic or, to methods of the operator, as Bearer', async () => {
    for (const authorization of [stratos.adminBasic, `Bearer ${stratos.adminPassword}`]) {
      const answer = await stratos.call(nsid, { input: input(), authorization })
      expect(answer).toMatchObject({ status: 200, body: input() })
    }
  })

  test('may not send it as Bearer to any other method', async () => {
    const authorization = `Bearer ${stratos.adminPassword}`
    const params = { repo: alice.did, collection: postCollection }
    const list = await stratos.call('zone.stratos.repo.listRecords', { params, authorization })
    expectRefusal(list, invalid)
    const domains = await stratos.call('zone.stratos.server.listDomains', { authorization })
    expectRefusal(domains, invalid)
  })
})

function write(nsid: string, call: Call) {
  const record = privatePost('written', [stratos.boundary('a')])
  return stratos.call(nsid, {
    ...call,
    input: { repo: alice.did, collection: postCollection, record },
  })
}

function twin(nsid: string): string {
  return nsid.startsWith('com.atproto.')
    ? nsid.replace('com.atproto.', 'zone.stratos.')
    : nsid.replace('zone.stratos.', 'com.atproto.')
}

/** A did:key of the right length whose x coordinate, 7, belongs to no point of either curve. */
function noPoint(multicodec: readonly number[]): string {
  const x = new Uint8Array(32)
  x[31] = 7
  const bytes = Uint8Array.from([...multicodec, 2, ...x])
  return `did:key:${base58btc.encode(bytes)}`
}

/** The same signature in the form that AT Protocol forbids. */
function withHighS(sig: Uint8Array): Uint8Array {
  const { r, s } = secp256k1.Signature.fromBytes(sig)
  const { ORDER } = secp256k1.Point.Fn
  return new secp256k1.Signature(r, ORDER - s).toBytes('compact')
}
