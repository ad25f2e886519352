import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { AppKey, type BentBinding, DpopApp, dpopProof, pdsToken, seconds } from '../kit/dpop.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { type Answer, type Call, listOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const bindKey = 'zone.stratos.server.bindKey'
const listKeys = 'zone.stratos.server.listKeys'
const unbindKey = 'zone.stratos.server.unbindKey'
const create = 'zone.stratos.repo.createRecord'
const invalid: Refusal = [401, 'InvalidToken']
const badRequest: Refusal = [400, 'InvalidRequest']

let stratos: SeededStratos

beforeAll(async () => {
  const people = { alice: ['a'], bob: ['a'], carol: ['a'], dave: ['a'], erin: ['a'], frank: ['a'] }
  stratos = await SeededStratos.start({ people })
})
afterAll(() => stratos?.stop())

describe('a key is not bound', () => {
  const cases: Record<string, [(app: DpopApp) => Promise<Answer>, Refusal]> = {
    'for nobody': [
      (app) => stratos.call(bindKey, { input: { jkt: app.key.thumbprint } }),
      [401, 'AuthMissing'],
    ],
    'for a bare DID, in development': [
      (app) => stratos.callAs('alice', bindKey, { input: { jkt: app.key.thumbprint } }),
      [403, 'Forbidden'],
    ],
    'by itself': [
      async () => {
        const bound = await DpopApp.of(stratos, 'alice')
        return await bound.call(bindKey, { input: { jkt: bound.key.thumbprint } })
      },
      [403, 'Forbidden'],
    ],
    'for whoever is not enrolled': [
      (app) => app.bind(stratos.person('stranger')),
      [403, 'NotEnrolled'],
    ],
    'by a token for another method': [withClaims({ lxm: listKeys }), invalid],
    'by a token without a jti': [withClaims({ jti: undefined }), invalid],
    'by a token of ten minutes ago': [
      withClaims({ iat: seconds() - 600, exp: seconds() + 60 }),
      [401, 'ExpiredToken'],
    ],
    'by a token that was used': [
      async (app) => {
        const first = await DpopApp.of(stratos, 'alice', 'unbound')
        const token = await first.bindToken(stratos.person('alice'))
        expect(await bindTwice(first, token)).toMatchObject({ status: 200 })
        return await bindTwice(app, token)
      },
      invalid,
    ],
    'without a proof': [bent({ header: null }), invalid],
    'with two proofs': [bent({ header: 'a.b.c,a.b.c' }), invalid],
    'with a proof that is none': [bent({ header: 'a.b.c' }), invalid],
    'with a proof by another key': [
      async (app) => {
        const other = await AppKey.create()
        return await app.bind(stratos.person('alice'), {
          proof: { sign: (bytes) => other.sign(bytes) },
        })
      },
      invalid,
    ],
    'under the name of another key': [bent({ jkt: 'A'.repeat(43) }), badRequest],
    'under a name that is none': [bent({ jkt: 'B'.repeat(43) }), badRequest],
    'under a short name': [bent({ jkt: 'abc' }), badRequest],
    'with a proof for another token': [
      bent({ proof: { claims: { ath: 'A'.repeat(43) } } }),
      invalid,
    ],
    'with a proof for no token': [bent({ proof: { claims: { ath: undefined } } }), invalid],
    'with a proof for another method': [bent({ htm: 'GET' }), invalid],
    'with a proof for another address': [bent({ htu: 'https://other.test/xrpc/a' }), invalid],
  }
  for (const [name, [ask, refusal]] of Object.entries(cases)) {
    test(name, async () => {
      const app = await DpopApp.of(stratos, 'alice', 'unbound')
      const answer = await ask(app)
      expectRefusal(answer, refusal)
      expect(await app.call(create, post('alice'))).toMatchObject({ status: 401 })
    })
  }

  test('by a proof that was made for a call, nor does one for binding make a call', async () => {
    const app = await DpopApp.of(stratos, 'alice')
    const call = await app.proof(create, post('alice'))
    const token = await app.bindToken(stratos.person('alice'))
    expectRefusal(await app.bindOnce(token, { header: call }), invalid)
    const about = { htm: 'POST', htu: `${stratos.url}/xrpc/${bindKey}`, token, nonce: app.nonce }
    const header = await dpopProof(app.key, about)
    expectRefusal(await app.once(create, post('alice'), { header }), invalid)
  })
})

test('a token is not used up by a proof without a nonce', async () => {
  const app = await DpopApp.of(stratos, 'alice', 'unbound')
  const token = await app.bindToken(stratos.person('alice'))
  const first = await app.bindOnce(token)
  expectRefusal(first, [401, 'use_dpop_nonce'])
  expect(first.headers.get('www-authenticate')).toStartWith('DPoP ')
  expect(first.headers.get('dpop-nonce')).toBeString()
  const second = await app.bindOnce(token)
  expect(second).toMatchObject({ status: 200, body: { jkt: app.key.thumbprint } })
  const hours = (Date.parse(textOf(second.body, 'expiresAt')) - Date.now()) / 3_600_000
  expect(hours).toBeCloseTo(12, 1)
})

