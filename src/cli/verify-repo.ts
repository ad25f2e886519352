import { CarError } from '../atproto/car.ts'
import { type CarIndex, indexCar } from '../atproto/car-index.ts'
import { CborError, decode } from '../atproto/cbor.ts'
import { type CidBytes, cidToString, isRawCidBytes } from '../atproto/cid.ts'
import { type Commit, CommitError, decodeCommit, verifyCommit } from '../atproto/commit.ts'
import { KeyError } from '../atproto/keys.ts'
import { MstError } from '../atproto/mst-key.ts'
import { walkPartialTree } from '../atproto/mst-walk.ts'
import type { ByteSource } from '../lib/byte-source.ts'
import { CheckFailed, type Verdicts } from './verdicts.ts'

/** @throws CheckFailed, as all checks here do */
export function checkHashes(
  source: ByteSource,
  verdicts: Verdicts,
  tell: (text: string) => void,
): CarIndex {
  const steps = indexCar(source, limits)
  let told = 0
  for (;;) {
    const { done, value } = named('hashes', () => steps.next())
    if (done === true) {
      verdicts.held('hashes', `${counted(value.count, 'block')}, each what its CID names`)
      return value
    }
    if (value - told < progressBytes) continue
    told = value
    tell(`${Math.floor((100 * value) / source.size)} % of the blocks are compared ...`)
  }
}

export function checkCommit(index: CarIndex, verdicts: Verdicts): Commit {
  const commit = named('commit', () => decodeCommit(index.rootBlock()))
  const { did, rev, data } = commit
  verdicts.held('commit', `of ${did}, rev ${rev}, tree ${cidToString(data)}`)
  return commit
}

export function checkSignature(index: CarIndex, key: string, verdicts: Verdicts): void {
  if (!isSignedBy(index, key)) {
    throw new CheckFailed('signature', `expected one of the commit by ${key}`)
  }
  verdicts.held('signature', `of the commit by ${key}`)
}

/** Of a commit whose form was checked. */
export function isSignedBy(index: CarIndex, key: string): boolean {
  try {
    verifyCommit(index.rootBlock(), key)
    return true
  } catch (error) {
    if (error instanceof CommitError || error instanceof KeyError) return false
    throw error
  }
}

export interface Contents {
  readonly records: number
  readonly nodes: number
  /** Subtrees whose nodes are missing. */
  readonly gaps: number
  readonly present: number
  readonly missing: number
  /** Present, and no DAG-CBOR. */
  readonly malformed: number
}

/** Walks the tree, so far as it is there. */
export function readContents(index: CarIndex, root: CidBytes): Contents {
  const found = { records: 0, nodes: 0, gaps: 0, present: 0, missing: 0, malformed: 0 }
  const node = (cid: CidBytes) => {
    const bytes = index.block(cid)
    if (bytes !== undefined) found.nodes += 1
    return bytes
  }
  named('tree', () => {
    for (const part of walkPartialTree(root, node, limits)) {
      if ('missing' in part) {
        found.gaps += 1
        continue
      }
      found.records += 1
      const bytes = index.block(part.cid)
      if (bytes === undefined) found.missing += 1
      else if (isRecord(part.cid, bytes)) found.present += 1
      else found.malformed += 1
    }
  })
  return found
}

export function checkTree(found: Contents, lack: Lack, verdicts: Verdicts): void {
  const { records, nodes, gaps } = found
  const what = `${counted(records, 'record')} in ${counted(nodes, 'node')}`
  if (gaps > 0 && lack === 'nothing') {
    throw new CheckFailed('tree', `${what}, ${counted(gaps, 'subtree')} missing; see --partial`)
  }
  verdicts.held('tree', gaps > 0 ? `${what}, ${counted(gaps, 'subtree')} missing` : what)
}

export function checkContents(found: Contents, lack: Lack, verdicts: Verdicts): void {
  const { present, missing, malformed } = found
  const what = `${present} present, ${missing} missing`
  if (malformed > 0) throw new CheckFailed('contents', `${what}, ${malformed} no DAG-CBOR`)
  if (missing > 0 && lack === 'nothing') {
    const why = 'those of records taken down are withheld; see --partial'
    throw new CheckFailed('contents', `${what}: ${why}`)
  }
  verdicts.held('contents', what)
}

/** What a CAR may be without. */
export type Lack = 'nothing' | 'parts'

/** Whether a record is in the tree, by the nodes on the way to where it is or would be. */
export function checkRecord(
  index: CarIndex,
  place: { readonly root: CidBytes; readonly key: string },
  rules: { readonly lack: Lack; readonly verdicts: Verdicts },
): void {
  const { root, key } = place
  const found = named('tree', () => recordAt(index, root, key))
  if (found === 'unknown') {
    throw new CheckFailed('record', `whether ${key} is there is not shown: nodes are missing`)
  }
  if (found === 'absent') {
    rules.verdicts.held('record', `${key} is not there`)
    return
  }
  const bytes = index.block(found)
  const what = `${key} is there, ${cidToString(found)}`
  if (bytes === undefined && rules.lack === 'nothing') {
    throw new CheckFailed('record', `${what}, but its content is missing; see --partial`)
  }
  if (bytes !== undefined && !isRecord(found, bytes)) {
    throw new CheckFailed('record', `${what}, but its content is no DAG-CBOR`)
  }
  rules.verdicts.held(
    'record',
    `${what}, its content ${bytes === undefined ? 'missing' : 'present'}`,
  )
}

function recordAt(index: CarIndex, root: CidBytes, key: string): CidBytes | 'absent' | 'unknown' {
  let answer: CidBytes | 'absent' | 'unknown' | undefined
  let sinceGap = false
  // To the end, for the sake of what is wrong behind it.
  for (const part of walkPartialTree(root, (cid) => index.block(cid), limits)) {
    if ('missing' in part) {
      sinceGap = true
      continue
    }
    if (part.key === key) answer = part.cid
    if (part.key > key) answer ??= sinceGap ? 'unknown' : 'absent'
    sinceGap = false
  }
  return answer ?? (sinceGap ? 'unknown' : 'absent')
}

/** More than anybody writes by hand, and what this machine can bear: 22 bytes a block. */
const limits = {
  carBytesMax: 4 * 1024 ** 3,
  blockBytesMax: 64 * 1024 ** 2,
  blocksMax: 20_000_000,
  recordsMax: 10_000_000,
}
const progressBytes = 256 * 1024 ** 2

function isRecord(cid: CidBytes, bytes: Uint8Array): boolean {
  if (isRawCidBytes(cid)) return false
  try {
    decode(bytes)
    return true
  } catch (error) {
    if (error instanceof CborError) return false
    throw error
  }
}

/** The readers' errors are what their check found. */
function named<Result>(check: string, task: () => Result): Result {
  try {
    return task()
  } catch (error) {
    const kinds = [CarError, CborError, CommitError, MstError]
    if (!(error instanceof Error) || !kinds.some((kind) => error instanceof kind)) throw error
    throw new CheckFailed(check, error.message, { cause: error })
  }
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
