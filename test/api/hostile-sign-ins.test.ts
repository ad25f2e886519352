import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { Browsers } from '../../src/api/browser.ts'
import { SignIn } from '../../src/api/oauth.ts'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { createLog } from '../../src/lib/log.ts'
import { Eligibility } from '../../src/service/eligibility.ts'
import { BrowserSessions } from '../../src/store/browser-session.ts'
import { OauthStates } from '../../src/store/oauth-state.ts'
import { serviceSql } from '../kit/service-store.ts'
import { eventually } from '../kit/wait.ts'
import { loopbackFetch } from '../remote/directory.ts'
import { scope, Visitor } from '../remote/visitor.ts'
import { Delivering } from '../service/delivering.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const admitted = 'https://company.test'
const log = createLog('silent', () => undefined)
let visitor: Visitor
let world: Delivering

beforeEach(async () => {
  visitor = new Visitor()
  world = await Delivering.open(join(folder, crypto.randomUUID()))
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
  await visitor[Symbol.asyncDispose]()
})

test('nobody is admitted by a PDS that the account names only after it signed in at another', async () => {
  const { server, directory, did, clock } = visitor
  visitor.oauth = visitor.fresh(async (input, init) => {
    const url = input instanceof Request ? input.url : String(input)
    // What the account's own server is asked last, and may take long to answer.
    if (server.tokenCalls.length > 0 && url.endsWith('/oauth-protected-resource')) {
      directory.accounts.set(did, { pds: admitted })
      clock.ms += 61_000
      expect(await visitor.identities.pdsEndpoint(did, { fresh: true })).toBe(admitted)
    }
    return await loopbackFetch(input, init)
  })
  const door = await signIn()
  const start = await door.authorize(visit(`/oauth/authorize?handle=${did}`))
  const [cookie = ''] = start.headers.getSetCookie()
  const params = server.approve(server.stateOf(start.headers.get('location') ?? ''))
  const end = await door.callback(visit(`/oauth/callback?${params.toString()}`, { cookie }))
  expect(await end.json()).toMatchObject({ error: 'InvalidRequest' })
  expect(end.status).toBe(400)
  expect(await world.store.enrollment(did)).toBeUndefined()
  expect(server.revoked).not.toBeEmpty()
})

describe('while a PDS answers nothing,', () => {
  let door: SignIn
  let waiting: Promise<Response>[]
  let asked: number
  let gate: PromiseWithResolvers<void>

  beforeEach(async () => {
    asked = 0
    waiting = []
    gate = Promise.withResolvers()
    visitor.oauth = visitor.fresh(async (input, init) => {
      const url = input instanceof Request ? input.url : String(input)
      if (url.endsWith('/oauth-protected-resource')) {
        asked += 1
        await gate.promise
      }
      return await loopbackFetch(input, init)
    })
    door = await signIn()
  })

  afterEach(async () => {
    gate.resolve()
    await Promise.all(waiting)
  })

  const begin = (address: string) =>
    door.authorize(visit(`/oauth/authorize?handle=${visitor.did}`, { address }))
  const arrived = (count: number) =>
    eventually(`${count} requests`, () => (asked >= count ? true : undefined), { everyMs: 2 })

  test('few sign-ins of one address wait for it, and others are let in', async () => {
    waiting = Array.from({ length: 16 }, () => begin('192.0.2.1'))
    await arrived(16)
    await expectBusy(await begin('192.0.2.1'))
    expect(asked).toBe(16)
    waiting.push(begin('192.0.2.2'))
    await arrived(17)
    gate.resolve()
    for (const { status } of await Promise.all(waiting)) expect(status).toBe(302)
    expect((await begin('192.0.2.1')).status).toBe(302)
  })

  test('few sign-ins of all addresses do', async () => {
    waiting = Array.from({ length: 128 }, (_, index) => begin(`192.0.2.${index}`))
    await arrived(128)
    await expectBusy(await begin('198.51.100.1'))
    expect(asked).toBe(128)
  })

  test('a return for which there is no room may come again', async () => {
    gate.resolve()
    const address = '192.0.2.1'
    const start = await begin(address)
    const [cookie = ''] = start.headers.getSetCookie()
    const { server } = visitor
    const params = server.approve(server.stateOf(start.headers.get('location') ?? ''))
    const path = `/oauth/callback?${params.toString()}`
    gate = Promise.withResolvers()
    asked = 0
    waiting = Array.from({ length: 16 }, () => begin(address))
    await arrived(16)
    await expectBusy(await door.callback(visit(path, { cookie, address })))
    gate.resolve()
    await Promise.all(waiting)
    const end = await door.callback(visit(path, { cookie, address }))
    expect(await end.json()).toMatchObject({ reason: 'NotInAllowlist' })
  })
})

async function expectBusy(response: Response): Promise<void> {
  expect(response.status).toBe(503)
  expect(response.headers.get('retry-after')).toBe('1')
  expect(await response.json()).toMatchObject({ error: 'Overloaded' })
}

async function signIn(): Promise<SignIn> {
  const sql = await serviceSql(folder)
  const config = {
    publicUrl: 'http://127.0.0.1:3100',
    port: 3100,
    redirectOrigins: [],
    operatorContact: '',
  }
  const rules = {
    enrollmentMode: 'allowlist',
    allowedDids: [],
    allowedPds: [admitted],
    allowListEnforce: 'enrollment',
  } as const
  return new SignIn({
    config,
    oauth: visitor.oauth,
    identities: visitor.identities,
    eligibility: new Eligibility(rules, { store: world.store, log }),
    enrollments: world.enrollments(ServiceKey.generate()),
    states: new OauthStates(sql),
    browsers: new Browsers({ config, sessions: new BrowserSessions(sql), log }),
    scope,
    log,
  })
}

function visit(path: string, { cookie = '', address = '127.0.0.1' } = {}) {
  const url = new URL(path, 'http://127.0.0.1:3100')
  const headers = { cookie: cookie.split(';', 1)[0] ?? '' }
  return { request: new Request(url.href, { headers }), url, address, requestId: 'test' }
}
