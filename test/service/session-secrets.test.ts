import { afterEach, beforeEach, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { createLog } from '../../src/lib/log.ts'
import { SessionSecrets } from '../../src/service/session-secrets.ts'
import { SessionSecretStore } from '../../src/store/session-secret.ts'
import { sessionMs } from '../../src/store/session.ts'
import type { Sql } from '../../src/store/sql.ts'
import { serviceSql } from '../kit/service-store.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'

const start = Date.UTC(2026, 10, 23)
const root = temporaryFolder()
let folder: string
let sql: Sql
let nowMs: number
let log: string[]
let failing: 'nothing' | 'before' | 'after'

beforeEach(async () => {
  nowMs = start
  log = []
  failing = 'nothing'
  folder = await mkdtemp(join(root, 'secrets-'))
  const real = await serviceSql(folder)
  sql = {
    ...real,
    run: async (batch) => {
      if (failing === 'before') throw new Error('the disk is full')
      await real.run(batch)
      if (failing === 'after') throw new Error('nobody knows')
    },
  }
})
afterEach(async () => {
  await sql.close()
})

test('the first start makes a secret, and the next finds it', async () => {
  const { kid, secret } = (await open()).current
  expect(secret).toHaveLength(32)
  expect(kid).toMatch(/^[\w-]{12}$/)
  const again = await open()
  expect(again.current).toMatchObject({ kid })
  expect(again.find(kid)).toEqual(secret)
  expect(await kids()).toEqual([kid])
})

test('two services have different ones', async () => {
  const { secret } = (await open()).current
  await sql.run([{ sql: 'delete from session_secret', args: [] }])
  expect((await open()).current.secret).not.toEqual(secret)
})

test('a kid that was not given out names nothing', async () => {
  const secrets = await open()
  for (const kid of ['', 'x'.repeat(12), '__proto__']) expect(secrets.find(kid)).toBeUndefined()
})

test('after a rotation another one signs, and the one before counts for a session', async () => {
  const secrets = await open()
  const first = secrets.current
  const { kid, formerUntilMs } = await secrets.rotate()
  expect(formerUntilMs).toBe(start + sessionMs)
  expect(secrets.current.kid).toBe(kid)
  expect(kid).not.toBe(first.kid)
  expect(secrets.current.secret).not.toEqual(first.secret)
  nowMs = formerUntilMs - 1
  expect(secrets.find(first.kid)).toEqual(first.secret)
  expect((await open()).find(first.kid)).toEqual(first.secret)
  nowMs = formerUntilMs
  expect(secrets.find(first.kid)).toBeUndefined()
  expect(secrets.find(kid)).toBeDefined()
})

test('when its time is over a secret is erased, from the files, too', async () => {
  const secrets = await open()
  const { kid, secret } = secrets.current
  const next = await secrets.rotate()
  await secrets.eraseDue()
  expect(await kids()).toContain(kid)
  expect(inFiles(secret)).toBeTrue()
  nowMs += sessionMs
  await secrets.eraseDue()
  expect(await kids()).toEqual([next.kid])
  expect(inFiles(secret)).toBeFalse()
})

test('a start erases what became due while nothing ran', async () => {
  const secrets = await open()
  const next = await secrets.rotate()
  nowMs += sessionMs
  await open()
  expect(await kids()).toEqual([next.kid])
})

test('too many rotations are refused, with when to try again, and change nothing', async () => {
  const secrets = await open()
  for (let index = 0; index < 10; index++) {
    await secrets.rotate()
    nowMs += 1_000
  }
  const before = await kids()
  const used = secrets.current
  expect(await failureOf(secrets.rotate())).toMatchObject({
    status: 400,
    error: 'TooManySecrets',
    headers: { 'retry-after': String(sessionMs / 1000 - 10) },
  })
  expect(secrets.current).toBe(used)
  expect(await kids()).toEqual(before)
  for (const kid of before) expect(secrets.find(kid)).toBeDefined()
  nowMs = start + sessionMs
  await secrets.rotate()
  expect(await kids()).toHaveLength(11)
})

test('rotations at the same time follow each other', async () => {
  const secrets = await open()
  const first = secrets.current.kid
  const both = await Promise.all([secrets.rotate(), secrets.rotate()])
  expect(secrets.current.kid).toBe(both[1].kid)
  for (const kid of [first, both[0].kid]) expect(secrets.find(kid)).toBeDefined()
  expect(await kids()).toHaveLength(3)
})

test('a rotation that fails leaves the secret that the store has', async () => {
  const secrets = await open()
  const { kid } = secrets.current
  failing = 'before'
  expect(await failureOf(secrets.rotate())).toMatchObject({ message: 'the disk is full' })
  expect(secrets.current.kid).toBe(kid)
  failing = 'after'
  expect(await failureOf(secrets.rotate())).toMatchObject({ message: 'nobody knows' })
  expect(secrets.current.kid).not.toBe(kid)
  expect(secrets.find(kid)).toBeDefined()
  expect((await open()).current.kid).toBe(secrets.current.kid)
})

test('the store takes no second secret into use', async () => {
  await open()
  const second = { kid: 'second', secret: new Uint8Array(32) }
  const failure = await failureOf(new SessionSecretStore(sql).begin(second, nowMs))
  expect(failure).toMatchObject({ message: expect.stringContaining('UNIQUE') })
})

test('the log has kids and no secret', async () => {
  const secrets = await open()
  const all = [secrets.current]
  await secrets.rotate()
  all.push(secrets.current)
  nowMs += sessionMs
  await secrets.eraseDue()
  const text = log.join('\n')
  for (const { kid, secret } of all) {
    expect(text).toContain(kid)
    for (const encoding of ['hex', 'base64', 'base64url'] as const) {
      expect(text).not.toContain(Buffer.from(secret).toString(encoding))
    }
  }
})

function open(): Promise<SessionSecrets> {
  const store = new SessionSecretStore(sql)
  return SessionSecrets.open({
    store,
    now: () => nowMs,
    log: createLog('debug', (line) => void log.push(line)),
  })
}

async function kids(): Promise<string[]> {
  const rows = await sql.all<{ readonly kid: string }>('select kid from session_secret')
  return rows.map(({ kid }) => kid)
}

function inFiles(bytes: Uint8Array): boolean {
  const names = readdirSync(folder)
  expect(names.length).toBeGreaterThan(0)
  return names.some((name) => readFileSync(join(folder, name)).includes(bytes))
}
