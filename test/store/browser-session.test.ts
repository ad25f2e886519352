import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseDid } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import {
  BrowserSessions,
  browserSessionMs,
  browserSessionsMax,
  dropBrowserSessions,
} from '../../src/store/browser-session.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const now = Date.UTC(2026, 10, 23)
let sqlite: Sqlite
let sessions: BrowserSessions

beforeEach(async () => {
  const path = join(folder, `${crypto.randomUUID()}.sqlite`)
  sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  sessions = new BrowserSessions(sqlite)
})
afterEach(async () => {
  await sqlite.close()
})

test('nobody gets in with a token that was not given out, or with what stands in the table', async () => {
  await sessions.create(alice, now)
  const [row] = await sqlite.all<{ digest: string }>('select digest from browser_session')
  for (const token of ['', 'x'.repeat(43), row?.digest ?? '']) {
    expect(await sessions.find(token, now)).toBeUndefined()
  }
})

test('a token is 32 bytes that fit into a cookie, and stands nowhere in the table', async () => {
  const token = await sessions.create(alice, now)
  expect(token).toMatch(/^[\w-]{43}$/)
  expect(Buffer.from(token, 'base64url')).toHaveLength(32)
  const rows = await sqlite.all<object>('select digest, did, "expiresAtMs" from browser_session')
  expect(JSON.stringify(rows)).not.toContain(token)
})

test('a session lasts a day, to the millisecond', async () => {
  const token = await sessions.create(alice, now)
  expect(await sessions.find(token, now + browserSessionMs - 1)).toBe(alice)
  expect(await sessions.find(token, now + browserSessionMs)).toBeUndefined()
})

test('whoever signs in sweeps what has expired, of everybody', async () => {
  await sessions.create(alice, now)
  await sessions.create(bob, now + 1)
  await sessions.create(bob, now + browserSessionMs)
  expect(await count()).toBe(2)
})

test('with one browser more than a person may have, the first one goes, and nobody else’s', async () => {
  const others = await sessions.create(bob, now)
  const tokens: string[] = []
  for (let index = 0; index <= browserSessionsMax; index++) {
    tokens.push(await sessions.create(alice, now + index))
  }
  const [first = '', ...rest] = tokens
  expect(await sessions.find(first, now)).toBeUndefined()
  for (const token of rest) expect(await sessions.find(token, now)).toBe(alice)
  expect(await sessions.find(others, now)).toBe(bob)
})

test('of many browsers of one instant the latest is always kept', async () => {
  for (let index = 0; index < 3 * browserSessionsMax; index++) {
    const token = await sessions.create(alice, now)
    expect(await sessions.find(token, now)).toBe(alice)
  }
  expect(await count()).toBe(browserSessionsMax)
})

test('a dropped session is gone, and no other', async () => {
  const [gone, kept] = [await sessions.create(alice, now), await sessions.create(alice, now)]
  await sessions.drop(gone)
  await sessions.drop('never given out')
  expect(await sessions.find(gone, now)).toBeUndefined()
  expect(await sessions.find(kept, now)).toBe(alice)
})

test('all sessions of a person go at once, alone or as part of a larger change', async () => {
  const others = await sessions.create(bob, now)
  for (const dropAll of [
    () => sessions.dropAll(alice),
    () => sqlite.run([dropBrowserSessions(alice)]),
  ]) {
    await sessions.create(alice, now)
    await sessions.create(alice, now)
    await dropAll()
    expect(await count()).toBe(1)
    expect(await sessions.find(others, now)).toBe(bob)
  }
})

async function count(): Promise<number> {
  return (await sqlite.all('select digest from browser_session')).length
}
