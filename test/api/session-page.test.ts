import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { altered, beginSession, endedSession } from '../kit/stratos-session.ts'
import { serviceToken } from '../kit/token.ts'
import { type Answer, isFields } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createSession = 'zone.stratos.server.createSession'
const unenroll = 'zone.stratos.enrollment.unenroll'
const invalid: Refusal = [401, 'InvalidToken']
const forbidden: Refusal = [403, 'Forbidden']

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { leaver: ['a'], bob: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('on our own pages a session', () => {
  const status = '/oauth/status'
  const revoke = '/oauth/revoke'

  test.each<[string, () => Promise<string> | string, Refusal]>([
    ['that has ended', () => endedSession(stratos, 'leaver'), invalid],
    ['that was altered', async () => altered(await session('leaver')), invalid],
    ['that is a name', () => bearer('leaver'), forbidden],
    ['that is a token for leaving', () => token('leaver', once({ lxm: unenroll })), invalid],
    ['that is a token for the place', () => token('leaver', once({ lxm: status })), invalid],
    ['that is no token', () => 'Bearer no-token', invalid],
    ['that is nothing', () => 'Bearer', invalid],
    ['that is the operator’s password', () => `Bearer ${stratos.adminPassword}`, invalid],
    ['that is the operator', () => stratos.adminBasic, forbidden],
  ])('%s is refused', async (_, credential, refusal) => {
    const authorization = await credential()
    expectRefusal(await visit(status, { authorization }), refusal)
    expectRefusal(await send(revoke, { authorization }), refusal)
    expectRefusal(await send('/oauth/signout', { authorization }), refusal)
    const { body } = await visit(status, { authorization: await session('leaver') })
    expect(body).toMatchObject({ enrolled: true })
  })

  test('signs out of no browser', async () => {
    const authorization = await session('leaver')
    expectRefusal(await send('/oauth/signout', { authorization }), forbidden)
  })

  test('reads where its owner stands, wherever it comes from', async () => {
    const authorization = await session('bob')
    for (const headers of [{}, { origin: 'https://app.example.com' }, { host: 'a.example' }]) {
      const answer = await visit(status, { authorization, ...headers })
      expect(answer).toMatchObject({ status: 200, body: { did: person('bob'), enrolled: true } })
      expect(answer.headers.get('access-control-allow-origin')).toBeNull()
    }
  })

  test('lets its owner leave, and that ends it', async () => {
    const authorization = await session('leaver')
    expectRefusal(await send(revoke, { authorization }, '{"a":1}'), [400, 'InvalidRequest'])
    const answer = await send(revoke, { authorization })
    expect(answer).toMatchObject({ status: 200, body: { success: true } })
    expect(answer.headers.getSetCookie()).toEqual([])
    expectRefusal(await visit(status, { authorization }), invalid)
  })
})

function person(name: string): string {
  return stratos.person(name).did
}

function bearer(name: string): string {
  return stratos.person(name).bearer
}

/** What a method wants that takes each token once. */
function once(claims: Readonly<Record<string, unknown>> = {}) {
  return { jti: crypto.randomUUID(), ...claims }
}

async function token(name: string, claims: Readonly<Record<string, unknown>>): Promise<string> {
  const about = { aud: stratos.did, lxm: createSession }
  return `Bearer ${await serviceToken(stratos.person(name), about, { claims })}`
}

function session(name: string): Promise<string> {
  return beginSession(stratos, name)
}

async function visit(path: string, headers: Record<string, string>, init: RequestInit = {}) {
  const response = await fetch(`http://127.0.0.1:${stratos.port}${path}`, { ...init, headers })
  const body: unknown = await response.json()
  return { status: response.status, headers: response.headers, body: isFields(body) ? body : {} }
}

function send(path: string, headers: Record<string, string>, body = '{}'): Promise<Answer> {
  const all = { 'content-type': 'application/json', ...headers }
  return visit(path, all, { method: 'POST', body })
}
