import { assert } from '../lib/assert.ts'
import { type CidBytes, cidByteLength, cidForCbor, parseCidBytes } from './cid.ts'
import { type SealedNode, TreeEdge } from './mst-build.ts'
import { encodeNode } from './mst-node.ts'

/**
 * A tree that is sent as a whole and never changed. Of its nodes it keeps their blocks, and of its
 * records the CIDs, all in a few large arrays: less than 200 bytes a record, where a tree of objects
 * takes twice as much and leaves the garbage collector a hundred thousand of them.
 */
export class PackedMst implements Disposable {
  readonly #cids = new Bytes()
  readonly #blocks = new Bytes()
  /** By node: where in `#blocks` it ends, where in `#children`, and the records in it and below. */
  readonly #blockEnds = new Numbers()
  readonly #childrenEnds = new Numbers()
  readonly #sizes = new Numbers()
  /** Of each node one more than it has records: the node there, or `noChild`. */
  readonly #children = new Numbers()
  readonly #edge = new TreeEdge<PackedNode>((node) => this.#seal(node))
  #root: PackedNode | undefined

  /** Of memory. */
  get heldBytes(): number {
    return this.#arrays.reduce((sum, { heldBytes }) => sum + heldBytes, 0)
  }

  /** Entries come in the order of their keys. @throws MstError as `TreeEdge` does */
  add(key: string, cid: CidBytes): void {
    this.#edge.add(key, cid)
    this.#cids.add(cid)
  }

  /** To be called once, when all was added. @returns the CID of the root */
  finish(): CidBytes {
    this.#root = this.#edge.finish() ?? this.#seal({ leaves: [], children: [undefined] })
    return this.#root.cid
  }

  /** Of a record, by its place in the order of keys; a view. */
  recordCid(index: number): CidBytes {
    return cidAt(this.#cids.bytes, index * cidByteLength)
  }

  /** Of all records, one after the other; a view. */
  get recordCids(): Uint8Array {
    return this.#cids.bytes.subarray(0, this.#cids.length)
  }

  /**
   * Each node before what is below it, and each record where it stands in the order of keys.
   * @param known says of nodes that they are left out, with all that is below them
   */
  *walk(known: (node: CidBytes) => boolean): IterableIterator<WalkedNode | number> {
    let record = 0
    let next = this.#root?.index
    assert(next !== undefined, 'the tree is finished')
    const stack: Visit[] = []
    do {
      if (next !== undefined) {
        const { node, ...visit } = this.#visit(next)
        if (known(node.cid)) record += this.#sizes.at(next)
        else {
          yield node
          stack.push(visit)
        }
        next = undefined
      }
      const top = stack.at(-1)
      if (top === undefined) return
      if (top.place === top.end) {
        stack.pop()
        continue
      }
      if (top.place > top.start) yield record++
      const child = this.#children.at(top.place++)
      if (child !== noChild) next = child
    } while (stack.length > 0)
  }

  #visit(index: number): Visit & { readonly node: WalkedNode } {
    const before = index - 1
    const start = index === 0 ? 0 : this.#childrenEnds.at(before)
    const blockStart = index === 0 ? 0 : this.#blockEnds.at(before)
    const all = this.#blocks.bytes.subarray(blockStart, this.#blockEnds.at(index))
    const node = { cid: cidAt(all, 0), bytes: all.subarray(cidByteLength) }
    return { node, start, place: start, end: this.#childrenEnds.at(index) }
  }

  /** Gives the memory back at once: large arrays wait long for the garbage collector. */
  [Symbol.dispose](): void {
    for (const array of this.#arrays) array.release()
  }

  get #arrays() {
    const ofNodes = [this.#blockEnds, this.#childrenEnds, this.#sizes, this.#children]
    return [this.#cids, this.#blocks, ...ofNodes]
  }

  #seal({ leaves, children }: Pick<SealedNode<PackedNode>, 'leaves' | 'children'>): PackedNode {
    const bytes = encodeNode(leaves, children)
    const cid = cidForCbor(bytes)
    this.#blocks.add(cid)
    this.#blocks.add(bytes)
    let size = leaves.length
    for (const child of children) {
      if (child !== undefined) size += this.#sizes.at(child.index)
      this.#children.add(child?.index ?? noChild)
    }
    const index = this.#sizes.length
    this.#sizes.add(size)
    this.#blockEnds.add(this.#blocks.length)
    this.#childrenEnds.add(this.#children.length)
    return { cid, index }
  }
}

export interface WalkedNode {
  readonly cid: CidBytes
  readonly bytes: Uint8Array
}

interface PackedNode {
  readonly cid: CidBytes
  readonly index: number
}

/** A node that is being walked: `place` goes through its children. */
interface Visit {
  readonly start: number
  place: number
  readonly end: number
}

const noChild = 0xffff_ffff

function cidAt(bytes: Uint8Array, at: number): CidBytes {
  return parseCidBytes(bytes.subarray(at, at + cidByteLength))
}

/** Bytes that become more, in one piece. */
class Bytes {
  bytes = new Uint8Array(1024)
  length = 0

  add(more: Uint8Array): void {
    const length = this.length + more.length
    if (length > this.bytes.length) {
      // What was taken before is given back at once.
      this.bytes = new Uint8Array(this.bytes.buffer.transfer(2 * length))
    }
    this.bytes.set(more, this.length)
    this.length = length
  }

  get heldBytes(): number {
    return this.bytes.length
  }

  release(): void {
    this.bytes = new Uint8Array(this.bytes.buffer.transfer(0))
    this.length = 0
  }
}

class Numbers {
  length = 0
  #numbers = new Uint32Array(64)

  get heldBytes(): number {
    return this.#numbers.byteLength
  }

  at(index: number): number {
    const number = this.#numbers[index]
    assert(number !== undefined && index < this.length, 'the number is there')
    return number
  }

  add(number: number): void {
    if (this.length === this.#numbers.length) {
      const bytes = 2 * this.#numbers.byteLength
      this.#numbers = new Uint32Array(this.#numbers.buffer.transfer(bytes))
    }
    this.#numbers[this.length++] = number
  }

  release(): void {
    this.#numbers = new Uint32Array(this.#numbers.buffer.transfer(0))
    this.length = 0
  }
}
