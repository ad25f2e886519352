import { expect, test } from 'bun:test'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  rmSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { actorDatabasePath } from '../../src/store/actor-database.ts'
import { removeActorFolder } from '../../src/store/actor-folder.ts'
import { failureOf } from '../kit/wait.ts'
import { Journaled, openActor, recovered, storedKeys, type Writer } from './journaled.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()

test('where no journal is left, nothing is done', async () => {
  expect(await recovered(join(folder, 'nowhere'))).toEqual([])
})

test('an empty journal is removed', async () => {
  const { left } = await leftBehind(async () => undefined)
  await recovered(left)
  expect(journals(left)).toEqual([])
})

test('what the databases lack is stored, once, and the journals are removed', async () => {
  const { left, writers } = await leftBehind(async ([one, two]) => {
    await one.write('a')
    await one.seen()
    await Promise.all([one.write('b'), two.write('a')])
    await one.write('c')
  })
  const log = await recovered(left)
  expect(log).toHaveLength(1)
  expect(JSON.parse(log[0] ?? '')).toMatchObject({ event: 'journal.recovered', changes: 3 })
  expect(log.join('')).not.toContain(collectionOfText)
  expect(journals(left)).toEqual([])
  expect(writers.map(({ did }) => storedKeys(left, did))).toEqual([['a', 'b', 'c'], ['a']])
  expect(await recovered(left)).toEqual([])
})

test('what was cut short is taken up again by the next start', async () => {
  const { left, writers } = await leftBehind(async ([one, two]) => {
    await Promise.all([one.write('a'), two.write('a')])
    await Promise.all([one.write('b'), two.write('b')])
  })
  // As though the process had ended before the journals were removed.
  const kept = `${left}-kept`
  cpSync(join(left, 'journal'), kept, { recursive: true })
  await recovered(left)
  cpSync(kept, join(left, 'journal'), { recursive: true })
  expect(JSON.parse((await recovered(left))[0] ?? '')).toMatchObject({ changes: 0 })
  expect(writers.map(({ did }) => storedKeys(left, did))).toEqual([
    ['a', 'b'],
    ['a', 'b'],
  ])
})

test('of an actor who is gone nothing comes back', async () => {
  const { left, writers } = await leftBehind(async ([one, two]) => {
    await Promise.all([one.write('a'), two.write('a')])
  })
  const [gone, there] = writers
  removeActorFolder(left, gone.did)
  await recovered(left)
  expect(existsSync(actorDatabasePath(left, gone.did))).toBeFalse()
  expect(storedKeys(left, there.did)).toEqual(['a'])
})

test('a database older than the journal is refused until a newer one is there', async () => {
  const house = new Journaled(join(folder, crypto.randomUUID()))
  const [one, two] = [await house.writer(), await house.writer()]
  await one.write('a')
  await one.reopen()
  const backup = `${house.dataDir}.backup`
  copyFileSync(one.database, backup)
  await one.write('b')
  house.journal.wipe()
  await one.reopen()
  const newer = `${house.dataDir}.newer`
  copyFileSync(one.database, newer)
  await Promise.all([one.write('c'), two.write('a')])
  const left = house.copy()
  await house.close()

  const path = actorDatabasePath(left, one.did)
  rmSync(`${path}-wal`, { force: true })
  rmSync(`${path}-shm`, { force: true })
  copyFileSync(backup, path)
  const log = await recovered(left)
  expect(log[0]).toContain('ChangesDetached')
  expect(log[0]).toContain(one.did)
  expect(storedKeys(left, two.did)).toEqual(['a'])
  expect(await failureOf(openActor(left, one.did))).toMatchObject({
    message: expect.stringContaining('restore a newer backup'),
  })
  copyFileSync(newer, path)
  await (await openActor(left, one.did)).close()
  expect(storedKeys(left, one.did)).toEqual(['a', 'b', 'c'])
  expect(existsSync(join(dirname(path), 'unstored.json'))).toBeFalse()
})

test('what can neither be stored nor put aside stops the start, and stays', async () => {
  const { left, writers } = await leftBehind(async ([one]) => {
    one.refuse('a')
    await one.write('a')
  })
  const actor = dirname(actorDatabasePath(left, writers[0].did))
  const blocked = join(actor, 'unstored.json')
  mkdirSync(blocked)
  expect(await failureOf(recovered(left))).toBeInstanceOf(Error)
  expect(journals(left)).toHaveLength(2)
  rmdirSync(blocked)
  const log = await recovered(left)
  expect(log[0]).toContain('actor.changes.unstored')
  expect(readdirSync(actor)).toContain('unstored.json')
})

const collectionOfText = 'zone.stratos.feed.post'

/** The data folder as a kill left it after `work` of two actors. */
async function leftBehind(work: (writers: [Writer, Writer]) => Promise<void>) {
  const house = new Journaled(join(folder, crypto.randomUUID()))
  const writers: [Writer, Writer] = [await house.writer(), await house.writer()]
  await work(writers)
  const left = house.copy()
  await house.close().catch(() => undefined)
  return { left, writers }
}

function journals(dataDir: string): string[] {
  return readdirSync(join(dataDir, 'journal'))
}
