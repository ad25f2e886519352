import { expect, test } from 'bun:test'
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { sweepAbandoned } from '../../src/service/sweep.ts'
import { newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering } from './delivering.ts'

const folder = temporaryFolder()
const hourMs = 3_600_000

test('only old folders of people who never came to be enrolled are removed', async () => {
  await using world = await Delivering.open(join(folder, 'data'))
  const enrolled = (await world.person()).actor.folder
  const started = (await world.house.actor()).folder
  const abandoned = (await world.house.actor()).folder
  for (const old of [enrolled, abandoned]) age(old, hourMs + 1_000)
  age(started, hourMs - 60_000)
  const other = join(folder, 'data', 'actors', 'ab', 'lost+found')
  mkdirSync(other, { recursive: true })
  age(other, hourMs * 24)
  const beside = join(folder, 'data', 'actors', 'ab', 'notes.txt')
  writeFileSync(beside, 'of the operator')

  const lines = await sweep(world)
  expect([enrolled, started, abandoned, other, beside].map((path) => existsSync(path))).toEqual([
    true,
    true,
    false,
    true,
    true,
  ])
  expect(lines).toHaveLength(1)
})

test('a folder with records and without a row is left, and the operator is told', async () => {
  await using world = await Delivering.open(join(folder, 'lost-row'))
  await world.person()
  const actor = await world.house.actor()
  await actor.create('one')
  await actor.stored()
  age(actor.folder, hourMs * 2)
  const lines = await sweep(world)
  expect(existsSync(actor.database)).toBeTrue()
  expect(lines).toHaveLength(1)
  expect(lines[0]).toContain('enrollment.row.missing')
  expect(lines[0]).toContain(actor.did)
})

test('where nobody is enrolled nothing is removed', async () => {
  await using world = await Delivering.open(join(folder, 'lost-store'))
  const { folder: kept } = await world.house.actor()
  age(kept, hourMs * 2)
  const lines = await sweep(world)
  expect(existsSync(kept)).toBeTrue()
  expect(lines[0]).toContain('restore service.sqlite')
})

test('a folder that a departure has yet to erase is left to it', async () => {
  await using world = await Delivering.open(join(folder, 'leaving'))
  await world.person()
  const { actor } = await world.person()
  const { numbers, keys } = await world.call(actor.did, 'test', { kind: 'leave' })
  const nowMs = Date.now()
  await world.store.leave({ did: actor.did, numbers, keys, budget: undefined, nowMs })
  age(actor.folder, hourMs * 2)
  expect(await sweep(world)).toEqual([])
  expect(existsSync(actor.folder)).toBeTrue()
})

test('one broken folder does not keep the others', async () => {
  await using world = await Delivering.open(join(folder, 'broken'))
  await world.person()
  const dids = ['did:web:alice.test', 'did:web:bob.test'].map(parseDid)
  const actors = await Promise.all(dids.map((did) => world.house.actor(did)))
  // Of two prefixes, in whatever order the file system gives them.
  const prefixes = readdirSync(join(folder, 'broken', 'actors'))
  const turn = ({ folder: path }: { folder: string }) => prefixes.indexOf(basename(dirname(path)))
  const [first, second] = actors.toSorted((one, other) => turn(one) - turn(other))
  await world.house.pool.close()
  writeFileSync(first?.database ?? '', 'no database')
  for (const actor of actors) age(actor.folder, hourMs * 2)
  const lines = await sweep(world)
  expect(lines.map((line) => line.includes('enrollment.abandoned.failed'))).toEqual([true, false])
  expect([existsSync(first?.folder ?? ''), existsSync(second?.folder ?? '')]).toEqual([true, false])
})

test('a data folder without actors is no error', async () => {
  await using world = await Delivering.open(join(folder, 'new'))
  expect(await sweep(world, join(folder, newDid()))).toEqual([])
  expect(existsSync(join(folder, 'new', 'actors'))).toBeFalse()
})

/** @returns what was logged */
async function sweep(world: Delivering, dataDir = world.house.dataDir): Promise<string[]> {
  const lines: string[] = []
  const { store, departures } = world
  const log = createLog('info', (line) => void lines.push(line))
  const inTurn = (_did: Did, task: () => Promise<void>) => task()
  await sweepAbandoned({ dataDir, store, departures, log, inTurn, stopped: () => false })
  return lines
}

function age(path: string, byMs: number): void {
  const seconds = (Date.now() - byMs) / 1000
  utimesSync(path, seconds, seconds)
}
