import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { parseDid, parseTid } from '../../src/atproto/syntax.ts'
import { BrowserSessions } from '../../src/store/browser-session.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { sessionDigest, sessionMs, Sessions, sessionsMax } from '../../src/store/session.ts'
import type { Sql } from '../../src/store/sql.ts'
import { enrollmentOf, serviceSql } from '../kit/service-store.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const stranger = parseDid('did:plc:strangerstrangerstranger')
const now = Date.UTC(2026, 10, 23)
let sql: Sql
let store: ServiceStore
let sessions: Sessions
let browsers: BrowserSessions
/** Called before each batch. */
let before: () => Promise<void>

beforeEach(async () => {
  before = async () => undefined
  sql = await serviceSql(folder, () => before())
  store = new ServiceStore(sql)
  sessions = new Sessions(sql)
  browsers = new BrowserSessions(sql)
  for (const did of [alice, bob]) await store.enroll(enrollmentOf(did), '{}')
})
afterEach(async () => {
  await sql.close()
})

test('nobody who is not enrolled has a session, and the try changes nothing', async () => {
  const over = await begin(alice, now - sessionMs)
  expect(await sessions.create(sessionOf(stranger, now), now)).toBeFalse()
  expect(await digests()).toEqual([over])
})

test('nobody who is inactive has one', async () => {
  await enforce([bob])
  expect(await sessions.create(sessionOf(alice, now), now)).toBeFalse()
  expect(await digests()).toEqual([])
})

test('whoever leaves while a session begins has none', async () => {
  before = async () => {
    before = async () => undefined
    await leave(alice)
  }
  expect(await sessions.create(sessionOf(alice, now), now)).toBeFalse()
  expect(await digests()).toEqual([])
})

test('an id is not found by its hash, and stands nowhere in the table', async () => {
  const id = 'an id'
  const session = { digest: sessionDigest(id), did: alice, expiresAtMs: now + sessionMs }
  await sessions.create(session, now)
  expect(await sessions.find(sessionDigest(id), now)).toEqual(session)
  for (const wrong of [id, '', sessionDigest(sessionDigest(id))]) {
    expect(await sessions.find(wrong, now)).toBeUndefined()
  }
  expect(JSON.stringify(await sql.all('select * from session'))).not.toContain(id)
})

test('one id begins one session', async () => {
  const session = sessionOf(alice, now)
  await sessions.create(session, now)
  expect(await failureOf(sessions.create({ ...session, did: bob }, now))).toBeInstanceOf(Error)
  expect(await sessions.find(session.digest, now)).toEqual(session)
})

test('a session lasts to the millisecond', async () => {
  const digest = await begin(alice)
  expect(await sessions.find(digest, now + sessionMs - 1)).toBeDefined()
  expect(await sessions.find(digest, now + sessionMs)).toBeUndefined()
})

test('whoever begins one sweeps what is over, of everybody', async () => {
  await begin(bob, now - sessionMs)
  const going = await begin(bob, now - sessionMs + 1)
  const begun = await begin(alice)
  expect(await digests()).toEqual([going, begun].toSorted())
})

test('what is over can be swept alone', async () => {
  await begin(alice, now)
  const going = await begin(bob, now + 1)
  await sessions.dropExpired(now + sessionMs)
  expect(await digests()).toEqual([going])
})

test('with one more than somebody may have the oldest ends, and nobody else’s', async () => {
  const other = await begin(bob, now - 1)
  const all: string[] = []
  for (let index = 0; index <= sessionsMax; index++) all.push(await begin(alice, now + index))
  const [first = '', ...rest] = all
  expect(await sessions.find(first, now)).toBeUndefined()
  expect(await digests()).toEqual([other, ...rest].toSorted())
})

test('of many of one instant those that began last are kept', async () => {
  const all: string[] = []
  for (let index = 0; index < 3 * sessionsMax; index++) all.push(await begin(alice))
  expect(await digests()).toEqual(all.slice(-sessionsMax).toSorted())
})

