import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { verifyRepoCar } from '@atproto/repo'
import { parseCid } from '../../src/atproto/cid.ts'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import type { ActorCall } from '../../src/service/calls.ts'
import { Engine } from '../../src/shard/engine.ts'
import type { View } from '../../src/store/actor.ts'
import { seedBoot } from '../kit/seed.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import {
  a,
  b,
  boundary,
  collection,
  createdAt,
  post,
  schemas,
  serviceDid,
} from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds } from './pools.ts'

const folder = temporaryFolder()
const otherCid = parseCid('bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq')

describe.each(kinds)('%s', (kind) => {
  let house: House
  let actor: Actor

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
    actor = await house.actor()
    await actor.create('one', { record: post({ text: 'one', boundary: boundary(a) }) })
    await actor.create('two', { record: post({ text: 'two', boundary: boundary(b) }) })
    await actor.create('three', { record: post({ text: 'three', boundary: boundary(a, b) }) })
  })

  afterAll(async () => {
    await house.pool.close()
  })

  test('a hidden record is answered like a missing one', async () => {
    const hidden = await read('two', { boundaries: [a] })
    expect(hidden).toEqual(await read('absent', { boundaries: [a] }))
    expect(hidden).toEqual(await read('two', { boundaries: [] }))
    expect(hidden.record).toBeNull()
  })

  test('a record that is another version than asked for is not there', async () => {
    const { record } = await read('one', 'all')
    const ask = { kind: 'read', collection, rkey: parseRkey('one'), view: 'all' } as const
    const asked = (cid = otherCid) => house.pool.call(actor.did, 'test', { ...ask, cid })
    expect((await asked()).record).toBeNull()
    expect((await asked(record?.cid)).record).toEqual(record)
  })

  test('a visible record comes with CID, value and the rev of the head', async () => {
    const { rev, record } = await read('three', { boundaries: [b] })
    expect(record).toEqual({
      uri: recordUri(actor.did, collection, parseRkey('three')),
      cid: record?.cid ?? otherCid,
      value: {
        ...post({ text: 'three', boundary: boundary(a, b) }),
        createdAt,
        salt: { $bytes: expect.any(String) },
      },
    })
    expect<string>(rev).toBe((await actor.verified()).rev)
  })

  test('a page ends with the key that the next one continues', async () => {
    const base = { kind: 'list', collection, limit: 1, order: 'descending' } as const
    const view = { boundaries: [a] }
    const page = (cursor?: string) => {
      const after = cursor === undefined ? undefined : parseRkey(cursor)
      return house.pool.call(actor.did, 'test', { ...base, view, cursor: after })
    }
    const [first, second, third] = [await page(), await page('three'), await page('one')]
    expect(first).toMatchObject({ last: 'three', records: [{ value: { text: 'three' } }] })
    // The second one is not shown, and neither does a cursor name it.
    expect(second).toMatchObject({ last: 'one', records: [{ value: { text: 'one' } }] })
    expect<object>(third).toEqual({ rev: first.rev, records: [] })
  })

  test('a repo too large for one answer is refused', async () => {
    const large = await house.actor()
    await large.create('one')
    {
      using database = new Database(large.database)
      database.run('insert into stratos_repo_block (id, content) values (99, zeroblob(33554432))')
    }
    expect(await failureOf(large.export())).toMatchObject({ status: 413, error: 'RepoTooLarge' })
  })

  function read(rkey: string, view: View) {
    const ask = { kind: 'read', collection, rkey: parseRkey(rkey), view } as const
    return house.pool.call(actor.did, 'test', ask)
  }
})

test('an export that starts at any moment of a write is one good repo', async () => {
  const dataDir = join(folder, 'moments')
  const made = await House.open('inline', dataDir)
  const { did, signingKey } = await made.actor()
  await made.pool.close()

  const cars = new Map<number, Uint8Array>()
  const engine = new Engine(seedBoot(dataDir, serviceDid), {
    schemas,
    log: createLog('silent', () => undefined),
    send: (message) => {
      if (typeof message !== 'string') cars.set(message.id, message.bytes)
    },
  })
  const call = (id: number, ask: ActorCall) =>
    engine.receive(JSON.stringify([{ id, did, requestId: 'test', ...ask }]))
  const op = { action: 'create', collection, record: post() } as const
  for (let moment = 0; moment < 40; moment++) {
    call(1_000 + moment, {
      kind: 'write',
      ops: [op],
      boundaries: [a],
      targets: {},
      stubs: [],
      takendown: [],
    })
    for (let step = 0; step < moment; step++) await Promise.resolve()
    call(moment, { kind: 'export', view: 'all' })
    const look = () => (cars.has(moment) ? true : undefined)
    await eventually('export', look, { withinMs: 2_000, everyMs: 0 })
  }
  await engine.close()
  for (const car of cars.values()) await verifyRepoCar(car, did, signingKey)
  expect(cars.size).toBe(40)
})
