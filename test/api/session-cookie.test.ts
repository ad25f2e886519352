import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { BrowserSessions, browserSessionMs } from '../../src/store/browser-session.ts'
import { carType, importRepo } from '../kit/import.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { readSession } from '../kit/stratos-session.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { type Answer, isFields, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createSession = 'zone.stratos.server.createSession'
const revokeSessions = 'zone.stratos.admin.revokeSessions'
const name = 'stratos-session'
const missing: Refusal = [401, 'AuthMissing']
const invalid: Refusal = [401, 'InvalidToken']
const forbidden: Refusal = [403, 'Forbidden']
const publicHost = 'stratos.example.com'

type Headers = Readonly<Record<string, string | undefined>>

let stratos: SeededStratos
let host: string
let origin: string
/** Tokens in cookies. */
let alice: string
let bob: string
let stranger: string
let expired: string

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] } })
  host = `127.0.0.1:${stratos.port}`
  origin = `http://${host}`
  await whileStopped(stratos, async (sql) => {
    const browsers = new BrowserSessions(sql)
    const of = (who: string, at = Date.now()) => browsers.create(stratos.person(who).did, at)
    alice = await of('alice')
    bob = await of('bob')
    stranger = await of('stranger')
    // The last: each sign-in sweeps.
    expired = await of('alice', Date.now() - browserSessionMs)
  })
  const { did } = stratos.person('alice')
  const record = privatePost('for a', [stratos.boundary('a')])
  const input = { repo: did, collection: postCollection, rkey: 'in-a', record }
  await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('by a cookie no session begins', () => {
  test.each<[string, () => Headers]>([
    ['without an Origin', () => ({ origin: undefined })],
    ['from nowhere in particular', () => ({ origin: 'null' })],
    ['from another site', () => ({ origin: 'https://evil.example' })],
    ['from another port', () => ({ origin: `http://127.0.0.1:${stratos.port + 1}` })],
    ['from another scheme', () => ({ origin: `https://${host}` })],
    ['from the other name of loopback', () => ({ origin: stratos.url })],
    ['from an origin that begins like ours', () => ({ origin: `${origin}.evil.example` })],
    ['from ours and another', () => ({ origin: `${origin}, https://evil.example` })],
    ['as a request of another site', () => ({ 'sec-fetch-site': 'cross-site' })],
    ['as a request of a sister site', () => ({ 'sec-fetch-site': 'same-site' })],
    ['as a request of no site', () => ({ 'sec-fetch-site': 'none' })],
    ['at a foreign host', () => ({ host: 'evil.example' })],
    ['at a host that agrees with the Origin', () => foreign('evil.example')],
    ['at a foreign port', () => foreign(`127.0.0.1:${stratos.port + 1}`)],
    ['as a form', () => ({ 'content-type': 'application/x-www-form-urlencoded' })],
    ['as a form of several parts', () => ({ 'content-type': 'multipart/form-data; boundary=x' })],
    ['as text', () => ({ 'content-type': 'text/plain' })],
    ['as text that names JSON', () => ({ 'content-type': 'text/plain; application/json' })],
    ['without a type', () => ({ 'content-type': undefined })],
  ])('%s', async (_, headers) => {
    expectRefusal(await begin(alice, headers()), forbidden)
  })

  test.each<[string, () => string]>([
    ['that was not given out', () => `${name}=${'x'.repeat(43)}`],
    ['that has expired', () => `${name}=${expired}`],
    ['that is empty', () => `${name}=`],
    ['that goes on', () => `${name}=${alice}x`],
    ['of another name', () => `stratos-signin=${alice}`],
    ['of https', () => `__Host-${name}=${alice}`],
  ])('%s', async (_, cookie) => {
    expectRefusal(await begin(alice, { cookie: cookie() }), missing)
  })

  test.each<[string, () => string]>([
    ['beside a bad token', () => 'Bearer no.good.token'],
    ['beside a bad session', () => `Bearer ${sessionLike()}`],
    ['beside no token', () => 'Bearer'],
    ['beside another scheme', () => 'Digest a'],
  ])('%s', async (_, authorization) => {
    expectRefusal(await begin(alice, { authorization: authorization() }), invalid)
  })

  test('beside the operator', async () => {
    expectRefusal(await begin(alice, { authorization: stratos.adminBasic }), forbidden)
  })

  test('for somebody who is not enrolled', async () => {
    expectRefusal(await begin(stranger), [403, 'NotEnrolled'])
  })

  test('for a page of another site, which would be told nothing either', async () => {
    const answer = await begin(alice, { origin: 'https://evil.example' })
    expect(answer.headers.get('access-control-allow-credentials')).toBeNull()
    const url = `${origin}/xrpc/${createSession}`
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: { origin: 'https://evil.example', 'access-control-request-method': 'POST' },
    })
    expect(preflight.headers.get('access-control-allow-origin')).toBe('*')
    expect(preflight.headers.get('access-control-allow-credentials')).toBeNull()
  })
})

