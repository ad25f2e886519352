import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { createHash } from 'node:crypto'
import { BrowserSessions, browserSessionMs } from '../../src/store/browser-session.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { type Answer, isFields } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const changes = ['/oauth/revoke', '/oauth/signout']
const name = 'stratos-session'
const missing: Refusal = [401, 'AuthMissing']
const forbidden: Refusal = [403, 'Forbidden']
const invalid: Refusal = [400, 'InvalidRequest']

/** Tokens of sessions, by who has them. */
const holders = ['alice', 'bob', 'carol', 'expired', 'stranger', 'departed', 'elsewhere'] as const
type Tokens = Readonly<Record<(typeof holders)[number], string>>
type Headers = Readonly<Record<string, string | undefined>>

let stratos: SeededStratos
let tokens: Tokens
let origin: string
let host: string

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a', 'c'], bob: ['b'], carol: ['a'] } })
  host = `127.0.0.1:${stratos.port}`
  origin = `http://${host}`
  tokens = await whileStopped(stratos, async (sql) => {
    const sessions = new BrowserSessions(sql)
    const now = Date.now()
    const of = (name: string, at = now) => sessions.create(stratos.person(name).did, at)
    return {
      alice: await of('alice'),
      bob: await of('bob'),
      carol: await of('carol'),
      elsewhere: await of('carol'),
      stranger: await of('stranger'),
      departed: await of('stranger'),
      // The last: each sign-in sweeps.
      expired: await of('alice', now - browserSessionMs),
    }
  })
})
afterAll(async () => {
  await stratos?.stop()
})

describe.each(changes)('POST %s is refused', (path) => {
  test.each<[string, () => string | undefined]>([
    ['without a cookie', () => undefined],
    ['with a cookie that was not given out', () => `${name}=${'x'.repeat(43)}`],
    ['with an expired cookie', () => `${name}=${tokens.expired}`],
    ['with an empty cookie', () => `${name}=`],
    ['with what stands in the database', () => `${name}=${sha256(tokens.alice)}`],
    ['with the cookie under another name', () => `stratos-signin=${tokens.alice}`],
    ['with the cookie of https', () => `__Host-${name}=${tokens.alice}`],
    ['with a cookie that goes on', () => `${name}=${tokens.alice}x`],
  ])('%s', async (_, cookie) => {
    expectOwn(await expectUnchanged(() => post(path, { cookie: cookie() }), missing))
  })

  test.each<[string, () => Headers]>([
    ['without an Origin', () => ({ origin: undefined })],
    ['from nowhere in particular', () => ({ origin: 'null' })],
    ['from another site', () => ({ origin: 'https://evil.example' })],
    ['from another port', () => ({ origin: `http://127.0.0.1:${stratos.port + 1}` })],
    ['from another scheme', () => ({ origin: `https://${host}` })],
    ['from the other name of loopback', () => ({ origin: stratos.url })],
    ['from an origin that begins like ours', () => ({ origin: `${origin}.evil.example` })],
    ['as a request of another site', () => ({ 'sec-fetch-site': 'cross-site' })],
    ['as a request of a sister site', () => ({ 'sec-fetch-site': 'same-site' })],
    ['as a request of no site', () => ({ 'sec-fetch-site': 'none' })],
    ['at a foreign host', () => ({ host: 'evil.example' })],
    ['at a foreign host that agrees with the Origin', () => foreign('evil.example')],
    ['at a foreign port', () => foreign(`127.0.0.1:${stratos.port + 1}`)],
  ])('%s', async (_, headers) => {
    expectOwn(await expectUnchanged(() => post(path, headers()), forbidden))
  })

  test.each<[string, string | undefined, string]>([
    ['as a form', 'application/x-www-form-urlencoded', 'a=b'],
    ['as a form of several parts', 'multipart/form-data; boundary=x', '--x--'],
    ['as text', 'text/plain', '{}'],
    ['without a type', undefined, '{}'],
    ['without JSON', 'application/json', ''],
    ['with more than {}', 'application/json', '{"keep":true}'],
    ['with a list', 'application/json', '[]'],
    ['with null', 'application/json', 'null'],
  ])('%s', async (_, type, body) => {
    expectOwn(await expectUnchanged(() => post(path, { 'content-type': type }, body), invalid))
  })

  test('with a large body', async () => {
    const body = `{"a":"${'x'.repeat(1024)}"}`
    expectOwn(await expectUnchanged(() => post(path, {}, body), [413, 'PayloadTooLarge']))
  })

  test('as anything but a POST', async () => {
    for (const method of ['GET', 'PUT', 'DELETE', 'OPTIONS']) {
      expectOwn(await expectUnchanged(() => ask(path, own('alice'), { method }), [404, 'NotFound']))
    }
  })
})

