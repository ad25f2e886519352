import { assert } from '../lib/assert.ts'
import type { CidBytes } from './cid.ts'
import { lift } from './mst-edit.ts'
import { checkKey, keyHeight, MstError } from './mst-key.ts'
import { type MstChild, type MstLeaf, MstNode } from './mst-node.ts'

/**
 * The tree of sorted entries, made along its right edge; `undefined` of none.
 * @throws MstError when a key is not valid or not above the one before
 */
export function build(entries: Iterable<readonly [key: string, cid: CidBytes]>): MstChild {
  const edges: Edge[] = []
  let last = ''
  for (const [key, cid] of entries) {
    checkKey(key)
    if (key <= last) throw new MstError('keys must be sorted and unique')
    last = key
    const height = keyHeight(key)
    while (edges.length <= height) edges.push({ leaves: [], children: [] })
    const edge = edges[height]
    assert(edge !== undefined, 'the edge reaches the height')
    edge.children.push(close(edges, height))
    edge.leaves.push({ key, cid })
  }
  return close(edges, edges.length)
}

/** What is still open on one layer of the right edge: `children` lacks its last. */
interface Edge {
  leaves: MstLeaf[]
  children: MstChild[]
}

/** Takes all that is open below `layer` off the edge, as one subtree. */
function close(edges: Edge[], layer: number): MstChild {
  let below: MstChild
  for (let at = 0; at < layer; at++) {
    const edge = edges[at]
    assert(edge !== undefined, 'the edge reaches the layer')
    if (edge.leaves.length === 0) {
      below = lift(below, at)
      continue
    }
    edge.children.push(below)
    below = new MstNode(at, edge.leaves, edge.children)
    edges[at] = { leaves: [], children: [] }
  }
  return below
}
