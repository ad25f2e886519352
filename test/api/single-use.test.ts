import { Secp256k1Keypair } from '@atproto/crypto'
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { join } from 'node:path'
import { ServiceAuth } from '../../src/api/service-auth.ts'
import { nobleK256 } from '../../src/atproto/k256.ts'
import { parseDid, parseNsid } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { Identities } from '../../src/remote/identity.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { UsedTokenStore } from '../../src/store/used-token.ts'
import { serviceToken } from '../kit/token.ts'
import { failureOf } from '../kit/wait.ts'
import { Directory, loopbackFetch } from '../remote/directory.ts'
import { temporaryFolder } from '../store/temporary.ts'

const aud = parseDid('did:web:stratos.test')
const lxm = parseNsid('zone.stratos.enrollment.unenroll')
const door = { nsid: lxm, tokens: 'single-use', address: '127.0.0.1' } as const
const now = Math.floor(Date.now() / 1000)
const path = join(temporaryFolder(), 'service.sqlite')
const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
const directory = new Directory()
const alice = await person()
const bob = await person()

beforeAll(async () => {
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
})
afterAll(async () => {
  await sqlite.close()
  await directory[Symbol.asyncDispose]()
})

test.each<[string, Claims, string]>([
  ['without a jti', { jti: undefined }, 'InvalidToken'],
  ['with an empty one', { jti: '' }, 'InvalidToken'],
  ['with one that is too long', { jti: 'x'.repeat(257) }, 'InvalidToken'],
  ['without iat', { iat: undefined }, 'InvalidToken'],
  ['older than five minutes', { iat: now - 310 }, 'ExpiredToken'],
])('a token %s is refused', async (_, claims, error) => {
  const token = await mint(alice, claims)
  expect(await failureOf(fresh().verify(token, door))).toMatchObject({ status: 401, error })
})

test('the second use is refused, also at the same time and after a restart', async () => {
  const auth = fresh()
  const token = await mint(alice)
  const both = await Promise.all([1, 2].map(() => failureOf(auth.verify(token, door))))
  expect(both.filter((error) => error === undefined)).toHaveLength(1)
  expect(await failureOf(fresh().verify(token, door))).toMatchObject({ error: 'InvalidToken' })
})

test('a forged token uses up nobody’s', async () => {
  const jti = crypto.randomUUID()
  const forged = await mint(alice, { jti }, bob.key)
  expect(await failureOf(fresh().verify(forged, door))).toMatchObject({ error: 'InvalidToken' })
  expect(await fresh().verify(await mint(alice, { jti }), door)).toBe(alice.did)
})

test('one whose times have fractions counts, and counts once', async () => {
  const auth = fresh()
  const token = await mint(alice, { iat: now + 0.1, exp: now + 60 + 1 / 3 })
  expect(await auth.verify(token, door)).toBe(alice.did)
  expect(await failureOf(auth.verify(token, door))).toMatchObject({ error: 'InvalidToken' })
})

test('the same jti of another issuer is another token', async () => {
  const jti = crypto.randomUUID()
  expect(await fresh().verify(await mint(alice, { jti }), door)).toBe(alice.did)
  expect(await fresh().verify(await mint(bob, { jti }), door)).toBe(bob.did)
})

test('where each token counts once, that holds for every method', async () => {
  const auth = fresh(true)
  const any = { ...door, tokens: 'any' } as const
  const token = await mint(alice)
  expect(await auth.verify(token, any)).toBe(alice.did)
  const error = await failureOf(auth.verify(token, any))
  expect(error).toMatchObject({ status: 401, error: 'InvalidToken' })
  const without = await mint(alice, { jti: undefined })
  expect(await failureOf(auth.verify(without, any))).toMatchObject({ error: 'InvalidToken' })
  expect(await fresh(false).verify(without, any)).toBe(alice.did)
})

test('a token for the stream is at most two minutes old, and counts once', async () => {
  const stream = { ...door, tokens: 'stream' } as const
  const old = await mint(alice, { iat: now - 130 })
  expect(await failureOf(fresh().verify(old, stream))).toMatchObject({ error: 'ExpiredToken' })
  const token = await mint(alice, { iat: now - 100 })
  expect(await fresh().verify(token, stream)).toBe(alice.did)
  expect(await failureOf(fresh().verify(token, stream))).toMatchObject({ error: 'InvalidToken' })
})

test('what can no longer be used is not remembered', async () => {
  const used = new UsedTokenStore(sqlite)
  const token = { digest: 'a', expiresAtMs: 1_000 }
  expect(await used.take({ ...token, nowMs: 999 })).toBeTrue()
  expect(await used.take({ ...token, nowMs: 1_000 })).toBeFalse()
  expect(await used.take({ ...token, digest: 'b', expiresAtMs: 2_000, nowMs: 1_001 })).toBeTrue()
  expect(await sqlite.all('select digest from used_token where digest = $1', 'a')).toEqual([])
})

test('to find what can be forgotten, not every used token is looked at', async () => {
  const sql = 'explain query plan delete from used_token where "expiresAtMs" < 1'
  const [plan] = await sqlite.all<{ readonly detail: string }>(sql)
  expect(plan?.detail).toStartWith('SEARCH used_token USING')
})

const plain = { k256: nobleK256, isKnown: async () => true }

type Claims = Readonly<Record<string, unknown>>

function fresh(serviceAuthSingleUse = false): ServiceAuth {
  const fetch = loopbackFetch
  const identities = new Identities({ plcUrl: directory.url, fetch, now: Date.now })
  const used = new UsedTokenStore(sqlite)
  const options = { serviceDid: aud, fragment: 'atproto_pns', identities, used, now: Date.now }
  return new ServiceAuth({ ...options, ...plain, serviceAuthSingleUse })
}

async function person() {
  const key = await Secp256k1Keypair.create()
  const did = directory.add({ didKey: key.did() })
  return { did, key, handle: 'someone.test', bearer: '' }
}

async function mint(by: typeof alice, claims: Claims = {}, key = by.key): Promise<string> {
  const sign = (bytes: Uint8Array) => key.sign(bytes)
  const made = { jti: crypto.randomUUID(), ...claims }
  return await serviceToken(by, { aud, lxm }, { claims: made, sign })
}
