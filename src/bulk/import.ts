import { indexCar, type CarIndex } from '../atproto/car-index.ts'
import { CarError } from '../atproto/car.ts'
import { CborError, decode } from '../atproto/cbor.ts'
import {
  type Cid,
  type CidBytes,
  CidError,
  cidToBytes,
  cidToString,
  isRawCidBytes,
} from '../atproto/cid.ts'
import { CommitError, decodeCommit } from '../atproto/commit.ts'
import { type DataObject, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import { MstError } from '../atproto/mst-key.ts'
import type { MstLeaf } from '../atproto/mst-node.ts'
import { walkTree } from '../atproto/mst-walk.ts'
import type { Did } from '../atproto/syntax.ts'
import { FileSource } from '../lib/byte-source.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/pause.ts'
import type { Targets } from '../service/targets.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { Head } from '../store/actor-change.ts'
import { actorDatabasePath } from '../store/actor-database.ts'
import { readActorKey } from '../store/actor-key.ts'
import { openSqlite, type Sqlite } from '../store/sqlite.ts'
import { ImportMoves } from './import-moves.ts'
import { ImportRows } from './import-rows.ts'
import type { ImportAsk, Imported } from './messages.ts'

interface Around {
  readonly dataDir: string
  readonly rules: WriteRules
  readonly schemas: Schemas
  readonly log: Log
  /** Gets the repo to write to, which nobody else does then. */
  readonly lend: () => Promise<Head>
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
    const commit = decodeCommit(contentOf(car, car.root))
    if (commit.did !== ask.did) throw new CarError(`this is the repo of ${commit.did}`)
    return await store({ car, root: commit.data, ask }, around, signal)
  } catch (error) {
    if (isMalformed(error)) throw new XrpcError(400, 'InvalidCar', error.message, { cause: error })
    throw error
  }
}

/** In steps, so that the other jobs of this thread go on. */
async function indexed(source: FileSource, signal: AbortSignal): Promise<CarIndex> {
  const steps = indexCar(source, { carBytesMax: source.size, blockBytesMax, blocksMax })
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
    await pause(signal)
  }
}

interface Foreign {
  readonly car: CarIndex
  /** Of its tree. */
  readonly root: CidBytes
  readonly ask: ImportAsk
}

async function store(foreign: Foreign, around: Around, signal: AbortSignal): Promise<Imported> {
  const { did } = foreign.ask
  const head = await around.lend()
  signal.throwIfAborted()
  const path = actorDatabasePath(around.dataDir, did)
  const sqlite = openSqlite(path, { synchronous: 'full', cacheKib, exclusive: false })
  try {
    sqlite.begin()
    const step = stepper(did, around.log, signal)
    const key = readActorKey(around.dataDir, did)
    const rows = new ImportRows({
      ...around,
      ...foreign,
      sqlite,
      head,
      key,
      nowMs: Date.now(),
      step,
    })
    if (foreign.ask.boundaryMap.length === 0) await keep(foreign, rows)
    else await move(foreign, rows, { sqlite, step })
    const imported = await rows.finish()
    signal.throwIfAborted()
    if (imported.records > 0) sqlite.commit()
    return imported
  } finally {
    sqlite.undo()
    await sqlite.close()
  }
}

async function keep({ car, root }: Foreign, rows: ImportRows): Promise<void> {
  for (const { key, cid } of leavesOf(car, root)) {
    const content = contentOf(car, cid)
    await rows.add(key, { cid, content, record: recordOf(content) })
  }
}

async function move(
  { car, root, ask }: Foreign,
  rows: ImportRows,
  { sqlite, step }: { readonly sqlite: Sqlite; readonly step: Step },
): Promise<void> {
  const { did, boundaryMap } = ask
  const content = (cid: Cid) => contentOf(car, cidToBytes(cid))
  const moves = new ImportMoves({ sqlite, did, map: new Map(boundaryMap), content })
  for (const { key, cid } of leavesOf(car, root)) {
    moves.add(key, cidToString(cid), recordOf(contentOf(car, cid)))
    await step('looked at')
  }
  for (const { key, cid } of leavesOf(car, root)) {
    await rows.addMoved(key, cid, moves.moved(recordOf(contentOf(car, cid))))
  }
}

function leavesOf(car: CarIndex, root: CidBytes): Iterable<MstLeaf> {
  return walkTree(root, (cid) => car.block(cid), { recordsMax })
}

function contentOf(car: CarIndex, cid: CidBytes): Uint8Array {
  if (isRawCidBytes(cid)) throw new CarError(`a record is no DAG-CBOR: ${cidToString(cid)}`)
  const bytes = car.block(cid)
  if (bytes === undefined) throw new CarError(`a block is missing: ${cidToString(cid)}`)
  // The next look into the CAR overwrites what this one gave.
  return bytes.slice()
}

function recordOf(content: Uint8Array): DataObject {
  const record = decode(content)
  if (!isDataObject(record)) throw new CarError('a record is no map')
  return record
}

export type Step = (what: string) => Promise<void>

/** To be awaited for every record: lets others go first now and then, and tells how far it is. */
function stepper(did: Did, log: Log, signal: AbortSignal): Step {
  let steps = 0
  let toldMs = performance.now()
  return async (what) => {
    if (++steps % stepsAtOnce !== 0) return
    await pause(signal)
    if (performance.now() - toldMs < tellEveryMs) return
    toldMs = performance.now()
    log.info('import.progress', { did, records: steps, what })
  }
}

function isMalformed(error: unknown): error is Error {
  const kinds = [CarError, CborError, CidError, CommitError, MstError]
  return kinds.some((kind) => error instanceof kind)
}

const recordsMax = 1_000_000
/** Of each record one, and of nodes at most as many. */
const blocksMax = 2 * recordsMax + 1
/** A record has a quarter of it at most; nodes are far smaller than records. */
const blockBytesMax = 1024 * 1024
/** Some two milliseconds. */
const stepsAtOnce = 50
const tellEveryMs = 5_000
const cacheKib = 8 * 1024
