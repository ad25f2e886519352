import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { scopeFor } from '../../src/remote/oauth-client.ts'
import { defaultCollections, publicCollections } from '../../src/service/collections.ts'
import { Browser, redirectOf } from '../kit/browser.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { isFields } from '../kit/xrpc.ts'
import { AuthorizationServer } from '../remote/authorization-server.ts'

setDefaultTimeout(60_000)

const app = 'https://app.example.com'
const wholeScope = scopeFor(publicCollections(defaultCollections))

let stratos: SeededStratos
let pds: AuthorizationServer
/** Who was refused and never came back. */
const left: Did[] = []
/** Sign-ins that their own browser may still bring to an end. */
let pending = 0

beforeAll(async () => {
  const env = { STRATOS_ENROLLMENT_MODE: 'open', STRATOS_ALLOWED_REDIRECT_ORIGINS: app }
  stratos = await SeededStratos.start({ people: {}, env })
  pds = opened()
})
afterAll(async () => {
  await stratos?.stop()
  await pds?.[Symbol.asyncDispose]()
})

/** What a refusal says, once it has been refused. */
interface Refusal {
  readonly status: number
  readonly error: string
}

type Refusing = (did: Did) => Promise<Response>

describe('a sign-in is refused, leaves nobody enrolled, and may be tried again,', () => {
  const refusals: [string, Refusal, Refusing][] = [
    [
      'when it would return to a foreign origin',
      { status: 400, error: 'InvalidRequest' },
      (did) => begin(did, new Browser(), 'https://foreign.example.com/'),
    ],
    [
      'when it comes back without the cookie of the browser',
      { status: 400, error: 'InvalidRequest' },
      async (did) => {
        pending += 1
        return await comeBack(new Browser(), await approved(did, new Browser()))
      },
    ],
    [
      'when it comes back with the cookie of another browser',
      { status: 400, error: 'InvalidRequest' },
      async (did) => {
        pending += 2
        const stranger = new Browser()
        await approved(did, stranger)
        return await comeBack(stranger, await approved(did, new Browser()))
      },
    ],
    [
      'when another issuer brings it back',
      { status: 400, error: 'InvalidRequest' },
      async (did) => {
        const browser = new Browser()
        const params = await approved(did, browser)
        params.set('iss', 'https://issuer.example.com')
        return await comeBack(browser, params)
      },
    ],
    [
      'when nobody says which issuer brings it back',
      { status: 400, error: 'InvalidRequest' },
      async (did) => {
        const browser = new Browser()
        const params = await approved(did, browser)
        params.delete('iss')
        return await comeBack(browser, params)
      },
    ],
    [
      'when its state was used before',
      { status: 400, error: 'InvalidRequest' },
      async (did) => {
        const browser = new Browser()
        const params = await approved(did, browser)
        const cookie = browser.cookieHeader('127.0.0.1')
        const denied = new URLSearchParams({
          ...Object.fromEntries(params),
          error: 'access_denied',
        })
        expect((await comeBack(browser, denied)).status).toBe(400)
        return await comeBack(new Browser(), params, { cookie })
      },
    ],
    [
      'when the person says no at the PDS',
      { status: 400, error: 'AccessDenied' },
      async (did) => {
        const browser = new Browser()
        const params = await approved(did, browser)
        params.delete('code')
        params.set('error', 'access_denied')
        return await comeBack(browser, params)
      },
    ],
    [
      'when the PDS grants less than an enrollment needs',
      { status: 403, error: 'ScopeMissing' },
      (did) => whileScopeIs('atproto repo:zone.stratos.feed.post', did),
    ],
    [
      'when it is refused and the PDS cannot be told so',
      { status: 403, error: 'ScopeMissing' },
      async (did) => {
        pds.down.add('/revoke')
        const answer = await whileScopeIs('atproto', did)
        pds.down.clear()
        return answer
      },
    ],
    [
      'when the PDS is down as it begins',
      { status: 502, error: 'UpstreamFailure' },
      async (did) => {
        await pds[Symbol.asyncDispose]()
        const answer = await begin(did, new Browser())
        pds = opened(pds)
        return answer
      },
    ],
    [
      'when the PDS takes no request as it begins',
      { status: 502, error: 'UpstreamFailure' },
      async (did) => {
        pds.down.add('/par')
        const answer = await begin(did, new Browser())
        pds.down.clear()
        return answer
      },
    ],
    [
      'when the PDS is down as it comes back',
      { status: 502, error: 'UpstreamFailure' },
      async (did) => {
        const browser = new Browser()
        const params = await approved(did, browser)
        await pds[Symbol.asyncDispose]()
        const answer = await comeBack(browser, params)
        pds = opened(pds)
        return answer
      },
    ],
    [
      'when the PDS gives no tokens as it comes back',
      { status: 502, error: 'UpstreamFailure' },
      async (did) => {
        pds.down.add('/token')
        const answer = await whileScopeIs(wholeScope, did)
        pds.down.clear()
        return answer
      },
    ],
  ]

  test.each(refusals)('%s', async (_, expected, refuse) => {
    for (const returns of [false, true]) {
      const did = stratos.directory.add({ pds: pds.url })
      await expectRefusal(await refuse(did), expected)
      expect(await isEnrolled(did)).toBeFalse()
      if (returns) await expectEnrollment(did)
      else left.push(did)
    }
  })

  test('when the person is not on the list, and once on it is enrolled', async () => {
    const [did, other] = [stratos.directory.add({ pds: pds.url }), stratos.directory.add({})]
    await stratos.terminate()
    await stratos.run({ STRATOS_ENROLLMENT_MODE: 'allowlist', STRATOS_ALLOWED_DIDS: other })
    const stranger = stratos.directory.add({ pds: pds.url })
    for (const down of [[], ['/revoke']]) {
      for (const path of down) pds.down.add(path)
      for (const one of [did, stranger]) {
        const answer = await whileScopeIs(wholeScope, one)
        await expectRefusal(answer, { status: 403, error: 'EnrollmentDenied' })
        expect(await isEnrolled(one)).toBeFalse()
      }
      pds.down.clear()
    }
    left.push(stranger)
    await stratos.terminate()
    await stratos.run()
    await expectEnrollment(did)
  })
})

