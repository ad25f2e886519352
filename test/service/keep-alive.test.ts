import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { createLog } from '../../src/lib/log.ts'
import { KeepAlive } from '../../src/service/keep-alive.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import { accessTokenOf, Visitor } from '../remote/visitor.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const dayMs = 24 * 60 * 60_000

let sqlite: Sqlite
let store: ServiceStore
let visitor: Visitor
let log: string[]
let troubled: Did[]

beforeEach(async () => {
  const options = { synchronous: 'normal', cacheKib: 256, exclusive: true } as const
  sqlite = openSqlite(join(folder, `${crypto.randomUUID()}.sqlite`), options)
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  store = new ServiceStore(sqlite)
  visitor = new Visitor()
  visitor.store.get = (did) => store.oauthSession(did)
  visitor.store.set = (did, saved) => store.saveOauthSession(did, saved)
  visitor.store.delete = (did) => store.dropOauthSession(did)
  log = []
  troubled = []
})

afterEach(async () => {
  await visitor[Symbol.asyncDispose]()
  await sqlite.close()
})

/** @param inDays how far ahead the clock is */
function keepAlive(inDays: number, refresh = (did: Did) => visitor.oauth.refresh(did)) {
  return new KeepAlive({
    store,
    refresh,
    troubled: (did) => void troubled.push(did),
    now: () => Date.now() + inDays * dayMs,
    log: createLog('info', (line) => void log.push(line)),
  })
}

async function signedIn(): Promise<string> {
  const pending = await visitor.signIn()
  await pending.keep(() => store.saveOauthSession(pending.did, pending.saved))
  return accessTokenOf(pending.saved)
}

async function token(): Promise<string> {
  return accessTokenOf(await store.oauthSession(visitor.did))
}

describe('a session', () => {
  test('that was used within a week is left alone', async () => {
    const before = await signedIn()
    expect(await keepAlive(6.9).round()).toBe('done')
    expect(await token()).toBe(before)
    expect(log).toEqual([])
  })

  test('that was not is refreshed, and then is not due', async () => {
    const before = await signedIn()
    await keepAlive(7.1).round()
    expect(await token()).not.toBe(before)
    expect(visitor.server.tokenCalls).toHaveLength(2)
    await keepAlive(6.9).round()
    expect(visitor.server.tokenCalls).toHaveLength(2)
    expect(log.join()).not.toContain('SECRET')
  })

  test('that the PDS has revoked is forgotten', async () => {
    await signedIn()
    visitor.server.broken = { status: 400, error: 'invalid_grant' }
    expect(await keepAlive(8).round()).toBe('done')
    expect(await store.oauthSession(visitor.did)).toBeUndefined()
    expect(log.join()).toContain('oauth-session.lost')
    expect(troubled).toEqual([])
  })

  test('whose PDS is down is kept, and its account looked for', async () => {
    const before = await signedIn()
    await visitor.server[Symbol.asyncDispose]()
    expect(await keepAlive(8).round()).toBe('done')
    expect(await token()).toBe(before)
    expect(troubled).toEqual([visitor.did])
    expect(log.join()).not.toContain('"level":"error"')
  })
})

describe('of many sessions', () => {
  const dids = Array.from({ length: 120 }, (_, index) => parseDid(`did:web:${index}.test`))

  beforeEach(async () => {
    for (const did of dids) await store.saveOauthSession(did, '{}')
  })

  test('each round takes fifty, and failing ones hold up nobody', async () => {
    const asked: Did[] = []
    const kept = keepAlive(8, (did) => {
      asked.push(did)
      return Promise.reject(new Error('a fault'))
    })
    expect(await kept.round()).toBe('more')
    expect(asked).toHaveLength(50)
    expect(await kept.round()).toBe('more')
    expect(await kept.round()).toBe('done')
    expect(asked.toSorted()).toEqual(dids.toSorted())
    // From the beginning again.
    expect(await kept.round()).toBe('more')
    expect(asked.slice(120)).toEqual(asked.slice(0, 50))
  })

  test('no further one is begun after the end', async () => {
    const asked: Did[] = []
    const kept = keepAlive(8, async (did) => {
      asked.push(did)
      kept.stop()
    })
    await kept.round()
    expect(asked).toHaveLength(1)
  })
})
