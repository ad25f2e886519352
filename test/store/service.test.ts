import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { migrateSqlite } from '../../src/store/migrate.ts'
import { Roster } from '../../src/store/roster.ts'
import { type Enrollment, type IdleSession, ServiceStore } from '../../src/store/service.ts'
import { RowsMismatch, type SqlValue } from '../../src/store/sql.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
/** Later than any other time. */
const distant = '9999-12-31T23:59:59.999Z'
let path: string
let store: ServiceStore
let sqlite: Sqlite

beforeEach(async () => {
  path = join(folder, `${crypto.randomUUID()}.sqlite`)
  store = await openStore()
  await store.begin()
})

afterEach(async () => {
  await store.end('swept')
})

test('boundaries of somebody who never enrolled are refused and change nothing', async () => {
  expect(await failureOf(store.setBoundaries(alice, ['x']))).toBeInstanceOf(RowsMismatch)
  expect(await store.enrollment(alice)).toBeUndefined()
  expect(await store.recordsDue()).toEqual([])
  await store.enroll(person(alice, []), 'session')
  expect((await store.enrollment(alice))?.boundaries).toEqual([])
})

test('an enrollment brings row, boundaries, session and outbox mark at once', async () => {
  const enrollment = person(alice, ['b', 'a'])
  await store.enroll(enrollment, 'session')
  const stored = { ...enrollment, active: true, boundaries: ['a', 'b'] }
  expect(await store.enrollment(alice)).toEqual(stored)
  expect(await store.oauthSession(alice)).toBe('session')
  expect(await store.outboxDirty()).toEqual([alice])
  expect(await store.enrollment(bob)).toBeUndefined()
})

test('a second enrollment keeps the date and replaces the rest', async () => {
  await store.enroll(person(alice, ['a']), 'first')
  const moved = { pdsEndpoint: 'https://other.test', enrolledAt: 'later', scope: 'less' }
  await store.enroll({ ...person(alice, ['b']), ...moved }, 'second')
  const { enrolledAt } = person(alice, [])
  expect(await store.enrollment(alice)).toMatchObject({ ...moved, enrolledAt, boundaries: ['b'] })
  expect(await store.oauthSession(alice)).toBe('second')
})

test('an account that moves is known to be elsewhere at once, and keeps all the rest', async () => {
  await store.enroll(person(alice, ['a']), 'session')
  const before = await store.enrollment(alice)
  expect(await store.movedTo(alice, 'https://other.test')).toBe('https://pds.test')
  expect(before?.pdsEndpoint).toBe('https://pds.test')
  expect(await store.enrollment(alice)).toMatchObject({
    ...before,
    pdsEndpoint: 'https://other.test',
  })
  expect(await store.movedTo(alice, 'https://other.test')).toBeUndefined()
  expect(await store.movedTo(bob, 'https://other.test')).toBeUndefined()
  expect(await store.enrollment(bob)).toBeUndefined()
})

test('new boundaries make the PDS record due until it is queued', async () => {
  await store.enroll(person(alice, ['a']), 'session')
  await store.enroll(person(bob, ['a']), 'session')
  await store.setBoundaries(alice, ['c', 'b'])
  expect((await store.enrollment(alice))?.boundaries).toEqual(['b', 'c'])
  expect((await store.enrollment(bob))?.boundaries).toEqual(['a'])
  expect(await store.recordsDue()).toEqual([alice])
  await store.recordQueued(alice)
  expect(await store.recordsDue()).toEqual([])
})

test('the enrolled come in pages, in order', async () => {
  for (const did of [bob, alice]) await store.enroll(person(did, []), 'session')
  expect(await store.enrolledDids('', 1)).toEqual([alice])
  expect(await store.enrolledDids(alice, 10)).toEqual([bob])
  expect(await store.enrolledDids(bob, 10)).toEqual([])
})

test('outbox marks are set and cleared, however often', async () => {
  await store.markOutbox(alice)
  await store.markOutbox(alice)
  expect(await store.outboxDirty()).toEqual([alice])
  await store.clearOutbox(alice)
  await store.clearOutbox(alice)
  expect(await store.outboxDirty()).toEqual([])
})

