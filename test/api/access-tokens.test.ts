import { createHmac, createPublicKey } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { AppKey, type Bent, DpopApp, pdsToken, seconds } from '../kit/dpop.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import type { Call } from '../kit/xrpc.ts'
import { Issuer, k256Key } from '../remote/issuer.ts'

setDefaultTimeout(60_000)

const create = 'zone.stratos.repo.createRecord'
const invalid: Refusal = [401, 'InvalidToken']

let stratos: SeededStratos
/** Of alice's account, and of mallory's. */
let pds: Issuer
let evil: Issuer
let key: AppKey

beforeAll(async () => {
  pds = await Issuer.open()
  evil = await Issuer.open()
  stratos = await SeededStratos.start({
    people: { alice: ['a'], bob: ['a'] },
    strangers: ['mallory'],
  })
  key = await AppKey.create()
  await live('alice', pds)
  await live('mallory', evil)
})
afterAll(async () => {
  await stratos?.stop()
  await pds?.[Symbol.asyncDispose]()
  await evil?.[Symbol.asyncDispose]()
})

describe('a token in the name of alice is refused', () => {
  const cases: Record<string, [(own: string) => Promise<string>, Refusal?]> = {
    'of another server, under its name': [async (did) => evil.token(did, key)],
    'of another server, under the name of hers': [
      (did) => evil.token(did, key, { claims: { iss: pds.url, aud: pds.did } }),
    ],
    'of another server, under another name': [
      (did) => evil.token(did, key, { claims: { iss: 'https://pds.test', aud: pds.did } }),
    ],
    'by the key of the app': [(did) => pds.token(did, key, { sign: (bytes) => key.sign(bytes) })],
    'with a key of its own': [
      (did) => pds.token(did, key, { header: { jwk: key.jwk }, sign: (bytes) => key.sign(bytes) }),
    ],
    'with the place of a key': [
      (did) => pds.token(did, key, { header: { jku: `${evil.url}/oauth/jwks` } }),
    ],
    'with alg none': [(did) => pds.token(did, key, none())],
    'with alg HS256, by the public key as a secret': [(did) => pds.token(did, key, hmac())],
    'with alg HS256, by a secret': [(did) => pdsToken(did, key)],
    'with alg ES256K, by a key of P-256': [bent({ header: { alg: 'ES256K' } })],
    'with alg RS256': [bent({ header: { alg: 'RS256' } })],
    'under a key that nobody published': [bent({ header: { kid: 'second' } })],
    'with a kid that is no name': [bent({ header: { kid: 5 } })],
    'of another type': [bent({ header: { typ: 'JWT' } })],
    'without a type': [bent({ header: { typ: undefined } })],
    'without exp': [bent({ claims: { exp: undefined } })],
    'that is expired': [bent({ claims: { exp: seconds() - 1 } }), [401, 'ExpiredToken']],
    'from the future': [bent({ claims: { iat: seconds() + 60 } })],
    'not valid yet': [bent({ claims: { nbf: seconds() + 60 } })],
    'for another PDS': [bent({ claims: { aud: 'did:web:other.test' } })],
    'for the API of the sign-in': [(did) => bent({ claims: { aud: `api@${pds.url}` } })(did)],
    'for nobody': [bent({ claims: { aud: undefined } })],
    'without an issuer': [bent({ claims: { iss: undefined } })],
    'of an issuer with a slash': [(did) => bent({ claims: { iss: `${pds.url}/` } })(did)],
    'bound to another key': [bent({ claims: { cnf: { jkt: 'A'.repeat(43) } } })],
    'without a scope': [bent({ claims: { scope: undefined } }), [403, 'ScopeMissing']],
    'with a scope for something else': [
      bent({ claims: { scope: 'atproto repo:com.example.other' } }),
      [403, 'ScopeMissing'],
    ],
  }
  for (const [name, [make, refusal = invalid]] of Object.entries(cases)) {
    test(name, async () => {
      const { did } = stratos.person('alice')
      const app = new DpopApp(stratos, key, await make(did))
      await expectNoChange(stratos, refusal, () => app.call(create, post('alice')))
    })
  }

  test('of a server whose keys cannot be had', async () => {
    const gone = await Issuer.open()
    await live('bob', gone)
    const { did } = stratos.person('bob')
    const app = new DpopApp(stratos, key, await gone.token(did, key))
    await gone[Symbol.asyncDispose]()
    await expectNoChange(stratos, invalid, () => app.call(create, post('bob')))
  })
})

