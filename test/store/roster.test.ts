import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { migrateSqlite } from '../../src/store/migrate.ts'
import { Roster } from '../../src/store/roster.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:web:alice.test')
const bob = parseDid('did:web:bob.test')
const carol = parseDid('did:web:carol.test')

let sqlite: Sqlite
let store: ServiceStore
let roster: Roster

beforeEach(async () => {
  const path = join(folder, `${crypto.randomUUID()}.sqlite`)
  sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  store = new ServiceStore(sqlite)
  roster = new Roster(sqlite)
})

afterEach(async () => {
  await sqlite.close()
})

test('members come in pages in the order of DIDs, each with their own boundaries', async () => {
  await enroll(carol, [])
  await enroll(alice, ['b', 'a'])
  await enroll(bob, ['b'])
  const page = (after: string) => roster.members({ after, limit: 2 })
  const [first, second] = [await page(''), await page('did:web:bob.test')]
  expect(first.map(({ did, boundaries }) => [did, boundaries])).toEqual([
    [alice, ['a', 'b']],
    [bob, ['b']],
  ])
  expect(second.map(({ did, boundaries }) => [did, boundaries])).toEqual([[carol, []]])
  expect(await page('did:web:carol.test')).toEqual([])
})

test('a member comes with what the operator needs, and with no secret', async () => {
  await enroll(alice, ['a'])
  await enroll(bob, ['a'])
  await store.dropOauthSession(bob)
  await sqlite.run([{ sql: 'update enrollment set active = 0 where did = $1', args: [bob] }])
  const facts = {
    pdsEndpoint: 'https://pds.test',
    signingKey: 'did:key:z',
    enrolledAt: '2026-11-23T00:00:00.000Z',
    boundaries: ['a'],
  }
  expect<object[]>(await roster.members({ after: '', limit: 10 })).toEqual([
    { did: alice, ...facts, active: true, hasSession: true },
    { did: bob, ...facts, active: false, hasSession: false },
  ])
})

test('members of one boundary come in full pages, with all of theirs', async () => {
  await enroll(alice, ['a', 'b'])
  await enroll(bob, ['a'])
  await enroll(carol, ['b'])
  const page = async (after: string, limit: number) =>
    (await roster.members({ after, limit, boundary: 'b' })).map(({ did, boundaries }) => [
      did,
      boundaries,
    ])
  const all: [Did, string[]][] = [
    [alice, ['a', 'b']],
    [carol, ['b']],
  ]
  expect(await page('', 2)).toEqual(all)
  expect(await page('', 1)).toEqual(all.slice(0, 1))
  expect(await page('did:web:alice.test', 1)).toEqual(all.slice(1))
  expect(await roster.members({ after: '', limit: 5, boundary: 'c' })).toEqual([])
})

test('a page takes two queries, however many people are on it', async () => {
  for (const did of [alice, bob, carol]) await enroll(did, ['a', 'b'])
  let queries = 0
  const counting = new Roster({
    all: async <Row>(sql: string, ...args: readonly (string | number)[]) => {
      queries += 1
      return await sqlite.all<Row>(sql, ...args)
    },
    run: (batch) => sqlite.run(batch),
    scrub: () => sqlite.scrub(),
    close: () => sqlite.close(),
  })
  expect(await counting.members({ after: '', limit: 500 })).toHaveLength(3)
  expect(queries).toBe(2)
})

test('boundaries are counted, those of nobody left out', async () => {
  await enroll(alice, ['a', 'b'])
  await enroll(bob, ['b'])
  expect(await roster.boundaries()).toEqual([
    { boundary: 'a', members: 1 },
    { boundary: 'b', members: 2 },
  ])
})

test('outboxes that are undelivered or hold what was given up come once each, in pages', async () => {
  await store.markOutbox(bob)
  for (const did of [carol, bob, alice]) await store.markParked(did)
  expect(await roster.unsettled('', 2)).toEqual([alice, bob])
  expect(await roster.unsettled('did:web:bob.test', 2)).toEqual([carol])
  expect(await roster.unsettledCounts()).toEqual({ undelivered: 1, parked: 3 })
})

async function enroll(did: Did, boundaries: readonly string[]): Promise<void> {
  const person = {
    did,
    boundaries,
    pdsEndpoint: 'https://pds.test',
    signingKey: 'did:key:z',
    rkey: 'did:web:stratos.test',
    enrolledAt: '2026-11-23T00:00:00.000Z',
    scope: 'atproto',
  }
  await store.enroll(person, 'secret')
}