test('a refusal at the PDS is told to the app that sent the person', async () => {
  const did = stratos.directory.add({ pds: pds.url })
  const browser = new Browser()
  const params = await approved(did, browser, `${app}/done?step=2`)
  params.delete('code')
  params.set('error', 'access_denied')
  const target = redirectOf(await comeBack(browser, params), app)
  expect(target?.href).toBe(`${app}/done?step=2&stratos_error=AccessDenied`)
  expect(browser.cookieHeader('127.0.0.1')).toBe('')
  left.push(did)
})

test('a return that does not count goes back to no app', async () => {
  const did = stratos.directory.add({ pds: pds.url })
  for (const iss of ['https://issuer.example.com', undefined]) {
    const browser = new Browser()
    const params = await approved(did, browser, `${app}/done`)
    if (iss === undefined) params.delete('iss')
    else params.set('iss', iss)
    const answer = await comeBack(browser, params)
    await expectRefusal(answer, { status: 400, error: 'InvalidRequest' })
    expect(answer.headers.get('location')).toBeNull()
  }
  left.push(did)
})

test('tokens of a refused person are given back', async () => {
  const did = stratos.directory.add({ pds: pds.url })
  const before = pds.revoked.length
  await whileScopeIs('atproto', did)
  expect(pds.revoked.slice(before)).toEqual([expect.stringMatching(/^access-/)])
  left.push(did)
})

test('of those who were refused nothing is left', async () => {
  expect(left.length).toBeGreaterThan(10)
  await stratos.terminate()
  {
    using database = new Database(join(stratos.dataFolder, 'service.sqlite'))
    for (const table of ['enrollment', 'enrollment_boundary', 'oauth_session', 'outbox_dirty']) {
      const rows = database.query<{ did: Did }, []>(`select did from ${table}`).all()
      expect(rows.filter(({ did }) => left.includes(did))).toEqual([])
    }
    const states = database.query<{ all: number }, []>('select count(*) as "all" from oauth_state')
    expect(states.get()).toEqual({ all: pending })
  }
  const folders = readdirSync(join(stratos.dataFolder, 'actors'), { recursive: true })
  expect(left.filter((did) => folders.some((path) => String(path).includes(did)))).toEqual([])
  await stratos.run()
})

/** A PDS that grants all, at the address of the one before it. */
function opened(before?: AuthorizationServer): AuthorizationServer {
  const server = new AuthorizationServer(
    before === undefined ? 0 : Number(new URL(before.url).port),
  )
  server.grantedScope = wholeScope
  server.xrpc = () => Response.json({ cid: 'bafyreib2rxk3rh6kzwq', uri: 'at://' })
  return server
}

/** Our own origin, by the name that the PDS returns to. */
function origin(): string {
  return `http://127.0.0.1:${new URL(stratos.url).port}`
}

function begin(did: Did, browser: Browser, redirectUri?: string): Promise<Response> {
  const url = new URL('/oauth/authorize', origin())
  url.searchParams.set('handle', did)
  if (redirectUri !== undefined) url.searchParams.set('redirect_uri', redirectUri)
  return browser.visit(url)
}

/** What the browser of a person who said yes brings back. */
async function approved(did: Did, browser: Browser, redirectUri?: string) {
  pds.subject = did
  const response = await begin(did, browser, redirectUri)
  expect(response.status).toBe(302)
  return pds.approve(pds.stateOf(response.headers.get('location') ?? ''))
}

function comeBack(
  browser: Browser,
  params: URLSearchParams,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  return browser.visit(`${origin()}/oauth/callback?${params.toString()}`, { headers })
}

/** A whole sign-in at a PDS that grants this. */
async function whileScopeIs(scope: string, did: Did): Promise<Response> {
  pds.grantedScope = scope
  const browser = new Browser()
  const answer = await comeBack(browser, await approved(did, browser))
  pds.grantedScope = wholeScope
  return answer
}

async function expectRefusal(response: Response, { status, error }: Refusal): Promise<void> {
  expect(response.status).toBe(status)
  const body: unknown = await response.json()
  expect(isFields(body) ? body['error'] : body).toBe(error)
}

async function expectEnrollment(did: Did): Promise<void> {
  const answer = await whileScopeIs(wholeScope, did)
  expect(await answer.json()).toMatchObject({ did, enrolled: true })
  expect(await isEnrolled(did)).toBeTrue()
}

async function isEnrolled(did: Did): Promise<boolean> {
  const { body } = await stratos.call('zone.stratos.enrollment.status', { params: { did } })
  return body['enrolled'] === true
}
