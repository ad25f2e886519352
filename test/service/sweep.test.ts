import { expect, test } from 'bun:test'
import { existsSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
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

test('a data folder without actors is no error', async () => {
  await using world = await Delivering.open(join(folder, 'new'))
  const log = createLog('silent', () => undefined)
  await sweepAbandoned(join(folder, newDid()), { store: world.store, log })
  expect(existsSync(join(folder, 'new', 'actors'))).toBeFalse()
})

/** @returns what was logged */
async function sweep({ house, store }: Delivering): Promise<string[]> {
  const lines: string[] = []
  const log = createLog('info', (line) => void lines.push(line))
  await sweepAbandoned(house.dataDir, { store, log })
  return lines
}

function age(path: string, byMs: number): void {
  const seconds = (Date.now() - byMs) / 1000
  utimesSync(path, seconds, seconds)
}
