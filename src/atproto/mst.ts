import { assert } from '../lib/assert.ts'
import { type CidBytes, equalCids } from './cid.ts'
import { MstBuilder } from './mst-build.ts'
import { insert, remove } from './mst-edit.ts'
import { checkKey, keyHeight } from './mst-key.ts'
import { type MstChild, type MstLeaf, MstNode } from './mst-node.ts'

export interface MstNodeBlock {
  readonly cid: CidBytes
  readonly bytes: Uint8Array
  readonly leaves: readonly MstLeaf[]
}

/**
 * A Merkle search tree of `collection/rkey` and record CID. A change gives another tree that shares
 * all untouched nodes, so that an old one stays valid and costs little, and only the nodes on the
 * changed path are encoded and hashed, once somebody asks for the root.
 * @see https://atproto.com/specs/repository
 */
export class Mst {
  static readonly empty = new Mst(new MstNode(0, [], [undefined]))

  readonly #root: MstNode

  private constructor(root: MstNode) {
    this.#root = root
  }

  /**
   * Takes linear time, with one hash per record.
   * @throws MstError when a key is not valid or not above the one before
   */
  static fromSorted(entries: Iterable<readonly [key: string, cid: CidBytes]>): Mst {
    const builder = new MstBuilder()
    for (const [key, cid] of entries) builder.add(key, cid)
    return Mst.built(builder)
  }

  /** The tree of all that the builder was given. */
  static built(builder: MstBuilder): Mst {
    const root = builder.finish()
    return root === undefined ? Mst.empty : new Mst(root)
  }

  /** Records in the tree. */
  get size(): number {
    return this.#root.size
  }

  /** Roughly what the tree takes in memory, as though it shared nothing with others. */
  get estimatedBytes(): number {
    return this.#root.estimatedBytes
  }

  rootCid(): CidBytes {
    return this.#root.cid
  }

  get(key: string): CidBytes | undefined {
    for (let node: MstChild = this.#root; node !== undefined;) {
      const place = node.place(key)
      const leaf = node.leaves[place]
      if (leaf?.key === key) return leaf.cid
      node = node.children[place]
    }
    return undefined
  }

  /**
   * Adds a record or replaces its CID; the same tree when nothing changes.
   * @throws MstError when the key is not valid
   */
  set(key: string, cid: CidBytes): Mst {
    checkKey(key)
    const before = this.get(key)
    if (before !== undefined && equalCids(before, cid)) return this
    return new Mst(insert(this.#root, { key, cid }, keyHeight(key)))
  }

  /** The caller knows from its rows that the record is there: an absent key is a bug and throws. */
  delete(key: string): Mst {
    assert(this.get(key) !== undefined, 'a key to delete is in the tree')
    let root = remove(this.#root, key)
    // A root must hold a record, or be the empty tree's.
    while (root !== undefined && root.leaves.length === 0) root = root.children[0]
    return root === undefined ? Mst.empty : new Mst(root)
  }

  /** In order of keys, from the first that is not below `from`. */
  entries(from = ''): IterableIterator<[key: string, cid: CidBytes]> {
    return inOrder(this.#root, from)
  }

  /** Each node before those below it, with the records that stand in it. */
  *nodes(): IterableIterator<MstNodeBlock> {
    const stack = [this.#root]
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      yield { cid: node.cid, bytes: node.encode(), leaves: node.leaves }
      for (const child of node.children.toReversed()) {
        if (child !== undefined) stack.push(child)
      }
    }
  }

  /**
   * The nodes from the root to the key or, when it is absent, to where it would be, with the records
   * that stand in them and so are shown, too.
   */
  proof(key: string): MstNodeBlock[] {
    const blocks: MstNodeBlock[] = []
    for (let node: MstChild = this.#root; node !== undefined;) {
      blocks.push({ cid: node.cid, bytes: node.encode(), leaves: node.leaves })
      const place = node.place(key)
      node = node.leaves[place]?.key === key ? undefined : node.children[place]
    }
    return blocks
  }
}

function* inOrder(root: MstNode, from: string): IterableIterator<[string, CidBytes]> {
  const stack: { node: MstNode; place: number }[] = []
  const descend = (start: MstChild): void => {
    for (let node = start; node !== undefined;) {
      const place = node.place(from)
      stack.push({ node, place })
      node = node.children[place]
    }
  }
  descend(root)
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const leaf = top.node.leaves[top.place++]
    if (leaf === undefined) {
      stack.pop()
      continue
    }
    yield [leaf.key, leaf.cid]
    descend(top.node.children[top.place])
  }
}
