import { afterAll, beforeEach, expect, test } from 'bun:test'

import { parseDid, parseTid } from '../../src/atproto/syntax.ts'
import { BoundKeys, boundKeyMs } from '../../src/store/bound-key.ts'
import { sharedSecret } from '../../src/store/secret.ts'
import { ServiceStore } from '../../src/store/service.ts'
import type { Sql } from '../../src/store/sql.ts'
import { enrollmentOf, serviceSql } from '../kit/service-store.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const bob = parseDid('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb')
const numbers = { seq: 1, rev: parseTid('3jzfcijpj2z2a') }
let sql: Sql
let keys: BoundKeys
let store: ServiceStore

beforeEach(async () => {
  await sql?.close()
  sql = await serviceSql(folder)
  keys = new BoundKeys(sql)
  store = new ServiceStore(sql)
  for (const did of [alice, bob]) await store.enroll(enrollmentOf(did), '{}')
})
afterAll(() => sql.close())

test('nobody but members binds keys', async () => {
  const stranger = parseDid('did:plc:cccccccccccccccccccccccc')
  expect(await keys.bind(stranger, 'a', 0)).toBeUndefined()
  expect(await keys.isBound(stranger, 'a', 0)).toBeFalse()
})

test('a key counts for its person, until it expires', async () => {
  const bound = { jkt: 'a', boundAtMs: 5, expiresAtMs: 5 + boundKeyMs }
  expect(await keys.bind(alice, 'a', 5)).toEqual(bound)
  expect(await keys.isBound(alice, 'a', 5 + boundKeyMs - 1)).toBeTrue()
  expect(await keys.isBound(alice, 'a', 5 + boundKeyMs)).toBeFalse()
  expect(await keys.isBound(alice, 'b', 5)).toBeFalse()
  expect(await keys.isBound(bob, 'a', 5)).toBeFalse()
  expect(await keys.all(alice, 5)).toEqual([bound])
  expect(await keys.all(alice, 5 + boundKeyMs)).toEqual([])
})

test('what expired is gone when the next key comes', async () => {
  await keys.bind(alice, 'a', 0)
  await keys.bind(bob, 'b', boundKeyMs)
  expect(await sql.all('select did, jkt from bound_key')).toEqual([{ did: bob, jkt: 'b' }])
})

test('binding again renews, and the first bound goes when there are too many', async () => {
  for (let index = 0; index < 10; index++) await keys.bind(alice, `key-${index}`, index)
  await keys.bind(bob, 'key-0', 0)
  await keys.bind(alice, 'key-0', 10)
  await keys.bind(alice, 'key-10', 10)
  const left = (await keys.all(alice, 11)).map(({ jkt }) => jkt)
  expect(left).toHaveLength(10)
  expect(left).not.toContain('key-1')
  expect(left).toContain('key-0')
  expect(await keys.isBound(bob, 'key-0', 11)).toBeTrue()
})

test('the newest stays also where others are of a time to come', async () => {
  for (let index = 0; index < 10; index++) await keys.bind(alice, `key-${index}`, 1000 + index)
  expect(await keys.bind(alice, 'now', 5)).toMatchObject({ jkt: 'now' })
})

test('keys end in the same step as the membership', async () => {
  await keys.bind(alice, 'a', 0)
  await keys.bind(bob, 'b', 0)
  await store.leave({ did: alice, numbers, keys: [], budget: undefined, nowMs: 0 })
  expect(await keys.isBound(alice, 'a', 0)).toBeFalse()
  expect(await keys.isBound(bob, 'b', 0)).toBeTrue()
  expect(await keys.bind(alice, 'a', 0)).toBeUndefined()
})

test('keys of the inactive end, of one and of all', async () => {
  await keys.bind(alice, 'a', 0)
  await keys.bind(bob, 'b', 0)
  const nobody = { dids: [], pds: [], list: null }
  await store.enforce(nobody, alice)
  expect(await keys.isBound(alice, 'a', 0)).toBeFalse()
  expect(await keys.isBound(bob, 'b', 0)).toBeTrue()
  await store.enforce(nobody)
  expect(await keys.isBound(bob, 'b', 0)).toBeFalse()
  expect(await keys.bind(bob, 'b', 0)).toBeUndefined()
  await store.enforce('everybody')
  expect(await keys.isBound(bob, 'b', 0)).toBeFalse()
  expect(await keys.bind(bob, 'b', 0)).toMatchObject({ jkt: 'b' })
})

test('a secret is made once, and is another under another name', async () => {
  const [one, two] = await Promise.all([sharedSecret(sql, 'a'), sharedSecret(sql, 'a')])
  expect(one).toEqual(two)
  expect(one).toHaveLength(32)
  expect(await sharedSecret(sql, 'b')).not.toEqual(one)
})