test('a bound key acts for its person alone, and not for more than there may be', async () => {
  const app = await DpopApp.of(stratos, 'alice')
  expect(await app.call(create, post('alice'))).toMatchObject({ status: 200 })
  expectRefusal(await app.call(create, post('bob')), [403, 'Forbidden'])
  expectRefusal(await app.call('zone.stratos.enrollment.unenroll', { verb: 'POST' }), [
    403,
    'Forbidden',
  ])
  const admin = { input: { did: stratos.person('alice').did } }
  expectRefusal(await app.call('zone.stratos.admin.unenroll', admin), [403, 'Forbidden'])
  expect(await app.visit('/oauth/status')).toMatchObject({ status: 200 })
  const left = await app.visit('/oauth/revoke', 'POST')
  expect(left).toMatchObject({ status: 403, body: { error: 'Forbidden' } })
})

test('it acts for everybody who bound it, each by a token of their own', async () => {
  const app = await DpopApp.of(stratos, 'alice')
  app.token = await pdsToken(stratos.person('bob').did, app.key)
  expectRefusal(await app.call(create, post('bob')), invalid)
  expect(await app.bind(stratos.person('bob'))).toMatchObject({ status: 200 })
  expect(await app.call(create, post('bob'))).toMatchObject({ status: 200 })
  expectRefusal(await app.call(create, post('alice')), [403, 'Forbidden'])
})

test('keys are listed to their person, and end when they are unbound', async () => {
  const app = await DpopApp.of(stratos, 'carol')
  const { thumbprint } = app.key
  const own = await stratos.callAs('carol', listKeys)
  expect(listOf(own.body, 'keys').map(({ jkt }) => jkt)).toEqual([thumbprint])
  expect((await stratos.callAs('bob', listKeys)).body['keys']).not.toContainEqual(
    expect.objectContaining({ jkt: thumbprint }),
  )
  expectRefusal(await stratos.call(listKeys), [401, 'AuthMissing'])
  expectRefusal(await stratos.callAs('carol', unbindKey, { input: { jkt: 'x' } }), badRequest)
  // Nobody ends another person's.
  const input = { jkt: thumbprint }
  expect(await stratos.callAs('bob', unbindKey, { input })).toMatchObject({ status: 200 })
  expect(await app.call(create, post('carol'))).toMatchObject({ status: 200 })
  for (let count = 0; count < 2; count++) {
    const answer = await stratos.callAs('carol', unbindKey, { input })
    expect(answer).toMatchObject({ status: 200, body: { success: true } })
  }
  expectRefusal(await app.call(create, post('carol')), invalid)
  expect((await stratos.callAs('carol', listKeys)).body).toEqual({ keys: [] })
})

test('an app ends its own key, and with that what it may do', async () => {
  const app = await DpopApp.of(stratos, 'carol')
  const input = { jkt: app.key.thumbprint }
  expect(await app.call(unbindKey, { input })).toMatchObject({ status: 200 })
  expectRefusal(await app.call(unbindKey, { input }), invalid)
})

test('with one key too many, the one that was bound first goes', async () => {
  const apps: DpopApp[] = []
  for (let count = 0; count < 11; count++) apps.push(await DpopApp.of(stratos, 'dave'))
  const statuses = []
  for (const app of apps) statuses.push((await app.call(create, post('dave'))).status)
  expect(statuses).toEqual([401, ...Array<number>(10).fill(200)])
})

test('bindings outlast a restart, and end with the membership', async () => {
  const app = await DpopApp.of(stratos, 'erin')
  await stratos.terminate()
  await stratos.run()
  expect(await app.call(create, post('erin'))).toMatchObject({ status: 200 })
  const { did } = stratos.person('erin')
  const authorization = stratos.adminBasic
  const call = { input: { did }, authorization }
  expect(await stratos.call('zone.stratos.admin.unenroll', call)).toMatchObject({ status: 200 })
  expectRefusal(await app.call('zone.stratos.repo.listRecords', ofAll('erin')), invalid)
})

test('bindings end when their person becomes inactive, also for later', async () => {
  const app = await DpopApp.of(stratos, 'frank')
  const enforcing = {
    STRATOS_ENROLLMENT_MODE: 'allowlist',
    STRATOS_ALLOWED_DIDS: stratos.person('alice').did,
    STRATOS_ALLOWLIST_ENFORCE: 'continuous',
  }
  await stratos.terminate()
  await stratos.run(enforcing)
  expectRefusal(await app.call('zone.stratos.repo.listRecords', ofAll('frank')), invalid)
  expectRefusal(await app.bind(stratos.person('frank')), [403, 'NotEnrolled'])
  await stratos.terminate()
  await stratos.run({ ...enforcing, STRATOS_ENROLLMENT_MODE: 'open' })
  expectRefusal(await app.call('zone.stratos.repo.listRecords', ofAll('frank')), invalid)
  expect(await app.bind(stratos.person('frank'))).toMatchObject({ status: 200 })
})

function post(name: string): Call {
  const record = privatePost('by a bound key', [stratos.boundary('a')])
  return { input: { repo: stratos.person(name).did, collection: postCollection, record } }
}

function ofAll(name: string): Call {
  return { params: { repo: stratos.person(name).did, collection: postCollection } }
}

function bent(change: BentBinding) {
  return (app: DpopApp) => app.bind(stratos.person('alice'), change)
}

function withClaims(claims: Readonly<Record<string, unknown>>) {
  return async (app: DpopApp) => {
    const asked = { aud: stratos.did, lxm: bindKey }
    const made = { claims: { jti: crypto.randomUUID(), ...claims } }
    return await bindTwice(app, await serviceToken(stratos.person('alice'), asked, made))
  }
}

/** A second time when a nonce is asked for. */
async function bindTwice(app: DpopApp, token: string): Promise<Answer> {
  const first = await app.bindOnce(token)
  return first.body['error'] === 'use_dpop_nonce' ? await app.bindOnce(token) : first
}
