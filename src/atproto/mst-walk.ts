import { type CidBytes, cidToString, isRawCidBytes } from './cid.ts'
import { keyHeight, MstError } from './mst-key.ts'
import { type MstEntry, MstNodeReader } from './mst-node-reader.ts'
import type { MstLeaf } from './mst-node.ts'

/** A block whose hash was compared with its CID, as that of a `CarIndex` was. */
export type BlockOf = (cid: CidBytes) => Uint8Array | undefined

export interface MstLimits {
  readonly recordsMax: number
}

/** In the place of all leaves below a node that is missing. */
export interface MstGap {
  readonly missing: CidBytes
}

/**
 * The records of somebody else's tree, in order of their keys. What was yielded counts once the
 * walk has come to its end without an error.
 * @throws MstError as `walkPartialTree` does, and when a node is missing
 */
export function* walkTree(
  root: CidBytes,
  block: BlockOf,
  limits: MstLimits,
): Generator<MstLeaf, void> {
  for (const part of walkPartialTree(root, block, limits)) {
    if ('missing' in part) throw new MstError(`a node is missing: ${cidToString(part.missing)}`)
    yield part
  }
}

/**
 * The same of a tree of which some nodes may be missing: each is yielded where it belongs between
 * the keys. Of the blocks nothing is believed but their hashes. A set of records has one tree:
 *
 * - each node has the bytes that its content is encoded to (see `MstNodeReader`);
 * - each key is above the one before, through the whole tree;
 * - each leaf stands on the layer that its key's hash names, each node on the layer below its
 *   parent's, down to layer zero;
 * - no subtree is without a leaf or a further subtree, and the root has a leaf unless nothing has.
 *
 * At most one node a layer is held, and a key's hash names no layer above 128.
 * @throws MstError whatever the blocks are
 */
export function* walkPartialTree(
  root: CidBytes,
  block: BlockOf,
  { recordsMax }: MstLimits,
): Generator<MstLeaf | MstGap, void> {
  const rootNode = readerOf(root, block)
  if (rootNode === undefined) {
    yield { missing: root }
    return
  }
  const first = rootNode.next()
  if (first === undefined) {
    if (rootNode.left !== undefined) throw new MstError('the root has no record')
    return
  }
  const stack = [openNode(rootNode, first, keyHeight(first.key))]
  let last = ''
  let records = 0
  for (let node = stack.at(-1); node !== undefined; node = stack.at(-1)) {
    const { child, entry, layer } = node
    if (child !== undefined) {
      node.child = undefined
      const below = subtree(child, layer - 1, block)
      if (below === undefined) yield { missing: child }
      else stack.push(below)
      continue
    }
    if (entry === undefined) {
      stack.pop()
      continue
    }
    const { key, cid } = entry
    if (key <= last) throw new MstError('keys are not sorted and unique')
    if (keyHeight(key) !== layer) throw new MstError('a key stands on a layer not its own')
    if (++records > recordsMax) throw new MstError(`more than ${recordsMax} records`)
    last = key
    yield { key, cid }
    node.child = entry.right
    node.entry = node.reader.next()
  }
}

/** A node between two steps: first `child` is due, then `entry`. */
interface OpenNode {
  readonly layer: number
  readonly reader: MstNodeReader
  child: CidBytes | undefined
  entry: MstEntry | undefined
}

function openNode(reader: MstNodeReader, entry: MstEntry | undefined, layer: number): OpenNode {
  return { layer, reader, child: reader.left, entry }
}

function subtree(cid: CidBytes, layer: number, block: BlockOf): OpenNode | undefined {
  if (layer < 0) throw new MstError('a node hangs below the lowest layer')
  const reader = readerOf(cid, block)
  if (reader === undefined) return undefined
  const entry = reader.next()
  if (entry === undefined && reader.left === undefined) {
    throw new MstError('a subtree has no record')
  }
  return openNode(reader, entry, layer)
}

function readerOf(cid: CidBytes, block: BlockOf): MstNodeReader | undefined {
  if (isRawCidBytes(cid)) throw new MstError('a node is no DAG-CBOR by its CID')
  const bytes = block(cid)
  return bytes === undefined ? undefined : new MstNodeReader(bytes)
}