test('one that is dropped is gone, and no other', async () => {
  const [gone, kept] = [await begin(alice), await begin(alice)]
  await sessions.drop(gone)
  await sessions.drop('never begun')
  expect(await digests()).toEqual([kept])
})

describe('all of somebody’s sessions, and nobody else’s,', () => {
  let kept: string

  beforeEach(async () => {
    kept = await begin(bob)
    for (let index = 0; index < 3; index++) await begin(alice)
  })

  test('are revoked with their browsers, and counted without what is over', async () => {
    await begin(alice, now - 1)
    const token = await browsers.create(alice, now)
    const other = await browsers.create(bob, now)
    const atMs = now - 1 + sessionMs
    expect(await sessions.revoke(alice, atMs)).toEqual({ sessions: 3, browsers: 1 })
    expect(await digests()).toEqual([kept])
    expect(await browsers.find(token, now)).toBeUndefined()
    expect(await browsers.find(other, now)).toBe(bob)
    expect(await sessions.revoke(alice, atMs)).toEqual({ sessions: 0, browsers: 0 })
  })

  test('end with the membership, and do not come back with it', async () => {
    await leave(alice)
    expect(await digests()).toEqual([kept])
    await store.enroll(enrollmentOf(alice), '{}')
    expect(await digests()).toEqual([kept])
  })

  test('stay where the end of the membership fails', async () => {
    before = () => Promise.reject(new Error('the disk is full'))
    expect(await failureOf(leave(alice))).toMatchObject({ message: 'the disk is full' })
    expect(await digests()).toHaveLength(4)
  })

  test('end when the person turns inactive, and browsers stay signed in', async () => {
    const token = await browsers.create(alice, now)
    await enforce([bob])
    expect(await digests()).toEqual([kept])
    expect(await browsers.find(token, now)).toBe(alice)
    await enforce([alice, bob])
    expect(await digests()).toEqual([kept])
  })

  test('end when the person alone is looked at', async () => {
    await enforce([alice], bob)
    expect(await digests()).toHaveLength(3)
    await enforce([], alice)
    expect(await digests()).toEqual([])
  })

  test('stay with whoever enrolls again, or gets other boundaries', async () => {
    await store.enroll(enrollmentOf(alice), '{}')
    await store.setBoundaries(alice, ['did:web:stratos.test/a'])
    await enforce([alice, bob])
    expect(await digests()).toHaveLength(4)
  })
})

test.each([
  ['whose sessions are', 'did = 1'],
  ['what is over', '"expiresAtMs" <= 1'],
])('to find %s, not every session is looked at', async (_, condition) => {
  const text = `explain query plan delete from session where ${condition}`
  const [plan] = await sql.all<{ readonly detail: string }>(text)
  expect(plan?.detail).toStartWith('SEARCH session USING')
})

function sessionOf(did: typeof alice, atMs: number) {
  return { digest: crypto.randomUUID(), did, expiresAtMs: atMs + sessionMs }
}

/** @returns what the session is found by */
async function begin(did: typeof alice, atMs = now): Promise<string> {
  const session = sessionOf(did, atMs)
  expect(await sessions.create(session, atMs)).toBeTrue()
  return session.digest
}

async function digests(): Promise<string[]> {
  type Row = { readonly digest: string }
  const rows = await sql.all<Row>('select digest from session order by digest')
  return rows.map(({ digest }) => digest)
}

async function leave(did: typeof alice): Promise<void> {
  const numbers = { seq: 1, rev: parseTid('3jzfcijpj2z2a') }
  await store.leave({ did, numbers, keys: [], budget: undefined, nowMs: now })
}

async function enforce(dids: readonly string[], did?: typeof alice): Promise<void> {
  await store.enforce({ dids, pds: [], list: null }, did)
}
