import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { sessionsMax } from '../../src/store/session.ts'
import { addressOf, postCollection, privatePost, textsOf } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import {
  altered,
  beginSession,
  endedSession,
  namesIn,
  readSession,
} from '../kit/stratos-session.ts'
import { serviceToken } from '../kit/token.ts'
import { type Call, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createSession = 'zone.stratos.server.createSession'
const getSession = 'zone.stratos.server.getSession'
const deleteSession = 'zone.stratos.server.deleteSession'
const revokeSessions = 'zone.stratos.admin.revokeSessions'
const rotateSecret = 'zone.stratos.admin.rotateSessionSecret'
const createRecord = 'zone.stratos.repo.createRecord'
const deleteRecord = 'zone.stratos.repo.deleteRecord'
const listRecords = 'zone.stratos.repo.listRecords'
const unenroll = 'zone.stratos.enrollment.unenroll'
const missing: Refusal = [401, 'AuthMissing']
const invalid: Refusal = [401, 'InvalidToken']
const expired: Refusal = [401, 'ExpiredToken']
const forbidden: Refusal = [403, 'Forbidden']
const post = { verb: 'POST' } as const

let stratos: SeededStratos

beforeAll(async () => {
  const names = ['alice', 'bob', 'lister', 'taken', 'view']
  stratos = await SeededStratos.start({
    people: Object.fromEntries(names.map((name) => [name, ['a']])),
  })
  await stratos.terminate()
  await stratos.run({ STRATOS_ALLOWED_APPVIEWS: person('view') })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('no session begins', () => {
  test('without a credential', async () => {
    expectRefusal(await stratos.call(createSession, post), missing)
  })

  test.each<[string, () => Promise<string> | string, Refusal]>([
    ['with a token without a jti', () => token('alice', {}), invalid],
    ['with an old token', () => token('alice', once({ iat: now() - 310 })), expired],
    ['with a token for another method', () => token('alice', once({ lxm: getSession })), invalid],
    [
      'with a token of another service',
      () => token('alice', once({ aud: 'did:web:a.b' })),
      invalid,
    ],
    ['for somebody who never enrolled', () => token('stranger', once()), [403, 'NotEnrolled']],
    ['for somebody by name who never enrolled', () => bearer('stranger'), [403, 'NotEnrolled']],
    ['for an AppView, be it enrolled', () => token('view', once()), forbidden],
    ['for the operator', () => stratos.adminBasic, forbidden],
    ['by another session', () => session('alice'), forbidden],
  ])('%s', async (_, credential, refusal) => {
    const authorization = await credential()
    const answer = await stratos.call(createSession, { ...post, authorization })
    expectRefusal(answer, refusal)
  })

  test('with a token that began one', async () => {
    const authorization = await token('alice', once())
    expect(await stratos.call(createSession, { ...post, authorization })).toMatchObject({
      status: 200,
    })
    expectRefusal(await stratos.call(createSession, { ...post, authorization }), invalid)
  })
})

describe.each([
  [getSession, {}],
  [deleteSession, post],
] as [string, Call][])('%s is refused', (nsid, call) => {
  test.each<[string, () => Promise<string> | string | undefined, Refusal]>([
    ['without a credential', () => undefined, missing],
    ['with a token for it', () => token('alice', { lxm: nsid }), forbidden],
    ['with a name', () => bearer('alice'), forbidden],
    ['to an AppView', () => token('view', { lxm: nsid }), forbidden],
    ['to the operator', () => stratos.adminBasic, forbidden],
    ['with a session that has ended', () => endedSession(stratos, 'alice'), invalid],
    ['with half of a session', async () => (await session('alice')).slice(0, -5), invalid],
    ['with a session under another scheme', async () => dpop(await session('alice')), invalid],
  ])('%s', async (_, credential, refusal) => {
    const authorization = await credential()
    expectRefusal(await stratos.call(nsid, { ...call, authorization }), refusal)
  })
})

describe('a session that does not count is refused, never overlooked,', () => {
  const bad: Record<string, () => Promise<string>> = {
    'when it has ended': () => endedSession(stratos, 'alice'),
    'when it was altered': async () => altered(await session('alice')),
    'when it is cut short': async () => (await session('alice')).slice(0, -1),
  }
  const asks = (): Record<string, Call> => ({
    [createRecord]: { input: newPost('alice') },
    [listRecords]: { params: { repo: person('alice'), collection: postCollection } },
    'com.atproto.repo.describeRepo': { params: { repo: person('alice') } },
    'zone.stratos.sync.getRepo': { params: { did: person('alice') } },
    'zone.stratos.enrollment.status': { params: { did: person('alice') } },
    'zone.stratos.server.listDomains': {},
    [unenroll]: post,
    [createSession]: post,
    'zone.stratos.admin.listMembers': {},
    'com.atproto.admin.getSubjectStatus': { params: { did: person('alice') } },
  })
  test.each(Object.entries(bad))('%s', async (_, credential) => {
    for (const [nsid, call] of Object.entries(asks())) {
      const authorization = await credential()
      await expectNoChange(stratos, invalid, () => stratos.call(nsid, { ...call, authorization }))
    }
  })
})

describe('the operator’s methods are refused', () => {
  test.each([
    [revokeSessions, () => ({ input: { did: person('bob') } })],
    [rotateSecret, () => post],
  ] as [string, () => Call][])('%s', async (nsid, call) => {
    const kid = namesIn(await session('bob')).kid
    const before = await session('bob')
    expectRefusal(await stratos.call(nsid, call()), missing)
    for (const authorization of [bearer('bob'), before, await token('bob', { lxm: nsid })]) {
      expectRefusal(await stratos.call(nsid, { ...call(), authorization }), forbidden)
    }
    expectRefusal(await stratos.call(nsid, { ...call(), authorization: 'Bearer wrong' }), invalid)
    expect(await readSession(stratos, before)).toMatchObject({ status: 200 })
    expect(namesIn(await session('bob')).kid).toBe(kid)
  })

  test('with a name that is no DID', async () => {
    const call = { input: { did: 'bob.test' }, authorization: stratos.adminBasic }
    expectRefusal(await stratos.call(revokeSessions, call), [400, 'InvalidRequest'])
  })

  test('other ones, too, with a session', async () => {
    const authorization = await session('alice')
    const did = person('bob')
    const subject = { subject: repoSubject(did), takedown: { applied: true } }
    const asks: [string, Call][] = [
      ['zone.stratos.admin.setBoundaries', { input: { did, boundaries: [] } }],
      ['zone.stratos.admin.unenroll', { input: { did } }],
      ['zone.stratos.admin.listMembers', {}],
      ['com.atproto.admin.updateSubjectStatus', { input: subject }],
    ]
    for (const [nsid, call] of asks) {
      expectRefusal(await stratos.call(nsid, { ...call, authorization }), forbidden)
    }
  })
})

describe('a session', () => {
  test.each([
    ['a token', () => token('alice', once())],
    ['a name in development', () => bearer('alice')],
  ])('begins with %s, for a quarter of an hour', async (_, credential) => {
    const authorization = await credential()
    const before = Date.now()
    const answer = await stratos.call(createSession, { ...post, authorization })
    expect(answer).toMatchObject({ status: 200 })
    const { accessJwt, ...rest } = answer.body
    expect(accessJwt).toBeString()
    expect(rest).toEqual({ did: person('alice'), expiresAt: expect.any(String) })
    const lastsMs = Date.parse(textOf(rest, 'expiresAt')) - before
    expect(lastsMs).toBeGreaterThan(15 * 60_000 - 1_000)
    expect(lastsMs).toBeLessThan(15 * 60_000 + 10_000)
    const shown = await readSession(stratos, `Bearer ${textOf(answer.body, 'accessJwt')}`)
    expect(shown.body).toEqual({ ...rest, boundaries: [{ value: stratos.boundary('a') }] })
  })

  test('shows the boundaries of this moment', async () => {
    const authorization = await session('bob')
    await stratos.setBoundaries('bob', ['a', 'c'])
    const boundaries = ['a', 'c'].map((bare) => ({ value: stratos.boundary(bare) }))
    expect((await readSession(stratos, authorization)).body).toMatchObject({ boundaries })
    await stratos.setBoundaries('bob', ['a'])
  })

  test('writes, reads and deletes, under both names and as often as it is sent', async () => {
    const authorization = await session('alice')
    for (const prefix of ['zone.stratos.repo', 'com.atproto.repo']) {
      const input = newPost('alice', `by ${prefix}`)
      const made = await stratos.call(`${prefix}.createRecord`, { input, authorization })
      expect(made).toMatchObject({ status: 200 })
      const params = addressOf(textOf(made.body, 'uri'))
      const read = await stratos.call(`${prefix}.getRecord`, { params, authorization })
      expect(read.body).toMatchObject({ value: { text: `by ${prefix}` } })
      expect(
        await stratos.call(`${prefix}.deleteRecord`, { input: params, authorization }),
      ).toMatchObject({ status: 200 })
    }
    const { body } = await stratos.call(listRecords, {
      params: { repo: person('alice'), collection: postCollection },
      authorization,
    })
    expect(textsOf(body)).toEqual([])
  })

  test('writes to nobody else’s repo', async () => {
    const call = { input: newPost('bob'), authorization: await session('alice') }
    await expectNoChange(stratos, forbidden, () => stratos.call(createRecord, call))
  })

  test('that is deleted ends at once, and no other', async () => {
    const [gone, kept] = [await session('alice'), await session('alice')]
    expect(await readSession(stratos, gone)).toMatchObject({ status: 200 })
    const deleted = await stratos.call(deleteSession, { ...post, authorization: gone })
    expect(deleted).toMatchObject({ status: 200, body: { success: true } })
    expectRefusal(await readSession(stratos, gone), invalid)
    expectRefusal(await stratos.call(deleteSession, { ...post, authorization: gone }), invalid)
    expect(await readSession(stratos, kept)).toMatchObject({ status: 200 })
  })

  test('ends when the same person has begun too many after it', async () => {
    const oldest = await session('lister')
    const others = []
    for (let index = 1; index < sessionsMax; index++) others.push(await session('lister'))
    expect(await readSession(stratos, oldest)).toMatchObject({ status: 200 })
    others.push(await session('lister'))
    const statuses = await Promise.all(
      [oldest, ...others].map(async (one) => (await readSession(stratos, one)).status),
    )
    // Those of one second are equally old.
    expect(statuses.filter((status) => status === 401)).toHaveLength(1)
    expect(statuses.at(-1)).toBe(200)
  })

  test('stays with a repo that is taken down: its owner may still delete', async () => {
    const before = await session('taken')
    const { body } = await stratos.call(createRecord, {
      input: newPost('taken'),
      authorization: before,
    })
    await setTakedown(stratos, repoSubject(person('taken')), { applied: true })
    for (const authorization of [before, await session('taken')]) {
      const write = { input: newPost('taken'), authorization }
      expectRefusal(await stratos.call(createRecord, write), [403, 'RepoTakendown'])
      const input = addressOf(textOf(body, 'uri'))
      expect(await stratos.call(deleteRecord, { input, authorization })).toMatchObject({
        status: 200,
      })
    }
  })
})

function person(name: string): string {
  return stratos.person(name).did
}

function bearer(name: string): string {
  return stratos.person(name).bearer
}

function now(): number {
  return Math.floor(Date.now() / 1000)
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

function dpop(authorization: string): string {
  return authorization.replace('Bearer', 'DPoP')
}

function newPost(name: string, text = 'written') {
  const record = privatePost(text, [stratos.boundary('a')])
  return { repo: person(name), collection: postCollection, record }
}