test('no other server is asked before the proof holds and the token could', async () => {
  const { did } = stratos.person('mallory')
  evil.asked.length = 0
  stratos.directory.asked.length = 0
  const app = new DpopApp(stratos, key, await evil.token(did, await AppKey.create()))
  expect(await app.call(create, post('mallory'))).toMatchObject({ status: 401 })
  app.token = await evil.token(did, key)
  const wrong = { proof: { sign: () => new Uint8Array(64).fill(1) } }
  expect(await app.call(create, post('mallory'), wrong)).toMatchObject({ status: 401 })
  app.token = await pdsToken(did, key)
  expect(await app.call(create, post('mallory'))).toMatchObject({ status: 401 })
  expect(evil.asked).toEqual([])
  expect(stratos.directory.asked).not.toContain(did)
})

test('a flood of bad tokens asks the server no more than a minute allows', async () => {
  const { did } = stratos.person('alice')
  const good = new DpopApp(stratos, key, await pds.token(did, key))
  expect(await good.call(create, post('alice'))).toMatchObject({ status: 200 })
  pds.asked.length = 0
  const app = new DpopApp(stratos, key, '')
  for (let count = 0; count < 20; count++) {
    app.token = await pds.token(did, key, { header: { kid: `guess-${count}` } })
    expect(await app.call(create, post('alice'))).toMatchObject({ status: 401 })
  }
  // One look at its metadata and one at its keys, for the first of them at most.
  expect(pds.asked.length).toBeLessThanOrEqual(2)
})

test('whoever has no keys in the list of the PDS may still bind one', async () => {
  const { did } = stratos.person('alice')
  const app = new DpopApp(stratos, key, await pdsToken(did, key))
  const answer = await app.call(create, post('alice'))
  expect(answer.body['message']).toContain('zone.stratos.server.bindKey')
})

describe('a token of the account’s own PDS counts', () => {
  const cases: Record<string, (did: string) => Promise<string>> = {
    'for the DID of the PDS': bent({}),
    'for its origin': (did) => bent({ claims: { aud: pds.url } })(did),
    'for this service': (did) => bent({ claims: { aud: stratos.did } })(did),
    'for several': (did) => bent({ claims: { aud: ['https://other.test', pds.did] } })(did),
    'without a kid': bent({ header: { kid: undefined } }),
  }
  for (const [name, make] of Object.entries(cases)) {
    test(name, async () => {
      const app = new DpopApp(stratos, key, await make(stratos.person('alice').did))
      expect(await app.call(create, post('alice'))).toMatchObject({ status: 200 })
      expect(await app.call(create, post('alice'))).toMatchObject({ status: 200 })
    })
  }

  test('for nobody else’s repo', async () => {
    const app = new DpopApp(stratos, key, await pds.token(stratos.person('alice').did, key))
    expect(await app.call(create, post('bob'))).toMatchObject({ status: 403 })
  })

  test('and who is not enrolled stays a stranger', async () => {
    const app = new DpopApp(stratos, key, await evil.token(stratos.person('mallory').did, key))
    const answer = await app.call(create, post('mallory'))
    expect(answer).toMatchObject({ status: 403, body: { error: 'NotEnrolled' } })
  })

  test('also by a key of secp256k1, with any s', async () => {
    const k256 = await k256Key('k')
    const own = await Issuer.open()
    own.keys = [k256.jwk]
    await live('bob', own)
    // The document of bob may be known from before, with his PDS of then.
    await stratos.terminate()
    await stratos.run()
    const { did } = stratos.person('bob')
    const { sign } = k256
    for (let count = 0; count < 4; count++) {
      const header = { alg: 'ES256K', kid: 'k' }
      const app = new DpopApp(stratos, key, await own.token(did, key, { header, sign }))
      expect(await app.call(create, post('bob'))).toMatchObject({ status: 200 })
    }
    await own[Symbol.asyncDispose]()
  })

  test('within its scope, the twin of a method apart', async () => {
    const twin = 'com.atproto.repo.createRecord'
    const scopes: [scope: string, opens: readonly string[]][] = [
      [`atproto repo:${postCollection}`, [create, twin]],
      [`atproto repo:${postCollection}?action=create`, [create, twin]],
      [`atproto repo:${postCollection}?action=delete`, []],
      ['atproto repo:*', [create, twin]],
      [`atproto rpc:${create}?aud=${stratos.did}%23atproto_pns`, [create]],
      [`atproto rpc:*?aud=${stratos.did}#atproto_pns`, [create, twin]],
      [`atproto rpc:${create}?aud=did:web:other.test%23atproto_pns`, []],
      [`atproto rpc:*?aud=*`, []],
      [`atproto include:zone.stratos.authFull`, []],
      ['atproto', []],
    ]
    for (const [scope, opens] of scopes) {
      const token = await pds.token(stratos.person('alice').did, key, { claims: { scope } })
      const app = new DpopApp(stratos, key, token)
      for (const nsid of [create, twin]) {
        const { status } = await app.call(nsid, post('alice'))
        expect([scope, nsid, status]).toEqual([scope, nsid, opens.includes(nsid) ? 200 : 403])
      }
    }
  })
})

