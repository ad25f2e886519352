import { encodeCar } from '../../src/atproto/car.ts'
import { indexCar } from '../../src/atproto/car-index.ts'
import { CarError } from '../../src/atproto/car.ts'
import { CborError, decode, encode } from '../../src/atproto/cbor.ts'
import { type CidBytes, cidForCbor } from '../../src/atproto/cid.ts'
import { CommitError, signCommit, verifyCommit } from '../../src/atproto/commit.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { MstError } from '../../src/atproto/mst-key.ts'
import { walkTree } from '../../src/atproto/mst-walk.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { type ByteSource, MemorySource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'

const mebibyte = 1024 * 1024
export const repoLimits = {
  carBytesMax: 64 * mebibyte,
  blockBytesMax: 2 * mebibyte,
  blocksMax: 1_100_000,
  recordsMax: 1_000_000,
}
export const repoKey = SigningKey.import('01'.repeat(32))
export const repoDid = parseDid('did:plc:44ybard66vv44zksje25o7dz')

export interface Block {
  readonly cid: CidBytes
  readonly bytes: Uint8Array
}

export function blockOf(bytes: Uint8Array): Block {
  return { cid: cidForCbor(bytes), bytes }
}

/** A commit, and the blocks of a repo with so many records, in the order of an export. */
export function repoBlocks(count: number): readonly [commit: Block, ...rest: Block[]] {
  const records = new Map<string, Block>()
  for (let number = 0; number < count; number++) {
    const record = blockOf(encode({ $type: 'com.example.note', text: `note ${number}` }))
    records.set(`com.example.note/${number}`, record)
  }
  const tree = Mst.fromSorted(
    [...records]
      .map(([key, { cid }]) => [key, cid] as const)
      .toSorted(([a], [b]) => (a < b ? -1 : 1)),
  )
  const rest: Block[] = []
  for (const { cid, bytes, leaves } of tree.nodes()) {
    rest.push({ cid, bytes })
    for (const { key } of leaves) rest.push(records.get(key) ?? blockOf(bytes))
  }
  return [commitOf(tree.rootCid()), ...rest]
}

export function commitOf(data: CidBytes): Block {
  return signCommit({ did: repoDid, data, rev: nextTid({ nowMs: 0, clockId: 0 }) }, repoKey)
}

export function carOf(blocks: readonly [Block, ...Block[]]): Uint8Array {
  return encodeCar(blocks[0].cid, blocks)
}

/**
 * Reads all of a repo as somebody would who believes nothing.
 * @returns how many records it has, and of how many the content is missing
 */
export function readRepo(car: Uint8Array | ByteSource): { records: number; missing: number } {
  const source = car instanceof Uint8Array ? new MemorySource(car) : car
  const index = runSteps(indexCar(source, repoLimits))
  const { data } = verifyCommit(index.rootBlock(), repoKey.did)
  let records = 0
  let missing = 0
  for (const { cid } of walkTree(data, (cid) => index.block(cid), repoLimits)) {
    records += 1
    const bytes = index.block(cid)
    if (bytes === undefined) missing += 1
    else decode(bytes)
  }
  return { records, missing }
}

/** What reading may end with, whatever the bytes are. */
export function isNamed(error: unknown): boolean {
  return [CarError, MstError, CborError, CommitError].some((kind) => error instanceof kind)
}
