import { assert } from '../lib/assert.ts'
import { type CidBytes, cidForCbor } from './cid.ts'
import { checkKey, keyHeight, MstError } from './mst-key.ts'
import { encodeNode, type Linked, type MstLeaf, MstNode } from './mst-node.ts'

/**
 * Makes a tree of entries that come one by one in the order of their keys, along its right edge, so
 * that whoever brings many can rest between them. What a node becomes once all of it is known, `seal`
 * says: children before their parent, from left to right.
 */
export class TreeEdge<Node extends Linked> {
  readonly #seal: Seal<Node>
  /** By layer. What is to the left of them is finished. */
  #layers: OpenLayer<Node>[] = []
  #last = ''

  constructor(seal: Seal<Node>) {
    this.#seal = seal
  }

  /** @throws MstError when the key is not valid or not above the one before */
  add(key: string, cid: CidBytes): void {
    checkKey(key)
    if (key <= this.#last) throw new MstError('keys must be sorted and unique')
    this.#last = key
    const height = keyHeight(key)
    while (this.#layers.length <= height) this.#layers.push({ leaves: [], children: [] })
    const layer = this.#layers[height]
    assert(layer !== undefined, 'the edge reaches the height')
    layer.children.push(this.#close(height))
    layer.leaves.push({ key, cid })
  }

  /** The root of all entries, undefined of none; then this is as new. */
  finish(): Node | undefined {
    const root = this.#close(this.#layers.length)
    this.#layers = []
    this.#last = ''
    return root
  }

  /** Takes all that is open below `layer` off the edge, as one subtree. */
  #close(layer: number): Node | undefined {
    let below: Node | undefined
    for (let at = 0; at < layer; at++) {
      const open = this.#layers[at]
      assert(open !== undefined, 'the edge reaches the layer')
      const { leaves, children } = open
      if (leaves.length === 0 && below === undefined) continue
      children.push(below)
      below = this.#seal({ layer: at, leaves, children })
      this.#layers[at] = { leaves: [], children: [] }
    }
    return below
  }
}

/** Makes a tree that lives in memory. */
export class MstBuilder extends TreeEdge<MstNode> {
  constructor() {
    super(({ layer, leaves, children }) => {
      const node = new MstNode(layer, leaves, children)
      // Hashed as it goes: to ask the root for its CID must not hash the whole tree at once.
      void node.cid
      return node
    })
  }
}

/** Finds the root of a tree that nobody will look into: no more is held than the right edge. */
export class RootEdge extends TreeEdge<Linked> {
  constructor() {
    super(({ leaves, children }) => ({ cid: cidForCbor(encodeNode(leaves, children)) }))
  }
}

/** What is known of a node once nothing more comes below it. */
export interface SealedNode<Node> {
  readonly layer: number
  readonly leaves: readonly MstLeaf[]
  readonly children: readonly (Node | undefined)[]
}

type Seal<Node> = (node: SealedNode<Node>) => Node

/** What is still open on one layer of the right edge: `children` lacks its last. */
interface OpenLayer<Node> {
  leaves: MstLeaf[]
  children: (Node | undefined)[]
}
