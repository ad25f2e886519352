import { CborError, decode } from './cbor.ts'
import { type Cid, type CidBytes, cidToBytes, equalCids, parseCid } from './cid.ts'
import { type DataObject, type DataValue, isDataObject } from './data.ts'
import { checkKey, MstError } from './mst-key.ts'
import { Mst } from './mst.ts'

export interface MstReadInput {
  readonly root: Cid
  /** A block whose hash was compared with its CID, as `readCar` does. */
  readonly block: (cid: Cid) => Uint8Array | undefined
  readonly recordsMax: number
}

/**
 * The tree of somebody else's blocks, of which nothing is believed but their hashes.
 *
 * Keys are collected in order and the tree is built from them anew. A tree has one form only, so
 * that an equal root proves the shape of every node. The walk itself needs few rules to end: it
 * goes down at most as far as a root can be high, each key is above the one before, and no subtree
 * is without a record.
 * @throws MstError when a block is missing or anything is not as it must be
 */
export function readMst({ root, block, recordsMax }: MstReadInput): Mst {
  const entries: (readonly [key: string, cid: CidBytes])[] = []
  const visit = (cid: Cid, layersLeft: number): void => {
    if (layersLeft < 0) throw new MstError('the tree is deeper than its keys allow')
    const before = entries.length
    const node = parseNode(block(cid), cid)
    const below = layersLeft - 1
    if (node.left !== null) visit(node.left, below)
    let last = ''
    for (const { prefix, tail, value, right } of node.entries) {
      const key = last.slice(0, prefix) + tail
      // Here already: of prefixes, a small block could make very much text.
      checkKey(key)
      if (key <= (entries.at(-1)?.[0] ?? '')) throw new MstError('keys are not sorted and unique')
      if (entries.length >= recordsMax) throw new MstError(`more than ${recordsMax} records`)
      entries.push([key, value])
      last = key
      if (right !== null) visit(right, below)
    }
    if (entries.length === before && layersLeft < layersMax) {
      throw new MstError('a subtree has no record')
    }
  }
  visit(root, layersMax)
  const tree = Mst.fromSorted(entries)
  if (!equalCids(tree.rootCid(), cidToBytes(root))) {
    throw new MstError('the nodes are not those that a tree of these records has')
  }
  return tree
}

/** A SHA-256 has 128 pairs of bits. */
const layersMax = 128

interface ParsedNode {
  readonly left: Cid | null
  readonly entries: readonly ParsedEntry[]
}
interface ParsedEntry {
  readonly prefix: number
  readonly tail: string
  readonly value: CidBytes
  readonly right: Cid | null
}

/** Only what is needed to go on; that the node has its one form shows in the root. */
function parseNode(bytes: Uint8Array | undefined, cid: Cid): ParsedNode {
  if (bytes === undefined) throw new MstError(`a node is missing: ${cid}`)
  const { l: left, e: entries } = member(decoded(bytes, cid))
  if (!isList(entries)) throw new MstError('a node has no entries')
  return { left: linkOrNull(left), entries: entries.map(parseEntry) }
}

function parseEntry(value: DataValue): ParsedEntry {
  const { p: prefix, k: tail, v: record, t: right } = member(value)
  const link = linkOrNull(record)
  const base64 = member(tail)['$bytes']
  if (typeof prefix !== 'number' || typeof base64 !== 'string' || link === null) {
    throw new MstError('an entry of a node is not as it must be')
  }
  return {
    prefix,
    tail: Buffer.from(base64, 'base64').toString('latin1'),
    value: cidToBytes(link),
    right: linkOrNull(right),
  }
}

function decoded(bytes: Uint8Array, cid: Cid): DataValue {
  try {
    return decode(bytes)
  } catch (cause) {
    if (!(cause instanceof CborError)) throw cause
    throw new MstError(`a node is no DAG-CBOR: ${cid}`, { cause })
  }
}

function member(value: DataValue | undefined): DataObject {
  if (!isDataObject(value)) throw new MstError('a node or an entry is no map')
  return value
}

function linkOrNull(value: DataValue | undefined): Cid | null {
  if (value === null) return null
  const text = member(value)['$link']
  if (typeof text !== 'string') throw new MstError('a node has a link that is none')
  return parseCid(text)
}

function isList(value: DataValue | undefined): value is readonly DataValue[] {
  return Array.isArray(value)
}