describe('GET /oauth/status is refused', () => {
  test.each<[string, () => Headers, Refusal]>([
    ['without a cookie', () => ({ cookie: undefined }), missing],
    ['with a wrong cookie', () => ({ cookie: `${name}=${'x'.repeat(43)}` }), missing],
    ['with an expired cookie', () => ({ cookie: `${name}=${tokens.expired}` }), missing],
    ['from another site', () => ({ origin: 'https://evil.example' }), forbidden],
    ['from nowhere in particular', () => ({ origin: 'null' }), forbidden],
    ['as a request of another site', () => ({ 'sec-fetch-site': 'cross-site' }), forbidden],
    ['as a request of a sister site', () => ({ 'sec-fetch-site': 'same-site' }), forbidden],
    ['in a window that another site opened', () => openedBy('cross-site'), forbidden],
    ['at a foreign host', () => ({ host: 'evil.example' }), forbidden],
    ['to the operator', () => ({ authorization: stratos.adminBasic }), forbidden],
  ])('%s', async (_, headers, refusal) => {
    const given = headers()
    const cookie = 'authorization' in given ? undefined : own('alice').cookie
    const answer = await ask('/oauth/status', { cookie, ...given })
    expectOwn(answer)
    expectRefusal(answer, refusal)
  })
})

describe('a visit to / shows strangers’ page', () => {
  test.each<[string, () => Headers]>([
    ['without a cookie', () => ({ cookie: undefined })],
    ['with a wrong cookie', () => ({ cookie: `${name}=${'x'.repeat(43)}` })],
    ['with an expired cookie', () => ({ cookie: `${name}=${tokens.expired}` })],
    ['at a foreign host', () => ({ host: 'evil.example' })],
    ['to another site’s script', () => ({ origin: 'https://evil.example' })],
    ['as part of another site’s page', () => ({ 'sec-fetch-site': 'cross-site' })],
    ['in a frame', () => ({ ...openedBy('cross-site'), 'sec-fetch-dest': 'iframe' })],
    ['as a script', () => ({ 'sec-fetch-site': 'same-site', 'sec-fetch-dest': 'script' })],
  ])('%s', async (_, headers) => {
    const page = await visit('/', { ...own('alice'), origin: undefined, ...headers() })
    expect(page.status).toBe(200)
    const text = await page.text()
    expect(text).toContain('Your handle or DID')
    expect(text).not.toContain('Your membership')
    expect(text).not.toContain(stratos.person('alice').did)
  })
})

describe('below /xrpc the cookie', () => {
  test('writes nothing', async () => {
    const { did } = stratos.person('alice')
    const record = privatePost('text', [stratos.boundary('a')])
    const input = JSON.stringify({ repo: did, collection: postCollection, record })
    const create = '/xrpc/zone.stratos.repo.createRecord'
    await expectUnchanged(() => post(create, {}, input), missing)
  })

  test('shows no boundaries', async () => {
    const path = `/xrpc/zone.stratos.enrollment.status?did=${stratos.person('alice').did}`
    const answer = await ask(path, own('alice'))
    expect(answer.status).toBe(200)
    expect(answer.body).toMatchObject({ enrolled: true })
    expect(answer.body).not.toHaveProperty('boundaries')
  })
})

describe('whoever is signed in', () => {
  test('reads where they stand', async () => {
    for (const headers of [{}, { origin }, { 'sec-fetch-site': 'same-origin' }, openedBy('none')]) {
      const answer = await ask('/oauth/status', { cookie: own('alice').cookie, ...headers })
      expectOwn(answer)
      expect(answer.status).toBe(200)
      expect(answer.body).toEqual({
        did: stratos.person('alice').did,
        handle: 'alice.test',
        enrolled: true,
        active: true,
        enrolledAt: expect.any(String),
        signingKey: expect.stringMatching(/^did:key:z/),
        enrollmentRkey: stratos.did.replace('%3A', ':'),
        boundaries: [{ value: stratos.boundary('a') }, { value: stratos.boundary('c') }],
        // A seeded person has none.
        session: 'lost',
        missingScopes: [],
      })
    }
  })

  test('reads that they are not enrolled', async () => {
    const { did, handle } = stratos.person('stranger')
    const { body } = await ask('/oauth/status', own('stranger'))
    const nothing = { enrolled: false, session: 'lost', missingScopes: [] }
    expect(body).toEqual({ did, handle, ...nothing })
  })

  test('sees their own page, wherever the link to it stood', async () => {
    const { cookie } = own('alice')
    for (const headers of [{}, openedBy('none'), openedBy('cross-site'), openedBy('same-origin')]) {
      const page = await visit('/', { cookie, ...headers })
      const text = await page.text()
      expect(text).toContain('Your membership')
      expect(text).toContain('@alice.test')
      expect(text).toContain(stratos.person('alice').did)
      expect(page.headers.get('cache-control')).toBe('no-store')
      expect(page.headers.get('set-cookie')).toBeNull()
    }
  })

  test('and not enrolled, sees that and the way in', async () => {
    const { did } = stratos.person('stranger')
    const text = await (await visit('/', { cookie: own('stranger').cookie })).text()
    expect(text).toContain('You are not a member')
    expect(text).toContain(`name="handle" value="${did}"`)
  })

  test('is sent to the name of loopback at which they are', async () => {
    const page = await fetch(`${stratos.url}/?a=b`, {
      headers: { accept: 'text/html' },
      redirect: 'manual',
    })
    expect(page.status).toBe(302)
    expect(page.headers.get('location')).toBe(`${origin}/?a=b`)
  })

  test('and not enrolled, may leave all the same', async () => {
    const answer = await post('/oauth/revoke', own('departed'))
    expectOwn(answer)
    expect(answer).toMatchObject({ status: 200, body: { success: true } })
    expect(answer.headers.getSetCookie()).toEqual([removed])
    expectRefusal(await ask('/oauth/status', own('departed')), missing)
    expect((await ask('/oauth/status', own('stranger'))).status).toBe(200)
  })

  test('and enrolled, leaves, and with that every browser', async () => {
    const { did } = stratos.person('carol')
    const answer = await post('/oauth/revoke', own('carol'))
    expectOwn(answer)
    expect(answer).toMatchObject({ status: 200, body: { success: true } })
    expect(answer.headers.getSetCookie()).toEqual([removed])
    for (const browser of ['carol', 'elsewhere'] as const) {
      expectRefusal(await ask('/oauth/status', own(browser)), missing)
    }
    const status = 'zone.stratos.enrollment.status'
    const { body } = await stratos.call(status, { params: { did } })
    expect(body).toEqual({ did, enrolled: false })
  })

  test('signs out of this browser only, and stays enrolled', async () => {
    const answer = await post('/oauth/signout', own('bob'))
    expectOwn(answer)
    expect(answer).toMatchObject({ status: 200, body: { success: true } })
    expect(answer.headers.getSetCookie()).toEqual([removed])
    expectRefusal(await ask('/oauth/status', own('bob')), missing)
    expectRefusal(await post('/oauth/signout', own('bob')), missing)
    expect((await ask('/oauth/status', own('alice'))).status).toBe(200)
    expect(await stratos.boundariesOf('bob')).toEqual([stratos.boundary('b')])
  })
})

