import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { migrateSqlite } from '../../src/store/migrate.ts'
import { type Enrollment, oauthStateMaxMs, ServiceStore } from '../../src/store/service.ts'
import { RowsMismatch, type SqlValue } from '../../src/store/sql.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
let path: string
let store: ServiceStore

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

test('a state of sign-in counts for ten minutes and is taken once', async () => {
  const state = { value: 'value', address: '192.0.2.1' }
  await store.saveOauthState({ ...state, key: 'old', nowMs: 0 })
  const nowMs = oauthStateMaxMs + 1
  expect(await store.oauthState('old', oauthStateMaxMs)).toBe('value')
  expect(await store.oauthState('old', nowMs)).toBeUndefined()
  expect(await store.oauthStates(state.address, nowMs)).toEqual({ all: 0, ofAddress: 0 })
  await store.saveOauthState({ ...state, key: 'new', nowMs })
  expect(await store.takeOauthState('old')).toBeFalse()
  const taken = await Promise.all([store.takeOauthState('new'), store.takeOauthState('new')])
  expect(taken).toEqual([true, false])
  expect(await store.oauthState('new', nowMs)).toBeUndefined()
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

test('sign-ins are counted, in all and of an address', async () => {
  for (const [index, address] of ['192.0.2.1', '192.0.2.2', '192.0.2.1'].entries()) {
    await store.saveOauthState({ key: `${index}`, value: 'value', address, nowMs: 5 })
  }
  expect(await store.oauthStates('192.0.2.1', 5)).toEqual({ all: 3, ofAddress: 2 })
  expect(await store.oauthStates('192.0.2.3', 5)).toEqual({ all: 3, ofAddress: 0 })
})

test('a session is replaced and dropped', async () => {
  expect(await store.oauthSession(alice)).toBeUndefined()
  await store.saveOauthSession(alice, 'one')
  await store.saveOauthSession(alice, 'two')
  expect(await store.oauthSession(alice)).toBe('two')
  await store.dropOauthSession(alice)
  expect(await store.oauthSession(alice)).toBeUndefined()
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
  const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
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
