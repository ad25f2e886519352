import { decode, encode } from '../../src/atproto/cbor.ts'
import {
  type Cid,
  type CidBytes,
  cidForCbor,
  cidToBytes,
  cidToString,
} from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'
import { keyHeight } from '../../src/atproto/mst-key.ts'
import type { Mst } from '../../src/atproto/mst.ts'

export interface Link extends DataObject {
  readonly $link: Cid
}

/** A node as it is decoded. */
export interface TreeNode extends DataObject {
  readonly e: readonly TreeEntry[]
  readonly l: Link | null
}

interface TreeEntry extends DataObject {
  readonly k: { readonly $bytes: string }
  readonly p: number
  readonly t: Link | null
  readonly v: Link
}

export const value = cidForCbor(new Uint8Array([0x01]))
/** Of a block that no collection of blocks has. */
export const absent = linkTo(value)

/** Blocks of a tree, also made by hand, node by node from the bottom. */
export class TreeBlocks {
  readonly #blocks = new Map<Cid, Uint8Array>()

  static of(tree: Mst): TreeBlocks {
    const blocks = new TreeBlocks()
    for (const { bytes } of tree.nodes()) blocks.add(bytes)
    return blocks
  }

  readonly block = (cid: CidBytes): Uint8Array | undefined => this.#blocks.get(cidToString(cid))

  add(bytes: Uint8Array): Link {
    const cid = cidForCbor(bytes)
    this.#blocks.set(cidToString(cid), bytes)
    return linkTo(cid)
  }

  put(node: DataValue): Link {
    return this.add(encode(node))
  }

  node(entries: readonly DataObject[], l: DataValue = null): Link {
    return this.put({ e: entries, l })
  }

  all(): Iterable<Uint8Array> {
    return this.#blocks.values()
  }

  /** The tree with other nodes, all links to them being put right. */
  changed(link: Link, change: (node: TreeNode, link: Link) => DataValue): Link {
    const node = this.#node(link)
    const follow = (below: Link | null) => below && this.changed(below, change)
    const e = node.e.map((entry) => ({ ...entry, t: follow(entry.t) }))
    return this.put(change({ e, l: follow(node.l) }, link))
  }

  /** In order, by what the nodes say, which is not checked. */
  keysBelow(link: Link | null): string[] {
    if (link === null) return []
    const { e, l } = this.#node(link)
    const keys = this.keysBelow(l)
    let last = ''
    for (const entry of e) {
      last = last.slice(0, entry.p) + tailOf(entry)
      keys.push(last, ...this.keysBelow(entry.t))
    }
    return keys
  }

  /** Each node before what is below it, by its CID, and each record where it stands, by its key. */
  walk(link: Link | null): string[] {
    if (link === null) return []
    const { e, l } = this.#node(link)
    const steps: string[] = [link.$link, ...this.walk(l)]
    let last = ''
    for (const entry of e) {
      last = last.slice(0, entry.p) + tailOf(entry)
      steps.push(last, ...this.walk(entry.t))
    }
    return steps
  }

  #node({ $link }: Link): TreeNode {
    const node: ReturnType<typeof JSON.parse> = decode(this.#blocks.get($link) ?? new Uint8Array())
    return node
  }

  delete(cid: CidBytes): void {
    this.#blocks.delete(cidToString(cid))
  }
}

export function entry(key: string, p = 0): TreeEntry {
  return { k: { $bytes: Buffer.from(key).toString('base64') }, p, t: null, v: absent }
}

export function tailOf(entry: TreeEntry | undefined): string {
  return Buffer.from(entry?.k.$bytes ?? '', 'base64').toString('latin1')
}

export function linkTo(cid: CidBytes): Link {
  return { $link: cidToString(cid) }
}

export function cidOf({ $link }: Link): CidBytes {
  return cidToBytes($link)
}

export function keysByHeight(limits: {
  readonly heightMax: number
  readonly count: number
}): string[] {
  const found: string[][] = Array.from({ length: limits.heightMax + 1 }, () => [])
  const wanted = limits.count * found.length
  for (let at = 0; found.flat().length < wanted; at++) {
    const key = `com.example.deep/${at}`
    const keys = found[keyHeight(key)]
    if (keys !== undefined && keys.length < limits.count) keys.push(key)
  }
  return found.flat()
}