test('on /oauth a token counts as far as its scope goes', async () => {
  const { did } = stratos.person('alice')
  const withScope = async (scope: string) => {
    const app = new DpopApp(stratos, key, await pds.token(did, key, { claims: { scope } }))
    await app.call(create, post('alice'))
    return app
  }
  const reading = `atproto rpc:zone.stratos.enrollment.status?aud=${stratos.did}%23atproto_pns`
  const asking = await withScope(reading)
  expect(await asking.visit('/oauth/status')).toMatchObject({ status: 200, body: { did } })
  const leaving = await asking.visit('/oauth/revoke', 'POST')
  expect(leaving).toMatchObject({ status: 403, body: { error: 'ScopeMissing' } })
  const writing = await withScope(`atproto repo:${postCollection}`)
  expect(await writing.visit('/oauth/status')).toMatchObject({ status: 403 })
  const signingOut = await (await withScope('transition:generic')).visit('/oauth/signout', 'POST')
  expect(signingOut.status).not.toBe(200)
  const whole = await withScope('atproto transition:generic')
  const left = await whole.visit('/oauth/revoke', 'POST')
  expect(left).toMatchObject({ status: 200, body: { success: true } })
  expect(left.headers.get('set-cookie')).toBeNull()
  expect(left.headers.get('dpop-nonce')).toBeString()
  const after = await whole.visit('/oauth/status')
  expect(after).toMatchObject({ status: 200, body: { did, enrolled: false } })
})

/** Moves somebody’s account to a PDS. */
async function live(name: string, { url }: Issuer): Promise<void> {
  const person = stratos.person(name)
  const { handle } = person
  stratos.directory.accounts.set(person.did, { didKey: person.key.did(), handle, pds: url })
}

function post(name: string): Call {
  const record = privatePost('by a token', [stratos.boundary('a')])
  return { input: { repo: stratos.person(name).did, collection: postCollection, record } }
}

function bent(change: Bent): (did: string) => Promise<string> {
  return (did) => pds.token(did, key, change)
}

function none(): Bent {
  return { header: { alg: 'none' }, sign: () => new Uint8Array() }
}

function hmac(): Bent {
  const { kty, crv, x, y } = pds.published('first')
  const jwk = { kty: String(kty), crv: String(crv), x: String(x), y: String(y) }
  const pem = createPublicKey({ key: jwk, format: 'jwk' }).export({ format: 'pem', type: 'spki' })
  const sign = (bytes: Uint8Array) => createHmac('sha256', pem).update(bytes).digest()
  return { header: { alg: 'HS256' }, sign }
}
