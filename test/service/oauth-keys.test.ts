import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { createLog } from '../../src/lib/log.ts'
import { ClientKeys, generateClientKey } from '../../src/remote/client-keys.ts'
import { OauthKeys } from '../../src/service/oauth-keys.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { OauthKeyStore } from '../../src/store/oauth-key.ts'
import { OauthStates } from '../../src/store/oauth-state.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const hourMs = 60 * 60_000

let sqlite: Sqlite
let store: OauthKeyStore
let sessions: ServiceStore
let states: OauthStates
let nowMs: number
let log: string[]

beforeEach(async () => {
  const options = { synchronous: 'normal', cacheKib: 256, exclusive: true } as const
  sqlite = openSqlite(join(folder, `${crypto.randomUUID()}.sqlite`), options)
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  store = new OauthKeyStore(sqlite)
  sessions = new ServiceStore(sqlite)
  states = new OauthStates(sqlite)
  nowMs = Date.now()
  log = []
})

afterEach(async () => {
  await sqlite.close()
})

/** As a start of the process finds them. */
function open(): Promise<OauthKeys> {
  const now = () => nowMs
  return OauthKeys.open({ store, now, log: createLog('info', (line) => void log.push(line)) })
}

function kidsOf(keys: OauthKeys): string[] {
  return keys.current.published.keys.map(({ kid }) => kid)
}

function session(kid: string): string {
  return JSON.stringify({ authMethod: { method: 'private_key_jwt', kid }, tokenSet: {} })
}

describe('keys', () => {
  test('are made once', async () => {
    const kids = kidsOf(await open())
    expect(kids).toHaveLength(2)
    expect(kidsOf(await open())).toEqual(kids)
  })

  test('are published without their private halves, which no log shows either', async () => {
    const keys = await open()
    await keys.rotate()
    const secrets = (await store.all()).map(({ jwk }) => String(JSON.parse(jwk).d))
    expect(secrets.every((secret) => secret.length > 40)).toBeTrue()
    const shown = JSON.stringify(keys.current.published) + log.join()
    for (const secret of secrets) expect(shown).not.toContain(secret)
    for (const key of keys.current.published.keys) {
      expect(Object.keys(key).toSorted()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'])
      expect(key).toMatchObject({ alg: 'ES256', crv: 'P-256', kty: 'EC', use: 'sig' })
    }
  })

  test('that cannot be read stop the start, without being quoted', async () => {
    const error = await failureOf(
      ClientKeys.import([{ kid: 'a1', jwk: '{"kty": "EC", "d": "SECRET' }]),
    )
    expect(error).toBeInstanceOf(Error)
    expect(Bun.inspect(error)).toContain('a1')
    expect(Bun.inspect(error)).not.toContain('SECRET')
  })
})

describe('a rotation', () => {
  test('takes into use what was published before, and publishes what comes next', async () => {
    const keys = await open()
    const [used, next] = kidsOf(keys)
    expect(await keys.rotate()).toBe(String(next))
    const after = kidsOf(keys)
    expect(after).toEqual([String(next), expect.any(String), String(used)])
    expect([used, next]).not.toContain(after[1])
    expect(kidsOf(await open())).toEqual(after)
  })

  test('is refused while PDSes may not have seen the next key, also right after another', async () => {
    const keys = await open()
    const [, next = ''] = kidsOf(keys)
    const refusal = { status: 400, error: 'KeyTooNew', headers: { 'retry-after': '900' } }
    const [first, second] = await Promise.all([keys.rotate(), failureOf(keys.rotate())])
    expect(first).toBe(next)
    expect(second).toMatchObject(refusal)
    const kids = kidsOf(keys)
    expect(kids).toHaveLength(3)
    nowMs += 15 * 60_000 - 1
    const later = { ...refusal, headers: { 'retry-after': '1' } }
    expect(await failureOf((await open()).rotate())).toMatchObject(later)
    nowMs += 1
    expect(await keys.rotate()).toBe(String(kids[1]))
  })

  test('is refused while sessions need too many former keys', async () => {
    const keys = await open()
    for (let count = 0; count < 20; count++) {
      await sessions.saveOauthSession(`did:web:${count}.test`, session(kidsOf(keys)[0] ?? ''))
      await keys.rotate()
      nowMs += 2 * hourMs
    }
    const before = kidsOf(keys)
    expect(await failureOf(keys.rotate())).toMatchObject({ status: 400, error: 'TooManyKeys' })
    expect(kidsOf(keys)).toEqual(before)
    await sessions.dropOauthSession('did:web:7.test')
    await keys.rotate()
    expect(kidsOf(keys)).toHaveLength(before.length)
  })
})

describe('a former key', () => {
  let keys: OauthKeys
  let former: string

  beforeEach(async () => {
    keys = await open()
    former = kidsOf(keys)[0] ?? ''
  })

  test('stays while a session has it, and is forgotten at the next start after that', async () => {
    await sessions.saveOauthSession('did:web:alice.test', session(former))
    await keys.rotate()
    nowMs += 1000 * hourMs
    expect(kidsOf(await open())).toContain(former)
    await sessions.dropOauthSession('did:web:alice.test')
    expect(kidsOf(await open())).not.toContain(former)
  })

  test('stays while a sign-in that began with it is under way', async () => {
    const value = JSON.stringify({ saved: session(former) })
    const state = { key: 'state', value, address: '127.0.0.1', nowMs }
    await states.save(state)
    await keys.rotate()
    nowMs += 2 * hourMs
    expect(kidsOf(await open())).toContain(former)
    await states.take('state')
    expect(kidsOf(await open())).not.toContain(former)
  })

  test('stays for an hour, when what began with it may not be stored yet', async () => {
    await keys.rotate()
    nowMs += hourMs - 1
    expect(kidsOf(await open())).toContain(former)
    nowMs += 2
    await keys.rotate()
    expect(kidsOf(keys)).not.toContain(former)
  })
})

test('the key in use and the next one are never forgotten', async () => {
  const kids = kidsOf(await open())
  nowMs += 100_000 * hourMs
  expect(kidsOf(await open())).toEqual(kids)
  expect(await store.dropUnused(nowMs)).toEqual([])
})

test('each key has a name of its own, fit to be searched for', async () => {
  const [one, other] = [await generateClientKey(), await generateClientKey()]
  expect(one.kid).toMatch(/^[0-9a-f]{32}$/)
  expect(one.kid).not.toBe(other.kid)
})
