import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import {
  altered,
  beginSession,
  endedSession,
  namesIn,
  readSession,
} from '../kit/stratos-session.ts'
import { serviceToken } from '../kit/token.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createSession = 'zone.stratos.server.createSession'
const deleteSession = 'zone.stratos.server.deleteSession'
const revokeSessions = 'zone.stratos.admin.revokeSessions'
const rotateSecret = 'zone.stratos.admin.rotateSessionSecret'
const unenroll = 'zone.stratos.enrollment.unenroll'
const invalid: Refusal = [401, 'InvalidToken']
const post = { verb: 'POST' } as const

let stratos: SeededStratos

beforeAll(async () => {
  const names = ['alice', 'bob', 'revoked', 'leaver', 'returner']
  stratos = await SeededStratos.start({
    people: Object.fromEntries(names.map((name) => [name, ['a']])),
  })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('sessions end', () => {
  test('when the operator says so, all of one person and nobody else’s', async () => {
    const [one, two] = [await session('revoked'), await session('revoked')]
    const other = await session('bob')
    await expectLive(one, two)
    const revoke = { input: { did: person('revoked') }, authorization: stratos.adminBasic }
    expect(await stratos.call(revokeSessions, revoke)).toMatchObject({
      status: 200,
      body: { did: person('revoked'), sessions: 2, browsers: 0 },
    })
    await expectEnded(one, two)
    await expectLive(other)
    await expectLive(await session('revoked'))
    const stranger = { input: { did: person('stranger') }, authorization: stratos.adminBasic }
    expect((await stratos.call(revokeSessions, stranger)).body).toMatchObject({ sessions: 0 })
  })

  test('when the operator ends the membership', async () => {
    const authorization = await session('returner')
    const end = { input: { did: person('returner') }, authorization: stratos.adminBasic }
    expect(await stratos.call('zone.stratos.admin.unenroll', end)).toMatchObject({ status: 200 })
    await expectEnded(authorization)
    const begin = { ...post, authorization: bearer('returner') }
    expectRefusal(await stratos.call(createSession, begin), [403, 'NotEnrolled'])
  })

  test('when their owner leaves, by one of them', async () => {
    const [one, two] = [await session('leaver'), await session('leaver')]
    const left = await stratos.call(unenroll, { ...post, authorization: one })
    expect(left).toMatchObject({ status: 200, body: { success: true } })
    await expectEnded(one, two)
    const status = { params: { did: person('leaver') } }
    const { body } = await stratos.call('zone.stratos.enrollment.status', status)
    expect(body).toEqual({ did: person('leaver'), enrolled: false })
  })
})

describe('after', () => {
  test('a rotation sessions from before count on, over a restart, too', async () => {
    const before = await session('alice')
    const kid = namesIn(before).kid
    const call = { ...post, authorization: stratos.adminBasic }
    const answer = await stratos.call(rotateSecret, call)
    expect(answer).toMatchObject({ status: 200 })
    const after = await session('alice')
    expect(namesIn(after).kid).toBe(textOf(answer.body, 'kid'))
    expect(namesIn(after).kid).not.toBe(kid)
    const waitMs = Date.parse(textOf(answer.body, 'formerUntil')) - Date.now()
    expect(waitMs).toBeGreaterThan(14 * 60_000)
    await expectLive(before, after)
    await stratos.terminate()
    await stratos.run()
    await expectLive(before, after)
  })

  test('a restart what was ended is ended', async () => {
    const [ended, kept] = [await endedSession(stratos, 'alice'), await session('alice')]
    await stratos.kill()
    await stratos.run()
    await expectEnded(ended)
    await expectLive(kept)
  })

  test('the loss of a secret what it signed is over, and new sessions begin', async () => {
    const before = await session('alice')
    await whileStopped(stratos, (sql) => sql.run([{ sql: 'delete from session_secret', args: [] }]))
    await expectEnded(before)
    await expectLive(await session('alice'))
  })

  test('somebody turned inactive their sessions are over, and none begins', async () => {
    const [turned, kept] = [await session('alice'), await session('bob')]
    await stratos.terminate()
    const continuous = {
      STRATOS_ALLOWLIST_ENFORCE: 'continuous',
      STRATOS_ALLOWED_DIDS: person('bob'),
    }
    await stratos.run(continuous)
    await expectEnded(turned)
    const begin = { ...post, authorization: await token('alice', once()) }
    expectRefusal(await stratos.call(createSession, begin), [403, 'NotEnrolled'])
    await expectLive(kept)
    await stratos.terminate()
    await stratos.run()
    await expectEnded(turned)
  })
})

test('no session stands in the log', async () => {
  const authorization = await session('bob')
  await stratos.terminate()
  await stratos.run({ LOG_LEVEL: 'debug' })
  await readSession(stratos, authorization)
  await readSession(stratos, altered(authorization))
  const again = await session('bob')
  await stratos.call(deleteSession, { ...post, authorization: again })
  for (const one of [authorization, again]) {
    for (const part of one.replace('Bearer ', '').split('.')) {
      expect(stratos.log).not.toContain(part)
    }
    expect(stratos.log).not.toContain(namesIn(one).sid)
  }
  expect(stratos.log).toContain(deleteSession)
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

async function expectLive(...all: readonly string[]): Promise<void> {
  for (const one of all) expect(await readSession(stratos, one)).toMatchObject({ status: 200 })
}

async function expectEnded(...all: readonly string[]): Promise<void> {
  for (const one of all) expectRefusal(await readSession(stratos, one), invalid)
}
