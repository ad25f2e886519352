import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { readdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { basic, SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, type Call, fieldsOf, listOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const admin = (name: string) => `zone.stratos.admin.${name}`
let stratos: SeededStratos
let moderator: string

beforeAll(async () => {
  const people = { alice: ['a', 'b'], bob: ['a'], carol: ['b', 'c'], dave: [], erin: ['a'] }
  stratos = await SeededStratos.start({ people })
  moderator = stratos.person('stranger').did
  // A moderation service is told apart from people, and is not the operator.
  expect(await stratos.terminate()).toBe(0)
  await stratos.run({ STRATOS_MOD_SERVICE_DID: moderator })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('to everybody else is closed', () => {
  const inputs = () => {
    const { did } = stratos.person('bob')
    return {
      setBoundaries: { input: { did, boundaries: [] } },
      addBoundary: { input: { did, boundary: stratos.boundary('b') } },
      removeBoundary: { input: { did, boundary: stratos.boundary('a') } },
      unenroll: { input: { did } },
      listMembers: {},
      listBoundaries: {},
      listOutbox: {},
    } satisfies Record<string, Call>
  }
  const forbidden: Refusal = [403, 'Forbidden']
  const invalid: Refusal = [401, 'InvalidToken']
  const token = (name: string) => async (lxm: string) =>
    `Bearer ${await serviceToken(stratos.person(name), { aud: stratos.did, lxm })}`
  type Outsider = [string, (lxm: string) => Promise<string> | string | undefined, Refusal]
  const outsiders: Outsider[] = [
    ['nobody', () => undefined, [401, 'AuthMissing']],
    ['a member', () => stratos.person('alice').bearer, forbidden],
    ['a member with a token', token('alice'), forbidden],
    ['the one it is about', () => stratos.person('bob').bearer, forbidden],
    ['the one it is about with a token', token('bob'), forbidden],
    ['the moderation service', token('stranger'), forbidden],
    ['a wrong password', () => basic('admin', 'not the password at all'), invalid],
    ['the password under another name', () => basic('root', stratos.adminPassword), invalid],
  ]

  test.each([
    'setBoundaries',
    'addBoundary',
    'removeBoundary',
    'unenroll',
    'listMembers',
    'listBoundaries',
    'listOutbox',
  ] as const)('%s', async (name) => {
    const before = await stratos.boundariesOf('bob')
    for (const [, credential, refusal] of outsiders) {
      const authorization = await credential(admin(name))
      const call = { ...inputs()[name], authorization }
      await expectNoChange(stratos, refusal, () => stratos.call(admin(name), call))
    }
    expect(await stratos.boundariesOf('bob')).toEqual(before)
  })
})

describe('addBoundary and removeBoundary', () => {
  test.each([
    ['one that the service lacks', () => stratos.boundary('z'), [400, 'InvalidRequest']],
    ['a bare name', () => 'b', [400, 'InvalidRequest']],
    ['one of another service', () => 'did:web:other.example.com/b', [400, 'InvalidRequest']],
    ['one that is too long', () => stratos.boundary('x'.repeat(254)), [400, 'InvalidRequest']],
    ['a list', () => [stratos.boundary('b')], [400, 'InvalidRequest']],
    ['nothing', () => undefined, [400, 'InvalidRequest']],
  ] as [string, () => unknown, Refusal][])('refuse %s', async (_, boundary, refusal) => {
    for (const verb of ['addBoundary', 'removeBoundary']) {
      const input = { did: stratos.person('bob').did, boundary: boundary() }
      await expectNoChange(stratos, refusal, () => ask(verb, { input }))
    }
    expect(await stratos.boundariesOf('bob')).toEqual([stratos.boundary('a')])
  })

  test('refuse somebody who is not enrolled', async () => {
    const input = { did: stratos.person('stranger').did, boundary: stratos.boundary('a') }
    for (const verb of ['addBoundary', 'removeBoundary']) {
      expectRefusal(await ask(verb, { input }), [404, 'NotEnrolled'])
    }
  })

  test('count from the next read on, and answer with the whole set', async () => {
    const { uri } = await post('alice', ['b'])
    const read = () =>
      stratos.callAs('bob', 'zone.stratos.repo.getRecord', { params: addressOf(uri) })
    expectRefusal(await read(), [404, 'RecordNotFound'])
    expect(await change('addBoundary', 'bob', 'b')).toEqual(['a', 'b'])
    expect(await read()).toMatchObject({ status: 200 })
    expect(await change('removeBoundary', 'bob', 'b')).toEqual(['a'])
    expectRefusal(await read(), [404, 'RecordNotFound'])
  })

  test('count from the next write on', async () => {
    const write = () => tryPost('dave', ['a'])
    expectRefusal(await write(), [400, 'ForbiddenBoundary'])
    await change('addBoundary', 'dave', 'a')
    expect(await write()).toMatchObject({ status: 200 })
    await change('removeBoundary', 'dave', 'a')
    expectRefusal(await write(), [400, 'ForbiddenBoundary'])
  })

  test('of what is so already succeed', async () => {
    expect(await change('addBoundary', 'bob', 'a')).toEqual(['a'])
    expect(await change('removeBoundary', 'bob', 'c')).toEqual(['a'])
  })
})

describe('listMembers', () => {
  test.each(['0', '501', '-1', 'many', ''])('refuses the limit "%s"', async (limit) => {
    expectRefusal(await ask('listMembers', { params: { limit } }), [400, 'InvalidRequest'])
  })

  test('refuses a boundary that neither the service nor anybody has', async () => {
    const long = stratos.boundary('x'.repeat(254))
    for (const boundary of ['a', stratos.boundary('z'), 'did:web:other.example.com/a', long]) {
      const answer = await ask('listMembers', { params: { boundary } })
      expectRefusal(answer, [400, 'InvalidRequest'])
    }
  })

  test('gives everybody once, in the order of DIDs, whatever the page', async () => {
    const dids = ['alice', 'bob', 'carol', 'dave', 'erin'].map((name) => stratos.person(name).did)
    for (const limit of [1, 2, 4, 5, 500]) {
      const members = await pages('listMembers', 'members', { limit })
      expect<unknown[]>(members.map(({ did }) => did)).toEqual(dids.toSorted())
    }
  })

  test('gives those of one boundary, whatever the page', async () => {
    const boundary = stratos.boundary('b')
    const dids = ['alice', 'carol'].map((name) => stratos.person(name).did)
    for (const limit of [1, 2, 3]) {
      const members = await pages('listMembers', 'members', { limit, boundary })
      expect<unknown[]>(members.map(({ did }) => did)).toEqual(dids.toSorted())
    }
  })

  test('tells what there is to know of somebody, and no secret', async () => {
    const { did } = stratos.person('carol')
    const members = await pages('listMembers', 'members', {})
    expect(members.find((member) => member['did'] === did)).toEqual({
      did,
      pdsEndpoint: 'http://127.0.0.1:1',
      enrolledAt: expect.any(String),
      active: true,
      boundaries: ['b', 'c'].map((name) => stratos.boundary(name)),
      session: 'lost',
      signingKey: expect.stringMatching(/^did:key:z/),
    })
  })
})

test('listBoundaries counts people, and knows boundaries of nobody', async () => {
  const entry = (bare: string, members: number) => {
    return { boundary: stratos.boundary(bare), members, configured: true }
  }
  const { status, body } = await ask('listBoundaries', {})
  expect(status).toBe(200)
  expect(body['boundaries']).toEqual([entry('a', 3), entry('b', 2), entry('c', 1)])
})

describe('a boundary that the configuration has lost', () => {
  beforeAll(async () => {
    expect(await stratos.terminate()).toBe(0)
    await stratos.run({ STRATOS_ALLOWED_DOMAINS: 'a,b,x' })
  })
  afterAll(async () => {
    expect(await stratos.terminate()).toBe(0)
    await stratos.run()
  })

  test('is listed as such, with those who still have it', async () => {
    const { body } = await ask('listBoundaries', {})
    expect(listOf(body, 'boundaries').slice(2)).toEqual([
      { boundary: stratos.boundary('x'), members: 0, configured: true },
      { boundary: stratos.boundary('c'), members: 1, configured: false },
    ])
    const members = await pages('listMembers', 'members', { boundary: stratos.boundary('c') })
    const { did } = stratos.person('carol')
    expect(members).toMatchObject([{ did, boundaries: [stratos.boundary('b')] }])
  })

  test('is in no answer of a change, and stays with the person through it', async () => {
    expect(await change('addBoundary', 'carol', 'a')).toEqual(['a', 'b'])
    expect(await change('removeBoundary', 'carol', 'a')).toEqual(['b'])
    const { did } = stratos.person('carol')
    const input = { did, boundary: stratos.boundary('c') }
    expectRefusal(await ask('removeBoundary', { input }), [400, 'InvalidRequest'])
    const members = await pages('listMembers', 'members', { boundary: stratos.boundary('c') })
    expect(members).toHaveLength(1)
  })
})

describe('listOutbox', () => {
  test('is empty while there is nothing to deliver', async () => {
    await settled()
    const { status, body } = await ask('listOutbox', {})
    expect({ status, actors: body['actors'] }).toEqual({ status: 200, actors: [] })
  })

  test('refuses a page that is too large, and somebody who is not enrolled', async () => {
    expectRefusal(await ask('listOutbox', { params: { limit: 101 } }), [400, 'InvalidRequest'])
    const params = { did: stratos.person('stranger').did }
    expectRefusal(await ask('listOutbox', { params }), [404, 'NotEnrolled'])
  })

  test('shows who waits for a sign-in, and how much of theirs', async () => {
    await post('erin', ['a'])
    await post('erin', ['a'])
    const { did } = stratos.person('erin')
    const erin = { did, state: 'session-lost', pending: 2, parkedCount: 0, parked: [] }
    const answer = await eventually('end of the try', async () => {
      const { body } = await ask('listOutbox', { params: { did } })
      return listOf(body, 'actors')[0]?.['state'] === 'session-lost' ? body : undefined
    })
    expect(answer['actors']).toEqual([erin])
    const { body } = await ask('listOutbox', {})
    expect(listOf(body, 'actors')).toContainEqual(erin)
    expect(fieldsOf(body, 'totals')['sessionLost']).toBeGreaterThanOrEqual(1)
    expect(JSON.stringify(body)).not.toContain('a post')
  })

  test('of one who has nothing says so', async () => {
    const { did } = stratos.person('carol')
    const { body } = await ask('listOutbox', { params: { did } })
    const nothing = { did, state: 'idle', pending: 0, parkedCount: 0, parked: [] }
    expect(body['actors']).toEqual([nothing])
  })

  test('names rows that were given up, and hides nobody behind a broken database', async () => {
    expect(await stratos.terminate()).toBe(0)
    const { did: carol } = stratos.person('carol')
    const { did: dave } = stratos.person('dave')
    {
      using service = new Database(join(stratos.dataFolder, 'service.sqlite'))
      for (const did of [carol, dave]) service.run('insert into outbox_parked values (?)', [did])
      using actor = new Database(databaseOf(carol))
      for (let row = 0; row < 25; row++) {
        actor.run(
          `insert into stratos_outbox (collection, rkey, position, pending, attempts,
            "nextAttemptAtMs", parked) values (?, ?, ?, 0, 1, 0, 'the PDS refused: 400 Bad')`,
          [postCollection, `row-${String(row).padStart(2, '0')}`, row],
        )
      }
    }
    writeFileSync(databaseOf(dave), 'this is no database')
    await stratos.run()
    const actors = await pages('listOutbox', 'actors', { limit: 1 })
    const found = (did: string) => actors.find((actor) => actor['did'] === did)
    expect(found(carol)).toMatchObject({ state: 'idle', pending: 0, parkedCount: 25 })
    expect(listOf(found(carol) ?? {}, 'parked')).toHaveLength(20)
    expect(listOf(found(carol) ?? {}, 'parked')[0]).toEqual({
      collection: postCollection,
      rkey: 'row-00',
      reason: 'the PDS refused: 400 Bad',
    })
    expect(found(dave)).toMatchObject({ state: 'unreadable' })
    const { body } = await ask('listOutbox', {})
    expect(fieldsOf(body, 'totals')['parked']).toBe(2)
  })
})

test('unenroll ends a membership at once, and is content with one that has ended', async () => {
  const { did } = stratos.person('erin')
  const unenroll = () => ask('unenroll', { input: { did } })
  expect(await unenroll()).toMatchObject({ status: 200, body: { success: true } })
  expectRefusal(await tryPost('erin', ['a']), [403, 'NotEnrolled'])
  const members = await pages('listMembers', 'members', {})
  expect(members.map((member) => member['did'])).not.toContain(did)
  // Without a session the public repo cannot be cleaned, and the operator sees that.
  const left = await eventually('end of the try', async () => {
    const { body } = await ask('listOutbox', { params: { did } })
    return listOf(body, 'actors')[0]?.['state'] === 'session-lost' ? body : undefined
  })
  expect(left['actors']).toMatchObject([{ did, leaving: true, parkedCount: 0, parked: [] }])
  expect(await unenroll()).toMatchObject({ status: 200, body: { success: true } })
  const input = { did, boundary: stratos.boundary('a') }
  expectRefusal(await ask('addBoundary', { input }), [404, 'NotEnrolled'])
})

function ask(name: string, call: Call): Promise<Answer> {
  return stratos.call(admin(name), { ...call, authorization: stratos.adminBasic })
}

/** @returns the bare names that the answer holds */
async function change(verb: string, name: string, bare: string): Promise<string[]> {
  const { did } = stratos.person(name)
  const answer = await ask(verb, { input: { did, boundary: stratos.boundary(bare) } })
  expect(answer).toMatchObject({ status: 200, body: { did } })
  const { boundaries } = answer.body
  expect(boundaries).toBeArray()
  return Array.isArray(boundaries) ? boundaries.map((name) => basename(String(name))) : []
}

/** What the pages of a list hold, to its end. */
async function pages(name: string, member: string, params: Record<string, string | number>) {
  const found: Record<string, unknown>[] = []
  for (let cursor = ''; ;) {
    const more = cursor === '' ? params : { ...params, cursor }
    const { status, body } = await ask(name, { params: more })
    expect(status).toBe(200)
    found.push(...listOf(body, member))
    if (body['cursor'] === undefined) return found
    cursor = textOf(body, 'cursor')
  }
}

function tryPost(name: string, bare: readonly string[]): Promise<Answer> {
  const boundaries = bare.map((one) => stratos.boundary(one))
  const record = privatePost('a post', boundaries)
  const input = { repo: stratos.person(name).did, collection: postCollection, record }
  return stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
}

async function post(name: string, bare: readonly string[]): Promise<{ uri: string }> {
  const answer = await tryPost(name, bare)
  expect(answer).toMatchObject({ status: 200 })
  return { uri: textOf(answer.body, 'uri') }
}

/** Forgets what the tests before have left to deliver: there is no PDS to take it. */
async function settled(): Promise<void> {
  expect(await stratos.terminate()).toBe(0)
  for (const path of databases()) {
    using actor = new Database(path)
    actor.run('delete from stratos_outbox')
  }
  await stratos.run()
  await eventually('end of all deliveries', async () => {
    const { body } = await ask('listOutbox', {})
    return fieldsOf(body, 'totals')['undelivered'] === 0 ? true : undefined
  })
}

function databases(): string[] {
  return readdirSync(join(stratos.dataFolder, 'actors'), { recursive: true })
    .map(String)
    .filter((name) => basename(name) === 'stratos.sqlite')
    .map((name) => join(stratos.dataFolder, 'actors', name))
}

function databaseOf(did: string): string {
  return databases().find((path) => basename(dirname(path)) === did) ?? ''
}
