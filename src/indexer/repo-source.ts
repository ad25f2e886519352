import {
  blockIfThere,
  decodeRecord,
  isMalformed,
  malformedAt,
  type RepoLeaf,
  repoCommit,
  repoLeaves,
  repoLimits,
} from '../atproto/car-repo.ts'
import { type CarIndex, indexCar } from '../atproto/car-index.ts'
import { cidToString } from '../atproto/cid.ts'
import type { Did } from '../atproto/syntax.ts'
import type { FileSource } from '../lib/byte-source.ts'
import { NamelessFile } from '../lib/nameless-file.ts'
import { pause } from '../lib/pause.ts'
import type { BackfillPage } from './backfill.ts'
import type { PutOp } from './post-row.ts'
import { listedPages, type RepoStart, repoStart } from './repo-listing.ts'
import { BadAnswer, ServiceCalls, type ServiceAccess, ServiceRefused } from './service-calls.ts'

/**
 * All records that a service has of one actor, as far as it shows them; a page at least.
 *
 * - Where the stream goes on is asked first, the export then: what changes in between is told by the
 *   stream once more, and nothing lies between the two.
 * - The export is put into a file first. Read as it comes, it would wait for the index, which the
 *   service does not bear for long; and records of one content share a block, which comes once.
 * - Nothing of it is believed but what the commit names: hashes, tree and records are checked. The
 *   service withholds what it took down: of each record that is not there it has to say so itself,
 *   or the export is a shortened one.
 *
 * An AppView of some boundaries alone gets no export; it is given the list of what it may see.
 * @throws RepoNotFound, ServiceBusy, ServiceRefused, BadAnswer, FetchFailed, FetchRefused; what was
 *   given before counts for nothing then
 * @see protocol.md, section 6
 */
export async function* repoPages(
  did: Did,
  access: ServiceAccess,
  { carBytesMax = carBytesMaxDefault }: { readonly carBytesMax?: number } = {},
): AsyncGenerator<BackfillPage, void> {
  const calls = new ServiceCalls(access)
  const start = await repoStart(did, calls)
  const file = await downloaded(did, calls, carBytesMax)
  if (file === undefined) {
    yield* listedPages(did, calls)
    return
  }
  using source = file
  try {
    yield* exportedPages({ did, source, start }, calls)
  } catch (error) {
    if (!isMalformed(error)) throw error
    throw new BadAnswer(`the export of ${did}: ${error.message}`, { cause: error })
  }
}

const getRepo = 'zone.stratos.sync.getRepo'
const getRecord = 'zone.stratos.repo.getRecord'
const carType = 'application/vnd.ipld.car'
/** Far above what a person writes in years; more would only fill the disk. */
const carBytesMaxDefault = 1024 ** 3
const pageRecords = 500
const pageBytes = 4 * 1024 * 1024
/** Records have any size, so that only the time tells how long others of this thread wait. */
const stepsMsMax = 4
/** Leaves that are kept until the service was asked about them. */
const missingMax = 64
const asksAtOnce = 8

/** Undefined where the service gives no whole repo to us, or none of this size. */
async function downloaded(
  did: Did,
  calls: ServiceCalls,
  bytesMax: number,
): Promise<FileSource | undefined> {
  using file = new NamelessFile()
  try {
    const call = { lxm: getRepo, params: { did }, type: carType, bytesMax }
    await calls.download(call, (bytes) => file.add(bytes))
  } catch (error) {
    if (error instanceof ServiceRefused && noExport.has(error.error)) return undefined
    throw error
  }
  return file.source()
}

const noExport: ReadonlySet<string> = new Set(['Forbidden', 'RepoTooLarge'])

interface Exported {
  readonly did: Did
  readonly source: FileSource
  readonly start: RepoStart
}

async function* exportedPages(
  { did, source, start }: Exported,
  calls: ServiceCalls,
): AsyncGenerator<BackfillPage, void> {
  const car = await indexed(source, calls.signal)
  const commit = repoCommit(car, did)
  if (start.rev !== undefined && commit.rev < start.rev) {
    throw new BadAnswer(`the export of ${did} is older than where the stream goes on`)
  }
  let records: PutOp[] = []
  let bytes = 0
  let missing: RepoLeaf[] = []
  let pausedMs = performance.now()
  for (const leaf of repoLeaves(car, commit)) {
    const record = recordAt(car, leaf)
    if (record === undefined) missing.push(leaf)
    else {
      records.push(record)
      bytes += record.content.length
    }
    if (missing.length === missingMax) {
      await checkWithheld(did, missing, calls)
      missing = []
    }
    if (records.length === pageRecords || bytes >= pageBytes) {
      yield { records, seq: start.seq }
      records = []
      bytes = 0
    }
    if (performance.now() - pausedMs < stepsMsMax) continue
    await pause(calls.signal)
    pausedMs = performance.now()
  }
  await checkWithheld(did, missing, calls)
  yield { records, seq: start.seq }
}

/** In steps, so that others of this thread go on. */
async function indexed(source: FileSource, signal: AbortSignal): Promise<CarIndex> {
  const steps = indexCar(source, { carBytesMax: source.size, ...repoLimits })
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
    await pause(signal)
  }
}

function recordAt(car: CarIndex, { path, place, cid }: RepoLeaf): PutOp | undefined {
  try {
    const content = blockIfThere(car, cid)
    if (content === undefined) return undefined
    const { collection, rkey } = place
    const record = decodeRecord(content)
    return { action: 'create', collection, rkey, cid: cidToString(cid), content, record }
  } catch (error) {
    throw malformedAt(path, error)
  }
}

/** @throws BadAnswer for a record that is shown, and was not in the export */
async function checkWithheld(
  did: Did,
  leaves: readonly RepoLeaf[],
  calls: ServiceCalls,
): Promise<void> {
  for (let at = 0; at < leaves.length; at += asksAtOnce) {
    const some = leaves.slice(at, at + asksAtOnce)
    const shown = await Promise.all(some.map((leaf) => isShown(did, leaf, calls)))
    const found = some.find((_, index) => shown[index])
    if (found !== undefined) throw new BadAnswer(`the export of ${did} lacks ${found.path}`)
  }
}

async function isShown(did: Did, { place, cid }: RepoLeaf, calls: ServiceCalls): Promise<boolean> {
  const { collection, rkey } = place
  try {
    const answer = await calls.ask({ lxm: getRecord, params: { repo: did, collection, rkey } })
    // Another one was written meanwhile, of which the stream tells.
    return Reflect.get(answer, 'cid') === cidToString(cid)
  } catch (error) {
    if (error instanceof ServiceRefused && error.error === 'RecordNotFound') return false
    throw error
  }
}
