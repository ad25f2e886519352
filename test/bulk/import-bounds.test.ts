import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { encode } from '../../src/atproto/cbor.ts'
import { checkDataObject } from '../../src/atproto/data.ts'
import { failureOf } from '../kit/wait.ts'
import { post } from '../service/posts.ts'
import { type Actor, House, kinds } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { importInto } from './arriving.ts'
import { dumpOf } from './dump.ts'
import { foreignPosts, keyOf, pathOf } from './foreign-posts.ts'
import { ForeignRepo } from './foreign-repo.ts'

const folder = temporaryFolder()
const mebibyte = 1024 * 1024

describe.each(kinds)('%s', (kind) => {
  let house: House
  let actor: Actor

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
    actor = await house.actor()
  })
  afterAll(async () => {
    await house.bulk.close()
    await house.pool.close()
  })

  test('a block that a tree names in many places counts in each', async () => {
    const record = post({ padding: 'x'.repeat(10_000) })
    checkDataObject(record)
    const repo = new ForeignRepo(actor.did)
    for (let index = 0; index < 100; index++) repo.put(pathOf(keyOf(index)), record)
    const car = repo.car()
    expect(car.length).toBeLessThan(40_000)
    const bytes = 100 * (encode(record).length + pathOf(keyOf(0)).length)
    const before = dumpOf(await actor.stored())
    for (const boundaryMap of [[], [['did:web:old.test/a', 'did:web:stratos.test/a'] as const]]) {
      const over = { car, boundaryMap, bytesMax: bytes - 1 }
      expect(await failureOf(importInto(house, actor, over))).toMatchObject({
        status: 413,
        error: 'PayloadTooLarge',
      })
      expect(dumpOf(actor.database)).toBe(before)
    }
    const other = await house.actor()
    const same = new ForeignRepo(other.did)
    for (let index = 0; index < 100; index++) same.put(pathOf(keyOf(index)), record)
    const imported = await importInto(house, other, { car: same.car(), bytesMax: bytes })
    expect(imported.records).toBe(100)
  })

  test('what was refused in the end is in no file', async () => {
    const secret = crypto.randomUUID()
    const records = foreignPosts(120, { padding: `${secret} ${'x'.repeat(100_000)}` })
    const bad = post({ text: secret, boundary: { values: [{ value: `${secret} of mine` }] } })
    const repo = new ForeignRepo(actor.did, { ...records, [pathOf('last')]: bad })
    const failure = await failureOf(importInto(house, actor, { car: repo.car() }))
    expect(failure).toMatchObject({ status: 400, error: 'ServiceMismatch' })
    expect(repo.car().length).toBeGreaterThan(10 * mebibyte)
    const names = readdirSync(actor.folder)
    expect(names).toContain('stratos.sqlite')
    for (const name of names) {
      const bytes = readFileSync(join(actor.folder, name))
      expect(bytes.includes(secret)).toBeFalse()
      expect(bytes.length).toBeLessThan(mebibyte)
    }
  })

  test('an import leaves no log of its size behind', async () => {
    const one = await house.actor()
    const records = foreignPosts(120, { padding: 'x'.repeat(100_000) })
    await importInto(house, one, { car: new ForeignRepo(one.did, records).car() })
    expect(statSync(one.database).size).toBeGreaterThan(10 * mebibyte)
    expect(statSync(`${one.database}-wal`).size).toBe(0)
    expect((await one.verified()).rkeys).toHaveLength(120)
  })
})
