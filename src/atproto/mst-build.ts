import { assert } from '../lib/assert.ts'
import type { CidBytes } from './cid.ts'
import { lift } from './mst-edit.ts'
import { checkKey, keyHeight, MstError } from './mst-key.ts'
import { type MstChild, type MstLeaf, MstNode } from './mst-node.ts'

/**
 * Makes a tree of entries that come one by one in the order of their keys, along its right edge, so
 * that whoever brings many can rest between them. Memory holds the nodes, never a list of entries.
 */
export class MstBuilder {
  /** By layer. What is to the left of them is finished. */
  #edges: Edge[] = []
  #last = ''
  readonly #keeps: 'tree' | 'root'

  /** @param keeps `root` for one that wants nothing but its CID, and memory for its right edge */
  constructor(keeps: 'tree' | 'root' = 'tree') {
    this.#keeps = keeps
  }

  /** @throws MstError when the key is not valid or not above the one before */
  add(key: string, cid: CidBytes): void {
    checkKey(key)
    if (key <= this.#last) throw new MstError('keys must be sorted and unique')
    this.#last = key
    const height = keyHeight(key)
    while (this.#edges.length <= height) this.#edges.push({ leaves: [], children: [] })
    const edge = this.#edges[height]
    assert(edge !== undefined, 'the edge reaches the height')
    edge.children.push(this.#close(height))
    edge.leaves.push({ key, cid })
  }

  /** The root of all entries, undefined of none; then the builder is as new. */
  finish(): MstChild {
    const root = this.#close(this.#edges.length)
    this.#edges = []
    this.#last = ''
    return root
  }

  /** Takes all that is open below `layer` off the edge, as one subtree. */
  #close(layer: number): MstChild {
    let below: MstChild
    for (let at = 0; at < layer; at++) {
      const edge = this.#edges[at]
      assert(edge !== undefined, 'the edge reaches the layer')
      if (edge.leaves.length === 0) {
        below = lift(below, at)
        continue
      }
      edge.children.push(below)
      const node = new MstNode(at, edge.leaves, edge.children)
      // Hashed as it goes: to ask the root for its CID must not hash the whole tree at once.
      const { cid } = node
      below = this.#keeps === 'tree' ? node : MstNode.hashed(at, cid)
      this.#edges[at] = { leaves: [], children: [] }
    }
    return below
  }
}

/** What is still open on one layer of the right edge: `children` lacks its last. */
interface Edge {
  leaves: MstLeaf[]
  children: MstChild[]
}