describe('by a cookie on our own page', () => {
  test('a session begins, and leaves the browser as it was', async () => {
    const answer = await begin(alice)
    expect(answer).toMatchObject({ status: 200, body: { did: stratos.person('alice').did } })
    expect(answer.headers.getSetCookie()).toEqual([])
    expect(answer.headers.get('cache-control')).toBe('no-store')
    const bearer = `Bearer ${textOf(answer.body, 'accessJwt')}`
    expect(await readSession(stratos, bearer)).toMatchObject({ status: 200 })
    expect(await begin(alice, { 'sec-fetch-site': undefined })).toMatchObject({ status: 200 })
  })

  test('whoever names somebody else by a token is that one', async () => {
    const authorization = stratos.person('bob').bearer
    const { body } = await begin(alice, { authorization })
    expect(body).toMatchObject({ did: stratos.person('bob').did })
  })

  test('nothing begins after the operator has signed them out', async () => {
    const { body } = await begin(bob)
    const { did } = stratos.person('bob')
    const call = { input: { did }, authorization: stratos.adminBasic }
    const revoked = await stratos.call(revokeSessions, call)
    expect(revoked.body).toMatchObject({ browsers: 1 })
    expect(revoked.body['sessions']).toBeGreaterThanOrEqual(1)
    expectRefusal(await readSession(stratos, `Bearer ${textOf(body, 'accessJwt')}`), invalid)
    expectRefusal(await begin(bob), missing)
    expect((await send('/oauth/status', { headers: own(bob), verb: 'GET' })).status).toBe(401)
    expect(await begin(alice)).toMatchObject({ status: 200 })
  })
})

describe('to every other method the cookie says nothing:', () => {
  const methods = schemaDocs.flatMap(({ id, defs: { main } }) =>
    main?.type === 'query' || main?.type === 'procedure' ? [[id, main.type] as const] : [],
  )
  test('there are methods', () => {
    expect(methods.length).toBeGreaterThan(25)
  })

  test.each(methods.filter(([nsid]) => nsid !== createSession))('%s', async (nsid, type) => {
    const { did } = stratos.person('alice')
    const record = privatePost('by cookie', [stratos.boundary('a')])
    const uri = `at://${did}/${postCollection}/in-a`
    const members = { repo: did, did, collection: postCollection, rkey: 'in-a', uri }
    const query = new URLSearchParams({ ...members, uris: uri }).toString()
    const more = {
      record,
      boundary: stratos.boundary('a'),
      boundaries: [],
      uris: [uri],
      writes: [],
    }
    const body = JSON.stringify({ ...members, ...more })
    const kind: Headers = nsid === importRepo ? { 'content-type': carType } : {}
    const ask = (headers: Headers) =>
      type === 'query'
        ? send(`/xrpc/${nsid}?${query}`, { headers, verb: 'GET' })
        : send(`/xrpc/${nsid}`, { headers: { ...headers, ...kind }, body })
    const before = await stratos.snapshot()
    const nobody = await ask({ ...own(alice), cookie: undefined })
    const answer = await ask(own(alice))
    expect({ status: answer.status, body: answer.body }).toEqual({
      status: nobody.status,
      body: nobody.body,
    })
    expect(await stratos.snapshot()).toBe(before)
    // Whatever asks for a caller at all finds none.
    if (type === 'procedure' && !nsid.endsWith('.hydrateRecords')) {
      expectRefusal(answer, missing)
    }
  })
})

test('behind https the cookie counts by the name that no other site can set', async () => {
  await stratos.terminate()
  await stratos.run({ STRATOS_PUBLIC_URL: `https://${publicHost}`, STRATOS_DEV_MODE: 'false' })
  const at = { host: publicHost, origin: `https://${publicHost}` }
  expectRefusal(await begin(alice, at), missing)
  const secure = { ...at, cookie: `__Host-${name}=${alice}` }
  expectRefusal(await begin(alice, { ...secure, host }), forbidden)
  expectRefusal(await begin(alice, { ...secure, origin }), forbidden)
  expectRefusal(await begin(alice, { ...secure, origin: `http://${publicHost}` }), forbidden)
  // The service has another DID now, in which alice is a member all the same.
  expect(await begin(alice, secure)).toMatchObject({ status: 200 })
})

/** What a page of ours sends, signed in by this cookie. */
function own(token: string): Headers {
  return {
    cookie: `${name}=${token}`,
    origin,
    'sec-fetch-site': 'same-origin',
    'content-type': 'application/json',
  }
}

function foreign(host: string): Headers {
  return { host, origin: `http://${host}` }
}

function begin(token: string, headers: Headers = {}): Promise<Answer> {
  return send(`/xrpc/${createSession}`, { headers: { ...own(token), ...headers } })
}

/** Says that it is a session, and is none. */
function sessionLike(): string {
  const header = { typ: 'stratos+jwt', alg: 'HS256', kid: 'a' }
  return [header, {}].map((one) => btoa(JSON.stringify(one)).replaceAll('=', '')).join('.') + '.AA'
}

async function send(
  path: string,
  { headers, verb = 'POST', body = '{}' }: { headers: Headers; verb?: string; body?: string },
): Promise<Answer> {
  const given = Object.entries(headers).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, value] as [string, string]],
  )
  const response = await fetch(`${origin}${path}`, {
    method: verb,
    headers: given,
    // A text would bring its own type along.
    ...(verb === 'GET' ? {} : { body: new TextEncoder().encode(body) }),
    redirect: 'manual',
  })
  const isJson = response.headers.get('content-type')?.startsWith('application/json') === true
  const answer: unknown = isJson ? await response.json() : {}
  const fields = isFields(answer) ? answer : {}
  return { status: response.status, headers: response.headers, body: fields }
}
