import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { Secp256k1Keypair } from '@atproto/crypto'

import {
  AppKey,
  type Bent,
  type BentCall,
  DpopApp,
  type Fields,
  pdsToken,
  seconds,
} from '../kit/dpop.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import type { Answer, Call } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const create = 'zone.stratos.repo.createRecord'
const list = 'zone.stratos.repo.listRecords'
const invalid: Refusal = [401, 'InvalidToken']
const expired: Refusal = [401, 'ExpiredToken']
const unnamed: Refusal = [401, 'AuthMissing']
const nonceless: Refusal = [401, 'use_dpop_nonce']

let stratos: SeededStratos
let alice: DpopApp

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] } })
  alice = await DpopApp.of(stratos, 'alice')
})
afterAll(() => stratos?.stop())

describe('a proof is refused, and nothing is written,', () => {
  const cases: Record<string, [BentCall | (() => Promise<BentCall>), Refusal?]> = {
    'when there is none': [{ header: null }],
    'when it is no JWT': [{ header: 'a.b.c' }],
    'when it is empty': [{ header: 'x' }],
    'when there are two': [async () => ({ header: `${await fresh()}, ${await fresh()}` })],
    'when it is cut': [async () => ({ header: (await fresh()).slice(0, -4) })],
    'when a byte of it is another': [async () => ({ header: flipped(await fresh()) })],
    'when it is too long': [{ proof: { claims: { more: 'x'.repeat(5000) } } }],
    'of another type': [{ proof: { header: { typ: 'JWT' } } }],
    'without a type': [{ proof: { header: { typ: undefined } } }],
    'with alg none': [{ proof: { header: { alg: 'none' }, sign: () => new Uint8Array() } }],
    'with alg HS256': [{ proof: { header: { alg: 'HS256' } } }],
    'with alg ES256K': [async () => ({ proof: await onK256() })],
    'with extensions': [{ proof: { header: { crit: ['b64'], b64: true } } }],
    'without a key': [{ proof: { header: { jwk: undefined } } }],
    'with a private key': [jwk(() => alice.key.privateJwk())],
    'with a symmetric key': [jwk(() => ({ kty: 'oct', k: 'AAAA' }))],
    'with a key of another curve': [jwk(() => ({ crv: 'P-384' }))],
    'with a key of another kind': [jwk(() => ({ kty: 'OKP' }))],
    'with a key meant for another algorithm': [jwk(() => ({ alg: 'ES384' }))],
    'with a key meant to encrypt': [jwk(() => ({ use: 'enc' }))],
    'with coordinates in another form': [jwk((own) => ({ x: `${String(own['x'])}=` }))],
    'with a point off the curve': [jwk((own) => ({ y: own['x'] }))],
    'by another key than the one in it': [async () => by(await AppKey.create())],
    'with a signature in DER': [{ proof: { sign: async (bytes) => der(await signed(bytes)) } }],
    'with a signature of zeros': [{ proof: { sign: () => new Uint8Array(64) } }],
    'for another method': [{ htm: 'GET' }],
    'for the method in small letters': [{ htm: 'post' }],
    'without a method': [{ proof: { claims: { htm: undefined } } }],
    'for another path': [async () => ({ htu: `${stratos.url}/xrpc/${list}` })],
    'for the twin of the method': [
      async () => ({ htu: `${stratos.url}/xrpc/com.atproto.repo.createRecord` }),
    ],
    'for another host': [{ htu: `https://other.test/xrpc/${create}` }],
    'for another port': [{ htu: `http://localhost:1/xrpc/${create}` }],
    'for another scheme': [async () => ({ htu: here().replace('http:', 'https:') })],
    'with a user name in the address': [async () => ({ htu: here().replace('//', '//a@') })],
    'for a path alone': [{ htu: `/xrpc/${create}` }],
    'without an address': [{ proof: { claims: { htu: undefined } } }],
    'without the hash of the token': [{ proof: { claims: { ath: undefined } } }],
    'with the hash of another': [{ proof: { claims: { ath: 'A'.repeat(43) } } }],
    'without a jti': [{ proof: { claims: { jti: undefined } } }],
    'with an empty jti': [{ proof: { claims: { jti: '' } } }],
    'with an endless jti': [{ proof: { claims: { jti: 'x'.repeat(257) } } }],
    'without a time': [{ proof: { claims: { iat: undefined } } }],
    'with a time as text': [{ proof: { claims: { iat: String(seconds()) } } }],
    'of six minutes ago': [{ proof: { claims: { iat: seconds() - 360 } } }],
    'of the future': [{ proof: { claims: { iat: seconds() + 360 } } }],
    'without a nonce': [{ nonce: 'none' }, nonceless],
    'with a made-up nonce': [{ nonce: 'x' }, nonceless],
    'with a nonce of its own time': [async () => ({ nonce: forgedNonce(0) }), nonceless],
    'with a nonce of the next time': [async () => ({ nonce: forgedNonce(90_000) }), nonceless],
    'with a nonce that is no text': [{ proof: { claims: { nonce: 5 } } }, nonceless],
  }
  for (const [name, [bent, refusal = invalid]] of Object.entries(cases)) {
    test(name, async () => {
      await ready()
      const change = typeof bent === 'function' ? await bent() : bent
      const answer = await expectNoChange(stratos, refusal, () =>
        alice.once(create, post(), change),
      )
      expectDpop(answer, refusal)
    })
  }

  test('a second time, also at the same time', async () => {
    await ready()
    const header = await alice.proof(list, listOf())
    const both = await Promise.all([1, 2].map(() => alice.once(list, listOf(), { header })))
    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([200, 401]))
    expectDpop(await alice.once(list, listOf(), { header }), invalid)
    // Nor when it comes in another signature: what counts is its jti.
    const jti = crypto.randomUUID()
    const again = { proof: { claims: { jti } } }
    expect(await alice.once(list, listOf(), again)).toMatchObject({ status: 200 })
    expectDpop(await alice.once(list, listOf(), again), invalid)
  })

  test('after a restart that forgot it, and the client is told to make another', async () => {
    await ready()
    const header = await alice.proof(list, listOf())
    expect(await alice.once(list, listOf(), { header })).toMatchObject({ status: 200 })
    await stratos.terminate()
    await stratos.run()
    expectDpop(await alice.once(list, listOf(), { header }), nonceless)
    expect(await alice.call(list, listOf())).toMatchObject({ status: 200 })
  })
})

