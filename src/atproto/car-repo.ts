import type { CarIndex } from './car-index.ts'
import { CarError } from './car.ts'
import { CborError, decode } from './cbor.ts'
import { type CidBytes, CidError, cidToString, isRawCidBytes } from './cid.ts'
import { type Commit, CommitError, decodeCommit } from './commit.ts'
import { type DataObject, isDataObject } from './data.ts'
import { MstError } from './mst-key.ts'
import { walkTree } from './mst-walk.ts'
import { type Did, type RecordPlace, recordPlace } from './syntax.ts'

/** What the tree of a repo says of one record. */
export interface RepoLeaf {
  /** `collection/rkey` */
  readonly path: string
  readonly place: RecordPlace
  readonly cid: CidBytes
}

/**
 * The commit of a CAR of somebody's repo. Its signature is not looked at.
 * @throws CarError where it is somebody else's, as all functions here do, or CommitError
 */
export function repoCommit(car: CarIndex, did: Did): Commit {
  const commit = decodeCommit(blockOf(car, car.root))
  if (commit.did !== did) throw new CarError(`this is the repo of ${commit.did}`)
  return commit
}

/**
 * The records that a commit names, in the order of their keys. What was given counts once the walk
 * has come to its end without an error.
 * @throws MstError
 */
export function* repoLeaves(car: CarIndex, { did, data }: Commit): Generator<RepoLeaf, void> {
  for (const { key: path, cid } of walkTree(data, (one) => car.block(one), { recordsMax })) {
    const place = recordPlace(`at://${did}/${path}`)
    if (place === undefined) throw new MstError(`a key is none of a record: ${path}`)
    yield { path, place, cid }
  }
}

/** A block that must be there. */
export function blockOf(car: CarIndex, cid: CidBytes): Uint8Array {
  const block = blockIfThere(car, cid)
  if (block === undefined) throw new CarError(`a block is missing: ${cidToString(cid)}`)
  return block
}

/** A commit or record; a copy, as the next look into the CAR overwrites what one gave. */
export function blockIfThere(car: CarIndex, cid: CidBytes): Uint8Array | undefined {
  if (isRawCidBytes(cid)) throw new CarError(`a record is no DAG-CBOR: ${cidToString(cid)}`)
  return car.block(cid)?.slice()
}

/** @throws CborError, too */
export function decodeRecord(content: Uint8Array): DataObject {
  const record = decode(content)
  if (!isDataObject(record)) throw new CarError('a record is no map')
  return record
}

/** Whether a CAR is to blame, and not who reads it. */
export function isMalformed(error: unknown): error is Error {
  const kinds = [CarError, CborError, CidError, CommitError, MstError]
  return kinds.some((kind) => error instanceof kind)
}

/** An error to throw instead: one that a CAR is to blame for then names the record. */
export function malformedAt(path: string, error: unknown): unknown {
  if (!isMalformed(error)) return error
  return new CarError(`${path}: ${error.message}`, { cause: error })
}

const recordsMax = 1_000_000
export const repoLimits = {
  /** Of each record one, and of nodes at most as many. */
  blocksMax: 2 * recordsMax + 1,
  /** A record has a quarter of it at most; nodes are far smaller than records. */
  blockBytesMax: 1024 * 1024,
} as const
