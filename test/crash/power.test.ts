import { beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Dice, timesOf, withDice } from './dice.ts'
import { contentsOf, type Cut, Disk } from './disk.ts'
import { record, type Recording } from './recording.ts'
import { recordStart } from './recovery.ts'
import { anySettings, complaintsOf } from './reopened.ts'
import { whyNotRecorded } from './trace.ts'

const cuts = timesOf('STRATOS_TEST_CUTS', 200)
const reason = await whyNotRecorded()
if (reason !== undefined) console.warn(`power cuts are not tried: ${reason}`)
const recordedTest = test.skipIf(reason !== undefined)

setDefaultTimeout(Math.max(120_000, cuts * 1_000))

/** Of services that sync each write. */
let recordings: Recording[] = []
/** Of one that does not. */
let careless: Recording

beforeAll(async () => {
  if (reason !== undefined) return
  const begun = [
    recordWith({ STRATOS_SHARDS: '2' }),
    // Whatever is used in turns has its turn after so much. Every delivery of a stub brings a
    // database to disk: here there are nearly none.
    recordWith({ STRATOS_SHARDS: '0', STRATOS_OUTBOX_POINTS_PER_HOUR: '20' }, 18 * 1024 * 1024),
    recordWith({ STRATOS_SHARDS: '2', STRATOS_SQLITE_SYNCHRONOUS: 'normal' }),
  ] as const
  // Where one fails the others have still to end what they started.
  await Promise.allSettled(begun)
  recordings = [await begun[0], await begun[1]]
  careless = await begun[2]
})

function recordWith(env: Readonly<Record<string, string>>, bytesLeast = 0): Promise<Recording> {
  return withDice((dice) => {
    // With few handles databases are closed and opened again all the time, and small files take turns.
    const sizes = {
      STRATOS_ACTOR_HANDLES: String(dice.one([8, 256])),
      STRATOS_JOURNAL_BYTES: String(dice.one([65_536, 8_388_608])),
    }
    return record(dice, { env: { ...sizes, ...env }, bytesLeast })
  })
}

recordedTest('a recording is complete: done without a cut it gives what is there', async () => {
  await withDice(async (dice) => {
    for (const recording of recordings) {
      const disk = new Disk(recording.root, recording.ops)
      await inFolder(async (folder) => {
        disk.rebuild(folder, {
          line: Infinity,
          dice,
          names: 'by-folder',
          syncs: 'all',
          luck: 'all',
        })
        expect(contentsOf(folder)).toEqual(new Map(recording.final))
      })
    }
  })
})

recordedTest('over many power cuts nothing acknowledged is lost and all verifies', async () => {
  await withDice(async (dice) => {
    for (let count = 0; count < cuts; count++) {
      const names = dice.one(['by-folder', 'in-order'] as const)
      expect(await cutOnce(dice, { names, syncs: 'all' })).toEqual([])
    }
  })
})

recordedTest('nor is it when power goes again while the service recovers', async () => {
  await withDice(async (dice) => {
    for (let count = 0; count < cuts / 40; count++) await cutTwice(dice)
  })
})

recordedTest('without syncs of files, or of folders, something is lost', async () => {
  for (const syncs of ['none', 'of files'] as const) {
    await withDice(async (dice) => {
      expect(await cutsWithLoss(dice, { names: 'by-folder', syncs })).toBeGreaterThan(0)
    })
  }
})

recordedTest('a service that does not sync each write is found out', async () => {
  await withDice(async (dice) => {
    const how = { names: 'in-order', syncs: 'all', of: careless } as const
    expect(await cutsWithLoss(dice, how)).toBeGreaterThan(0)
  })
})

/** Of a few cuts, how many lose something. */
async function cutsWithLoss(dice: Dice, how: How): Promise<number> {
  let found = 0
  for (let count = 0; count < 10; count++) {
    const complaints = await cutOnce(dice, how)
    if (complaints.length > 0) found += 1
  }
  return found
}

type How = Pick<Cut, 'names' | 'syncs'> & { readonly of?: Recording }

/** Cuts the power while it recovers from a cut, at some moments. */
async function cutTwice(dice: Dice): Promise<void> {
  const recording = dice.one(recordings)
  const line = lineOf(dice, recording)
  const ledger = recording.ledgerAt(line)
  const how = { dice, names: dice.one(['by-folder', 'in-order'] as const), syncs: 'all' } as const
  await inFolder(async (before) => {
    new Disk(recording.root, recording.ops).rebuild(before, { line, ...how })
    const start = await recordStart(before, recording, dice)
    const disk = new Disk(start.root, start.ops, before)
    for (let again = 0; again < 4; again++) {
      await inFolder(async (folder) => {
        const second = dice.one(start.ops).start + dice.below(2)
        disk.rebuild(folder, { line: second, ...how })
        const settings = anySettings(dice)
        expect(await complaintsOf(folder, recording, { ledger, ...settings })).toEqual([])
      })
    }
  })
}

/** Just before something was begun or said, or just after. */
function lineOf(dice: Dice, { moments }: Recording): number {
  return dice.one(dice.oneIn(2) ? moments.all : dice.one(moments.news)) + dice.below(2)
}

/** Cuts the power somewhere, and starts the service on what is left. */
async function cutOnce(dice: Dice, { of, ...how }: How): Promise<string[]> {
  const recording = of ?? dice.one(recordings)
  const line = lineOf(dice, recording)
  const disk = new Disk(recording.root, recording.ops)
  return await inFolder(async (folder) => {
    disk.rebuild(folder, { line, dice, ...how })
    const ledger = recording.ledgerAt(line)
    const complaints = await complaintsOf(folder, recording, { ledger, ...anySettings(dice) })
    const where = `at ${line} of ${recording.moments.all.at(-1)}, names ${how.names}`
    return complaints.length === 0 ? [] : [where, ...complaints]
  })
}

/** What a cut left is read and written as much as a disk would allow, and never needed again. */
const inMemory = '/dev/shm'

async function inFolder<T>(task: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(existsSync(inMemory) ? inMemory : tmpdir(), 'stratos-cut-'))
  try {
    return await task(join(folder, 'data'))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