describe('a token is refused, and nothing is written,', () => {
  const cases: Record<string, [(app: DpopApp) => Promise<string>, Refusal?]> = {
    'when it is opaque': [async () => 'abcdef'],
    'when it is missing': [async () => ''],
    'when it is cut': [async ({ token }) => token.slice(0, token.lastIndexOf('.'))],
    'when it is of another person': [bent({ claims: { sub: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa' } })],
    'when it is of nobody': [bent({ claims: { sub: undefined } })],
    'when its sub is no DID': [bent({ claims: { sub: 'alice.test' } })],
    'when it is expired': [bent({ claims: { exp: seconds() - 1 } }), expired],
    'when its exp is no time': [bent({ claims: { exp: 'later' } })],
    'when it is bound to no key': [bent({ claims: { cnf: undefined } })],
    'when it is bound to another key': [bent({ claims: { cnf: { jkt: 'A'.repeat(43) } } })],
    'with alg none': [bent({ header: { alg: 'none' }, sign: () => new Uint8Array() })],
    'with alg NONE': [bent({ header: { alg: 'NONE' } })],
    'without alg': [bent({ header: { alg: undefined } })],
    'with a key in it': [async (app) => token({ header: { jwk: app.key.jwk } }, app)],
    'with the place of a key': [bent({ header: { jku: 'https://evil.test/keys' } })],
    'with the place of a certificate': [bent({ header: { x5u: 'https://evil.test/cert' } })],
    'with a certificate': [bent({ header: { x5c: ['MIIB'] } })],
    'with extensions': [bent({ header: { crit: ['exp'] } })],
  }
  for (const [name, [make, refusal = invalid]] of Object.entries(cases)) {
    test(name, async () => {
      await ready()
      const app = new DpopApp(stratos, alice.key, await make(alice))
      app.nonce = alice.nonce
      const answer = await expectNoChange(stratos, refusal, () => app.once(create, post()))
      expectDpop(answer, refusal)
      expect(JSON.stringify(answer.body)).not.toContain(app.token || 'nothing')
    })
  }

  test('when its key is bound to nobody, whoever it names', async () => {
    const app = await DpopApp.of(stratos, 'bob', 'unbound')
    const answer = await expectNoChange(stratos, invalid, () => app.call(create, post('bob')))
    expectDpop(answer, invalid)
    // The key of one person does not act for another one.
    const bobs = await DpopApp.of(stratos, 'bob')
    bobs.token = await pdsToken(stratos.person('alice').did, bobs.key)
    expectDpop(await bobs.call(create, post()), invalid)
  })

  test('under the scheme of another kind', async () => {
    const header = await alice.proof(list, listOf())
    for (const scheme of ['Bearer', 'Basic']) {
      const authorization = `${scheme} ${alice.token}`
      const answer = await stratos.call(list, {
        ...listOf(),
        authorization,
        headers: { dpop: header },
      })
      expectRefusal(answer, invalid)
    }
  })

  test('when there is only the proof', async () => {
    const header = await alice.proof(list, listOf())
    const answer = await stratos.call(list, { ...listOf(), headers: { dpop: header } })
    expectDpop(answer, unnamed)
  })
})

test('two headers with a proof each are refused', async () => {
  await ready()
  const path = `/xrpc/${list}?repo=${stratos.person('alice').did}&collection=${postCollection}`
  const proofs = [await alice.proof(list), await alice.proof(list)]
  const lines = [`GET ${path} HTTP/1.1`, `Host: localhost:${stratos.port}`, 'Connection: close']
  lines.push(`Authorization: DPoP ${alice.token}`, ...proofs.map((proof) => `DPoP: ${proof}`))
  const answer = await sendRaw(stratos.port, `${lines.join('\r\n')}\r\n\r\n`)
  expect(answer).toStartWith('HTTP/1.1 401')
  expect(answer).toContain('InvalidToken')
})

test('no log shows a token, a proof or a nonce', async () => {
  for (const secret of [alice.token, await alice.proof(list), alice.nonce ?? '']) {
    expect(stratos.log).not.toContain(secret.slice(0, 40))
  }
})

describe('a proof counts', () => {
  const cases: Record<string, BentCall | (() => BentCall)> = {
    'under the other name of loopback': () => ({ htu: here().replace('localhost', '127.0.0.1') }),
    'with a query and a fragment in the address': () => ({ htu: `${here()}?a=b#c` }),
    'with an address written in another way': () => ({
      htu: here()
        .replace('http', 'HTTP')
        .replace('localhost', 'LocalHost')
        .replace('zone', '%7aone'),
    }),
    'of a clock that is four minutes off': { proof: { claims: { iat: seconds() - 240 } } },
    'with what a browser says of its keys': () => ({
      proof: { header: { jwk: { ...alice.key.jwk, ext: true, key_ops: ['verify'] } } },
    }),
  }
  for (const [name, bent] of Object.entries(cases)) {
    test(name, async () => {
      await ready()
      const answer = await alice.once(create, post(), typeof bent === 'function' ? bent() : bent)
      expect(answer).toMatchObject({ status: 200 })
    })
  }

  test('with a high s and with a low one', async () => {
    await ready()
    const halves = new Set<boolean>()
    for (let count = 0; halves.size < 2 && count < 100; count++) {
      const sign = async (bytes: Uint8Array) => {
        const sig = await signed(bytes)
        halves.add((sig[32] ?? 0) >= 0x80)
        return sig
      }
      expect(await alice.once(list, listOf(), { proof: { sign } })).toMatchObject({ status: 200 })
    }
    expect(halves.size).toBe(2)
  })

  test('whatever the answer, it carries a nonce', async () => {
    await ready()
    const answers = [
      await alice.once(list, listOf()),
      await alice.once('zone.stratos.repo.nothing', {}),
      await alice.once(list, {}),
      await alice.once('zone.stratos.repo.getRecord', {
        params: { ...listOf().params, rkey: 'none' },
      }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 501, 400, 404])
    for (const { headers } of answers) {
      expect(headers.get('dpop-nonce')).toMatch(/^[0-9a-z]+\.[\w-]{22}$/)
      expect(headers.get('access-control-expose-headers')).toContain('DPoP-Nonce')
    }
    expect((await stratos.callAs('alice', list, listOf())).headers.get('dpop-nonce')).toBeNull()
  })
})

/** A nonce at hand, so that the next answer is about something else. */
async function ready(): Promise<void> {
  expect(await alice.call(list, listOf())).toMatchObject({ status: 200 })
}

function expectDpop(answer: Answer, [status, error]: Refusal): void {
  expect(answer).toMatchObject({ status, body: { error } })
  // Never `invalid_token`, upon which clients forget their sessions.
  expect(answer.headers.get('www-authenticate')).toBe(`DPoP error="${error}", algs="ES256"`)
  expect(answer.headers.get('dpop-nonce')).toBeString()
}

function post(name = 'alice'): Call {
  const record = privatePost('by a bound key', [stratos.boundary('a')])
  return { input: { repo: stratos.person(name).did, collection: postCollection, record } }
}

function listOf() {
  return { params: { repo: stratos.person('alice').did, collection: postCollection } }
}

function here(): string {
  return `${stratos.url}/xrpc/${create}`
}

async function fresh(): Promise<string> {
  return await alice.proof(create, post())
}

async function signed(bytes: Uint8Array): Promise<Uint8Array> {
  return await alice.key.sign(bytes)
}

function jwk(change: (own: Fields) => Fields | Promise<Fields>): () => Promise<BentCall> {
  return async () => {
    const own = alice.key.jwk
    return { proof: { header: { jwk: { ...own, ...(await change(own)) } } } }
  }
}

function by(key: AppKey): BentCall {
  return { proof: { sign: (bytes) => key.sign(bytes) } }
}

async function onK256(): Promise<Bent> {
  const key = await Secp256k1Keypair.create({ exportable: true })
  return { header: { alg: 'ES256K' }, sign: (bytes) => key.sign(bytes) }
}

function flipped(proof: string): string {
  const [header = '', claims = '', sig = ''] = proof.split('.')
  const bytes = Buffer.from(sig, 'base64url')
  bytes[10] = (bytes[10] ?? 0) ^ 1
  return `${header}.${claims}.${bytes.toString('base64url')}`
}

function der(sig: Uint8Array): Uint8Array {
  const integer = (bytes: Uint8Array) => [2, 33, 0, ...bytes]
  return Uint8Array.from([48, 70, ...integer(sig.subarray(0, 32)), ...integer(sig.subarray(32))])
}

/** The time of a nonce moved, with its old code. */
function forgedNonce(byMs: number): string {
  const [time = '', code = ''] = (alice.nonce ?? '').split('.')
  const moved = (Number.parseInt(time, 36) + byMs + (byMs === 0 ? 1 : 0)).toString(36)
  return `${moved}.${code}`
}

function bent(change: Bent) {
  return (app: DpopApp) => token(change, app)
}

async function token(change: Bent, { key }: DpopApp): Promise<string> {
  return await pdsToken(stratos.person('alice').did, key, change)
}
