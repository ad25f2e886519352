import { beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Dice, timesOf, withDice } from './dice.ts'
import { contentsOf, type Cut, Disk } from './disk.ts'
import { record, type Recording } from './recording.ts'
import { complaintsOf } from './reopened.ts'
import { whyNotRecorded } from './trace.ts'

const cuts = timesOf('STRATOS_TEST_CUTS', 200)
const reason = await whyNotRecorded()
if (reason !== undefined) console.warn(`power cuts are not tried: ${reason}`)
const recordedTest = test.skipIf(reason !== undefined)

setDefaultTimeout(Math.max(120_000, cuts * 1_000))

const recordings: Recording[] = []

beforeAll(async () => {
  if (reason !== undefined) return
  for (const shards of ['2', '0']) {
    await withDice(async (dice) => {
      const env = { STRATOS_SHARDS: shards, STRATOS_ACTOR_HANDLES: String(dice.one([8, 256])) }
      recordings.push(await record(dice, env))
    })
  }
})

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

recordedTest('without syncs of files, or of folders, something is lost', async () => {
  for (const syncs of ['none', 'of files'] as const) {
    await withDice(async (dice) => {
      expect(await cutsWithLoss(dice, { names: 'by-folder', syncs })).toBeGreaterThan(0)
    })
  }
})

recordedTest('a service that does not sync each write is found out', async () => {
  await withDice(async (dice) => {
    const env = { STRATOS_SHARDS: '2', STRATOS_SQLITE_SYNCHRONOUS: 'normal' }
    const normal = await record(dice, env)
    const found = await cutsWithLoss(dice, { names: 'in-order', syncs: 'all', of: normal })
    expect(found).toBeGreaterThan(0)
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

/** Cuts the power somewhere, and starts the service on what is left. */
async function cutOnce(dice: Dice, { of, ...how }: How): Promise<string[]> {
  const recording = of ?? dice.one(recordings)
  // Just before something was begun or said, or just after.
  const line = dice.one(recording.moments) + dice.below(2)
  const disk = new Disk(recording.root, recording.ops)
  return await inFolder(async (folder) => {
    disk.rebuild(folder, { line, dice, ...how })
    const ledger = recording.ledgerAt(line)
    return await complaintsOf(folder, recording, { ledger, shards: dice.one([0, 2]) })
  })
}

async function inFolder<T>(task: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'stratos-cut-'))
  try {
    return await task(join(folder, 'data'))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
