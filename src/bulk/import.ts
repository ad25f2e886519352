import { indexCar, type CarIndex } from '../atproto/car-index.ts'
import {
  blockOf,
  decodeRecord,
  isMalformed,
  malformedAt,
  repoCommit,
  repoLeaves,
  repoLimits,
} from '../atproto/car-repo.ts'
import { cidToBytes, cidToString } from '../atproto/cid.ts'
import type { Commit } from '../atproto/commit.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Did } from '../atproto/syntax.ts'
import { FileSource } from '../lib/byte-source.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/pause.ts'
import type { Targets } from '../service/targets.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { Head } from '../store/actor-change.ts'
import { actorDatabasePath } from '../store/actor-database.ts'
import { readActorKey } from '../store/actor-key.ts'
import { openSqlite } from '../store/sqlite.ts'
import { ImportMoves } from './import-moves.ts'
import { type Arriving, ImportRows } from './import-rows.ts'
import type { ImportAsk, Imported } from './messages.ts'

interface Around {
  readonly dataDir: string
  readonly rules: WriteRules
  readonly schemas: Schemas
  readonly log: Log
  /** Gets the repo to write to, which nobody else does then. */
  readonly lend: () => Promise<{ readonly head: Head; readonly vouched: number }>
  /** Boundaries of those of some records of others that the person may see. */
  readonly targets: (uris: readonly string[]) => Promise<Targets>
}

/**
 * Fills an empty repo with the records of a CAR: all of them, in one transaction, or none. Nothing
 * is believed: hashes, tree and records are checked here, and the commit is signed anew.
 * @throws XrpcError 400 InvalidCar, or that of the first record that breaks a rule
 */
export async function importRepo(
  ask: ImportAsk,
  around: Around,
  signal: AbortSignal,
): Promise<Imported> {
  using source = new FileSource(ask.path)
  try {
    const car = await indexed(source, signal)
    return await store({ car, commit: repoCommit(car, ask.did), ask }, around, signal)
  } catch (error) {
    if (isMalformed(error)) throw new XrpcError(400, 'InvalidCar', error.message, { cause: error })
    throw error
  }
}

/** In steps, so that the other jobs of this thread go on. */
async function indexed(source: FileSource, signal: AbortSignal): Promise<CarIndex> {
  const steps = indexCar(source, { carBytesMax: source.size, ...repoLimits })
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
    await pause(signal)
  }
}

interface Foreign {
  readonly car: CarIndex
  readonly commit: Commit
  readonly ask: ImportAsk
}

async function store(foreign: Foreign, around: Around, signal: AbortSignal): Promise<Imported> {
  const { did } = foreign.ask
  const lent = await around.lend()
  signal.throwIfAborted()
  const path = actorDatabasePath(around.dataDir, did)
  const sqlite = openSqlite(path, openOptions)
  try {
    sqlite.begin()
    const step = stepper(did, around.log, signal)
    const key = readActorKey(around.dataDir, did)
    const nowMs = Date.now()
    const { ask, commit } = foreign
    const parts = { ask, root: commit.data, sqlite, key, nowMs, step }
    const rows = new ImportRows({ ...around, ...lent, ...parts })
    if (foreign.ask.boundaryMap.length === 0) await keep(foreign, rows)
    else await move(foreign, rows, step)
    const imported = await rows.finish()
    signal.throwIfAborted()
    if (imported.records > 0) sqlite.commit()
    return imported
  } finally {
    sqlite.undo()
    await sqlite.close()
    await emptyLog(path, around.log)
  }
}

/**
 * All of an import goes through the log of the database, which stays as large as it became: it must
 * not fill the disk, nor keep what was refused.
 */
async function emptyLog(path: string, log: Log): Promise<void> {
  const sqlite = openSqlite(path, openOptions)
  try {
    await sqlite.scrub()
  } catch (error) {
    // The import is stored, or undone, all the same.
    log.error('import.log.left', { path, error })
  } finally {
    await sqlite.close()
  }
}

async function keep(foreign: Foreign, rows: ImportRows): Promise<void> {
  for (const one of arriving(foreign)) await rows.add(one)
}

async function move(foreign: Foreign, rows: ImportRows, step: Step): Promise<void> {
  const { car, ask } = foreign
  await using moves = new ImportMoves({
    path: `${ask.path}.moves`,
    did: ask.did,
    map: new Map(ask.boundaryMap),
    record: (cid) => decodeRecord(blockOf(car, cidToBytes(cid))),
    step: () => step('moved'),
  })
  for (const { path, cid, record } of arriving(foreign)) {
    moves.add(path, cidToString(cid), record)
    await step('looked at')
  }
  for (const one of arriving(foreign)) await rows.addMoved(one, await moves.moved(one.record))
}

/**
 * The records of the tree, in its order. A CAR has a block once that its tree may name in a million
 * places, so all of them together are bounded, too.
 */
function* arriving({ car, commit, ask }: Foreign): Generator<Arriving> {
  let bytes = 0
  for (const leaf of repoLeaves(car, commit)) {
    const { path, cid } = leaf
    try {
      const content = blockOf(car, cid)
      bytes += path.length + content.length
      if (bytes > ask.bytesMax) throw tooLarge(ask.bytesMax)
      yield { ...leaf, content, record: decodeRecord(content) }
    } catch (error) {
      throw malformedAt(path, error)
    }
  }
}

export type Step = (what: string) => Promise<void>

/** To be awaited for every record: lets others go first now and then, and tells how far it is. */
function stepper(did: Did, log: Log, signal: AbortSignal): Step {
  let steps = 0
  let pausedMs = performance.now()
  let toldMs = pausedMs
  return async (what) => {
    steps += 1
    const nowMs = performance.now()
    if (nowMs - pausedMs < stepsMsMax) return
    await pause(signal)
    pausedMs = performance.now()
    if (nowMs - toldMs < tellEveryMs) return
    toldMs = nowMs
    log.info('import.progress', { did, records: steps, what })
  }
}

/** Records have any size, so that only the time tells how long others wait. */
const stepsMsMax = 4
const tellEveryMs = 5_000
const openOptions = { synchronous: 'full', cacheKib: 8 * 1024, exclusive: false } as const

function tooLarge(bytesMax: number): XrpcError {
  const message = `all records together must not be larger than ${bytesMax} bytes`
  return new XrpcError(413, 'PayloadTooLarge', message)
}
