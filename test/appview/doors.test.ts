import { P256Keypair, Secp256k1Keypair } from '@atproto/crypto'
import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from 'bun:test'
import { createHmac } from 'node:crypto'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { serviceToken, type TokenOptions } from '../kit/token.ts'
import { type Call, listOf, xrpc, xrpcResponse } from '../kit/xrpc.ts'
import { RunningAppView } from './running.ts'
import { serviceDid, SmallIndex } from './small-index.ts'

setDefaultTimeout(60_000)

let server: PostgresServer
let index: SmallIndex
let appView: RunningAppView
let uri: string

beforeAll(async () => {
  server = await PostgresServer.start()
  index = await SmallIndex.open(server)
  appView = await RunningAppView.start({ indexUrl: index.url })
  await appView.ready()
  for (const name of ['ann', 'ben']) await index.enroll(appView.person(name).did, ['a'])
  const author = appView.person('ann').did
  uri = await index.post({ author, rkey: '1', boundaries: ['a'], at: 1 })
})
afterAll(async () => {
  await appView[Symbol.asyncDispose]()
  await index[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await index.heard(serviceDid, Date.now())
})

const invalid: Refusal = [401, 'InvalidToken']
const missing: Refusal = [401, 'AuthMissing']
const calls = (): readonly [string, Call['params']][] => [
  ['getTimeline', {}],
  ['getAuthorFeed', { actor: appView.person('ann').did }],
  ['getPost', { uri }],
  ['getPostThread', { uri }],
]

/** Refusals by every method, with the headers that `make` gives for it. */
async function expectRefused(
  refusal: Refusal,
  make: (method: string) => Promise<Readonly<Record<string, string>>>,
): Promise<void> {
  for (const [method, params = {}] of calls()) {
    const answer = await appView.call(method, { params, headers: await make(method) })
    expectRefusal(answer, refusal)
    expect(answer.headers.get('access-control-allow-origin')).toBe('*')
  }
}

/** By tokens of Ben that differ in `options` from good ones. */
async function expectTokenRefused(
  refusal: Refusal,
  options: (method: string) => TokenOptions | Promise<TokenOptions>,
): Promise<void> {
  await expectRefused(refusal, async (method) => ({
    authorization: await appView.token('ben', method, await options(method)),
  }))
}

const nowSeconds = () => Math.floor(Date.now() / 1000)

test('a good token opens every method: these tests can fail', async () => {
  for (const [method, params = {}] of calls()) {
    expect((await appView.callAs('ben', method, params)).status).toBe(200)
  }
})

describe('no feed is shown', () => {
  test('without a token', async () => {
    await expectRefused(missing, async () => ({}))
    await expectRefused(missing, async () => ({ cookie: 'stratos=x; __Host-stratos=x' }))
  })

  test('by anything that is no token', async () => {
    const { did } = appView.person('ben')
    const headers = [`Bearer ${did}`, 'Bearer', 'Bearer ', 'Bearer x', 'Bearer a.b.c', did, 'x', '']
    headers.push(`Basic ${btoa('admin:secret')}`, 'DPoP a.b.c', 'Bearer a.b.c, Bearer a.b.c')
    for (const authorization of headers) {
      await expectRefused(invalid, async () => ({ authorization }))
    }
    await expectRefused(invalid, async () => ({ dpop: 'a.b.c' }))
  })

  test('by a token for another method', async () => {
    for (const lxm of [
      'zone.stratos.feed.getLikes',
      'zone.stratos.repo.getRecord',
      '*',
      undefined,
    ]) {
      await expectTokenRefused(invalid, () => ({ claims: { lxm } }))
    }
    const others = calls().map(([method]) => method)
    await expectTokenRefused(invalid, (method) => {
      const other = others[(others.indexOf(method) + 1) % others.length]
      return { claims: { lxm: `zone.stratos.feed.${other}` } }
    })
  })

  test('by a token for another audience', async () => {
    const { did } = appView
    const fragments = ['atproto_pns', 'stratos', 'atproto', 'stratos_appview2', '']
    const audiences = [
      serviceDid,
      `${serviceDid}#stratos_appview`,
      'did:web:localhost',
      did.replace('%3A', ':'),
      appView.url,
      [did],
      undefined,
      ...fragments.map((fragment) => `${did}#${fragment}`),
    ]
    for (const aud of audiences) await expectTokenRefused(invalid, () => ({ claims: { aud } }))
  })

  test('by a token out of its time', async () => {
    const now = nowSeconds()
    await expectTokenRefused([401, 'ExpiredToken'], () => ({
      claims: { iat: now - 60, exp: now - 1 },
    }))
    for (const claims of [{ exp: now + 3_700 }, { iat: now + 60 }, { exp: undefined }]) {
      await expectTokenRefused(invalid, () => ({ claims }))
    }
  })

  test('by a token that another key has signed', async () => {
    const ann = appView.person('ann')
    await expectTokenRefused(invalid, () => ({ sign: (bytes) => ann.key.sign(bytes) }))
    const p256 = await P256Keypair.create()
    await expectTokenRefused(invalid, () => ({
      header: { alg: 'ES256' },
      sign: (bytes) => p256.sign(bytes),
    }))
    const secret = appView.person('ben').key.did()
    await expectTokenRefused(invalid, () => ({
      header: { alg: 'HS256' },
      sign: (bytes) => createHmac('sha256', secret).update(bytes).digest(),
    }))
    await expectTokenRefused(invalid, () => ({ header: { alg: 'none' }, sign: () => Buffer.of() }))
  })

  test('by a token of a service, which speaks for nobody', async () => {
    const service = await Secp256k1Keypair.create()
    await expectTokenRefused(invalid, () => ({ sign: (bytes) => service.sign(bytes) }))
    await expectTokenRefused(invalid, () => ({
      claims: { iss: `${appView.person('ben').did}#atproto_pns` },
    }))
    const issuer = { did: appView.directory.add({ didKey: service.did() }), key: service }
    const person = { ...issuer, handle: '', bearer: '' }
    const lxm = 'zone.stratos.feed.getTimeline'
    const authorization = `Bearer ${await serviceToken(person, { aud: appView.did, lxm })}`
    expect((await appView.call('getTimeline', { authorization })).body).toEqual({ feed: [] })
  })

  test('by a token of another type', async () => {
    for (const typ of ['stratos+jwt', 'at+jwt', 'dpop+jwt', '']) {
      await expectTokenRefused(invalid, () => ({ header: { typ } }))
    }
  })

  test('by a token of somebody whom nobody knows', async () => {
    for (const iss of [`did:plc:${'a'.repeat(24)}`, 'ben.test', '', undefined]) {
      await expectTokenRefused(invalid, () => ({ claims: { iss } }))
    }
  })
})

describe('refused is', () => {
  test('a method of a service', async () => {
    for (const nsid of ['zone.stratos.repo.getRecord', 'com.atproto.sync.getBlob', '__proto__']) {
      const answer = await xrpc(appView.url, nsid)
      expectRefusal(
        answer,
        nsid.startsWith('_') ? [400, 'InvalidRequest'] : [501, 'MethodNotImplemented'],
      )
    }
  })

  test('a feed by POST', async () => {
    const answer = await appView.call('getTimeline', { input: {} })
    expectRefusal(answer, [405, 'MethodNotAllowed'])
    expect(answer.headers.get('allow')).toBe('GET, HEAD')
  })

  test('a parameter that fails its lexicon', async () => {
    expectRefusal(await appView.callAs('ben', 'getTimeline', { limit: 0 }), [400, 'InvalidRequest'])
    expectRefusal(await appView.callAs('ben', 'getPost'), [400, 'InvalidRequest'])
    const cursor = await appView.callAs('ben', 'getTimeline', { cursor: 'x' })
    expectRefusal(cursor, [400, 'InvalidRequest'])
  })

  test('every page of a service', async () => {
    for (const path of [
      '/',
      '/oauth/authorize',
      '/client-metadata.json',
      '/.well-known/jwks.json',
    ]) {
      expect((await fetch(`${appView.url}${path}`)).status).toBe(404)
    }
  })

  test('who was refused too often from an address, until the minute is over', async () => {
    const env = { STRATOS_AUTH_FAILURES_PER_MINUTE: '3' }
    await using strict = await RunningAppView.start({ indexUrl: index.url, env })
    for (const _ of [1, 2, 3]) expectRefusal(await strict.call('getTimeline'), missing)
    const answer = await strict.callAs('ben', 'getTimeline')
    expectRefusal(answer, [429, 'RateLimitExceeded'])
    expect(Number(answer.headers.get('retry-after'))).toBeWithin(1, 61)
  })
})

describe('a token opens a feed', () => {
  test('for the DID of the AppView, bare or with its fragment', async () => {
    for (const aud of [appView.did, `${appView.did}#stratos_appview`]) {
      const authorization = await appView.token('ben', 'getTimeline', { claims: { aud } })
      const { status, body } = await appView.call('getTimeline', { authorization })
      expect([status, listOf(body, 'feed').length]).toEqual([200, 1])
    }
  })

  test('by a key of P-256, and without a type', async () => {
    const key = await P256Keypair.create()
    const did = appView.directory.add({ didKey: key.did() })
    const claims = { iss: did }
    const sign = (bytes: Uint8Array) => key.sign(bytes)
    const header = { alg: 'ES256', typ: undefined }
    const authorization = await appView.token('ben', 'getTimeline', { header, claims, sign })
    expect((await appView.call('getTimeline', { authorization })).body).toEqual({ feed: [] })
  })

  test('also by HEAD, and after any site’s browser has asked whether it may', async () => {
    const authorization = await appView.token('ben', 'getTimeline')
    const nsid = 'zone.stratos.feed.getTimeline'
    const head = await xrpcResponse(appView.url, nsid, { authorization, verb: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
    const preflight = await fetch(`${appView.url}/xrpc/zone.stratos.feed.getTimeline`, {
      method: 'OPTIONS',
      headers: { origin: 'https://app.example.com', 'access-control-request-method': 'GET' },
    })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-origin')).toBe('*')
    expect(preflight.headers.get('access-control-allow-credentials')).toBeNull()
  })
})