describe('where handles cannot be looked up', () => {
  test.each<[string, () => Response | Promise<Response>]>([
    ['because the resolver fails', () => new Response(null, { status: 500 })],
    ['because the resolver never answers', () => new Promise(() => undefined)],
    ['because the handle leads elsewhere', () => Response.json({ did: stratos.person('bob').did })],
  ])('%s, the DID stands alone', async (_, answer) => {
    using resolver = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: answer })
    await stratos.terminate()
    await stratos.run({ STRATOS_HANDLE_RESOLVER_URL: `http://127.0.0.1:${resolver.port}` })
    const { cookie } = own('alice')
    const pending = [visit('/', { cookie }), visit('/oauth/status', { cookie })] as const
    const [page, status] = await Promise.all(pending)
    const text = await page.text()
    expect(text).toContain(`Signed in as <b>${stratos.person('alice').did}</b>`)
    expect(text).not.toContain('alice.test')
    expect(await status.json()).not.toHaveProperty('handle')
    await resolver.stop(true)
  })
})

const removed = `${name}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax`

/** What a page of ours sends, signed in as somebody. */
function own(who: keyof Tokens) {
  return { cookie: `${name}=${tokens[who]}`, origin, 'sec-fetch-site': 'same-origin' }
}

function openedBy(site: string) {
  return { 'sec-fetch-site': site, 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }
}

function foreign(host: string) {
  return { host, origin: `http://${host}` }
}

function visit(path: string, headers: Headers, init: RequestInit = {}): Promise<Response> {
  const given = Object.entries(headers).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, value] as [string, string]],
  )
  return fetch(`${origin}${path}`, { ...init, headers: given, redirect: 'manual' })
}

async function ask(path: string, headers: Headers, init: RequestInit = {}): Promise<Answer> {
  const response = await visit(path, headers, init)
  const body: unknown = await response.json()
  if (!isFields(body)) throw new Error(`expected an object: ${JSON.stringify(body)}`)
  return { status: response.status, body, headers: response.headers }
}

/** As a page of ours would, but for what is given. */
function post(path: string, headers: Headers, body = '{}'): Promise<Answer> {
  const all = { ...own('alice'), 'content-type': 'application/json', ...headers }
  // A text would bring its own type along.
  return ask(path, all, { method: 'POST', body: new TextEncoder().encode(body) })
}

/** Refused, without a change to anybody's repo, membership or session. */
async function expectUnchanged(act: () => Promise<Answer>, refusal: Refusal): Promise<Answer> {
  const before = await stratos.snapshot()
  const answer = await act()
  expectRefusal(answer, refusal)
  expect(answer.headers.getSetCookie()).toEqual([])
  expect(await stratos.snapshot()).toBe(before)
  expect((await ask('/oauth/status', own('alice'))).body).toMatchObject({ enrolled: true })
  return answer
}

/** For nobody else's eyes. */
function expectOwn({ headers }: Answer): void {
  expect(headers.get('cache-control')).toBe('no-store')
  expect(headers.get('vary')).toBe('Authorization, DPoP, Cookie')
  expect(headers.get('referrer-policy')).toBe('no-referrer')
  expect(headers.get('access-control-allow-origin')).toBeNull()
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
