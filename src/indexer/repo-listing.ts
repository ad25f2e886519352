import { CborError, encode } from '../atproto/cbor.ts'
import { cidForCbor, cidToString } from '../atproto/cid.ts'
import { checkDataObject, DataError } from '../atproto/data.ts'
import { type Did, isTid, recordPlace, type Tid } from '../atproto/syntax.ts'
import type { BackfillPage } from './backfill.ts'
import type { PutOp } from './post-row.ts'
import { BadAnswer, type ServiceCalls } from './service-calls.ts'

/** Where a repo stands. */
export interface RepoStart {
  /** Cursor from which the stream goes on. */
  readonly seq: number
  /** Of its last commit; told to those who see all of it. */
  readonly rev: Tid | undefined
}

/** @throws as `repoPages` does */
export async function repoStart(did: Did, calls: ServiceCalls): Promise<RepoStart> {
  const params = { did, limit: '1', excludeValues: 'true' }
  const { seq, rev } = readPage(await calls.ask({ lxm: listRepoOps, params }))
  return { seq, rev }
}

/**
 * The records that are there now, by the list of them; one that changes meanwhile may be left out,
 * and is told by the stream.
 * @see lexicon zone.stratos.sync.listRepoOps
 */
export async function* listedPages(
  did: Did,
  calls: ServiceCalls,
): AsyncGenerator<BackfillPage, void> {
  let cursor: string | undefined
  let count = 0
  do {
    const params = { did, limit: String(pageOps), ...(cursor === undefined ? {} : { cursor }) }
    const page = readPage(await calls.ask({ lxm: listRepoOps, params }))
    count += page.ops.length
    if (count > opsMax || (page.ops.length === 0 && page.cursor !== undefined)) {
      throw new BadAnswer(`the list of ${did} does not end`)
    }
    yield { records: page.ops.flatMap((op) => recordOf(did, op) ?? []), seq: page.seq }
    cursor = page.cursor
  } while (cursor !== undefined)
}

const listRepoOps = 'zone.stratos.sync.listRepoOps'
const pageOps = 500
/** As many records as the export of a repo may have. */
const opsMax = 1_000_000

interface Page extends RepoStart {
  readonly ops: readonly unknown[]
  readonly cursor: string | undefined
}

function readPage(answer: object): Page {
  const { ops, seq, cursor, commit } = membersOf(answer)
  const isSeq = typeof seq === 'number' && Number.isSafeInteger(seq) && seq >= 0
  const isCursor = cursor === undefined || typeof cursor === 'string'
  if (!Array.isArray(ops) || ops.length > pageOps || !isSeq || !isCursor) {
    throw new BadAnswer(`${listRepoOps} answered something else than a page`)
  }
  const { rev } = membersOf(commit)
  return { ops, seq, cursor, rev: typeof rev === 'string' && isTid(rev) ? rev : undefined }
}

/** Undefined of what is withheld, or no longer there. */
function recordOf(did: Did, op: unknown): PutOp | undefined {
  const { collection, rkey, cid, value } = membersOf(op)
  const place = recordPlace(`at://${did}/${String(collection)}/${String(rkey)}`)
  if (place === undefined) throw new BadAnswer(`the list of ${did} has a record without a name`)
  if (cid === null || value === undefined) return undefined
  const path = `${place.collection}/${place.rkey}`
  try {
    checkDataObject(value)
    const content = encode(value)
    const found = cidToString(cidForCbor(content))
    if (found !== cid) throw new BadAnswer(`${path} of ${did} is not what its CID names`)
    const { collection, rkey } = place
    return { action: 'create', collection, rkey, cid: found, content, record: value }
  } catch (error) {
    if (!(error instanceof DataError) && !(error instanceof CborError)) throw error
    throw new BadAnswer(`${path} of ${did} is no record`, { cause: error })
  }
}

function membersOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value))
    : {}
}
