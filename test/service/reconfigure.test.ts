import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { announceChanges } from '../../src/service/reconfigure.ts'
import { newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering } from './delivering.ts'
import { a, b, c } from './posts.ts'

const folder = temporaryFolder()
const base = {
  publicUrl: 'https://a.test',
  serviceKey: 'did:key:one',
  publishBoundaries: true,
  boundaries: [a, b, c],
}
let world: Delivering
let inA: Did
let inB: Did

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  inA = await member([a])
  inB = await member([b, c])
  await start({})
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('the same configuration makes nothing due and says nothing', async () => {
  expect(await start({})).toEqual([])
  expect(await world.store.recordsDue()).toEqual([])
})

test('a boundary that is gone is named, with how many people are in it', async () => {
  const lines = await start({ boundaries: [a, c] })
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { event: 'boundary.missing', boundary: b, members: 1 },
    { event: 'enrollment.records.due', changed: [b] },
  ])
  expect(await world.store.recordsDue()).toEqual([inB])
  // And again at each start, for as long as it is gone.
  expect(await start({ boundaries: [a, c] })).toHaveLength(1)
})

test('whoever follows memberships is told of those that came and went', async () => {
  const before = (await world.store.events(0, 100)).length
  await start({ boundaries: [b, c] })
  await start({ boundaries: [a, b, c] })
  const events = (await world.store.events(0, 100)).slice(before)
  expect(events.map(({ did, action }) => [did, action])).toEqual([
    [inA, 'enroll'],
    [inA, 'enroll'],
  ])
})

test.each([
  ['another public URL', { publicUrl: 'https://b.test' }],
  ['another key of the service', { serviceKey: 'did:key:two' }],
  ['hiding boundaries', { publishBoundaries: false }],
])('%s makes every record due', async (_, change) => {
  await start(change)
  expect((await world.store.recordsDue()).toSorted()).toEqual([inA, inB].toSorted())
})

async function start(change: Partial<typeof base>): Promise<string[]> {
  const lines: string[] = []
  const log = createLog('info', (line) => void lines.push(line))
  await announceChanges({ ...base, ...change }, { store: world.store, log })
  return lines
}

async function member(boundaries: readonly string[]): Promise<Did> {
  const did = newDid()
  const person = { did, signingKey: 'did:key:z', boundaries, pdsEndpoint: world.pds.url }
  const rest = { rkey: 'self', enrolledAt: new Date().toISOString(), scope: 'atproto' }
  await world.store.enroll({ ...person, ...rest }, '{}')
  return did
}