test('marks of rows that were given up are set and cleared, however often', async () => {
  const roster = new Roster(sqlite)
  await store.markParked(alice)
  await store.markParked(alice)
  expect(await roster.unsettled('', 10)).toEqual([alice])
  expect(await roster.unsettledCounts()).toEqual({ undelivered: 0, parked: 1 })
  // One mark says nothing of the other.
  await store.markOutbox(alice)
  await store.clearParked(alice)
  await store.clearParked(alice)
  expect(await roster.unsettledCounts()).toEqual({ undelivered: 1, parked: 0 })
  expect(await roster.unsettled('', 10)).toEqual([alice])
})

test('what was read while a change was being stored is not remembered', async () => {
  const seams: (() => Promise<void>)[] = []
  const sqlite = openSqlite(join(folder, `${crypto.randomUUID()}.sqlite`), {
    synchronous: 'normal',
    cacheKib: 256,
    exclusive: true,
  })
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  const slow = new ServiceStore({
    all: async <Row>(sql: string, ...args: readonly SqlValue[]) => {
      const rows = await sqlite.all<Row>(sql, ...args)
      await seams.shift()?.()
      return rows
    },
    run: (batch) => sqlite.run(batch),
    scrub: () => sqlite.scrub(),
    close: () => sqlite.close(),
  })
  await slow.enroll(person(alice, ['old']), 'session')
  // The old set has been read, and the new one is stored before the reader goes on.
  seams.push(() => slow.setBoundaries(alice, ['new']))
  expect((await slow.enrollment(alice))?.boundaries).toEqual(['old'])
  expect((await slow.enrollment(alice))?.boundaries).toEqual(['new'])
  await slow.setBoundaries(alice, [])
  expect((await slow.enrollment(alice))?.boundaries).toEqual([])
  await sqlite.close()
})

test('a session is replaced and dropped', async () => {
  expect(await store.oauthSession(alice)).toBeUndefined()
  await store.saveOauthSession(alice, 'one')
  await store.saveOauthSession(alice, 'two')
  expect(await store.oauthSession(alice)).toBe('two')
  await store.dropOauthSession(alice)
  expect(await store.oauthSession(alice)).toBeUndefined()
})

test('sessions that were not stored for long come oldest first, in pages', async () => {
  const idle = (before: string, limit: number, after?: IdleSession) =>
    store.idleSessions({ before, after, limit })
  expect(await idle(distant, 9)).toEqual([])
  for (const name of ['c', 'a', 'b']) await store.saveOauthSession(`did:web:${name}.test`, 'one')
  const all = await idle(distant, 9)
  const order = ({ updatedAt, did }: IdleSession) => `${updatedAt} ${did}`
  expect(all.map(order)).toEqual(all.map(order).toSorted())
  const paged: IdleSession[] = []
  for (let page = await idle(distant, 1); page.length > 0;) {
    paged.push(...page)
    page = await idle(distant, 1, paged.at(-1))
  }
  expect(paged).toEqual(all)
  expect(all).toHaveLength(3)
  const [oldest] = all
  expect(await idle(oldest?.updatedAt ?? '', 9)).toEqual([])
})

test('only a process that said so ended in order', async () => {
  await store.end('swept')
  store = await openStore()
  expect(await store.begin()).toBeTrue()
  // As after a kill: nothing was said since.
  expect(await store.begin()).toBeFalse()
  await store.end('unswept')
  store = await openStore()
  expect(await store.begin()).toBeFalse()
})

async function openStore(): Promise<ServiceStore> {
  sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  return new ServiceStore(sqlite)
}

function person(did: Did, boundaries: readonly string[]): Omit<Enrollment, 'active'> {
  return {
    did,
    boundaries,
    pdsEndpoint: 'https://pds.test',
    signingKey: 'did:key:z',
    rkey: 'did:web:stratos.test',
    enrolledAt: '2026-11-23T00:00:00.000Z',
    scope: 'atproto',
  }
}
