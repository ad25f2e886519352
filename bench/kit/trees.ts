import { MemoryBlockStore, NodeStore, NodeWrangler } from '@atcute/mst'
import { BlockMap, MemoryBlockstore, MST } from '@atproto/repo'
import { CID } from 'multiformats/cid'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import type { Mst } from '../../src/atproto/mst.ts'

/** What all records of all trees point to. */
export const value = cidForCbor(new Uint8Array([1]))
const theirValue = CID.decode(value)
const valueLink = { $link: cidToString(value) }

/** A tree that one implementation holds. */
export interface Tree {
  /** The tree itself stays as it is. @returns the root of one with this key more, in its own form */
  insert(key: string): unknown
  /** From now on it has this key. */
  grow(key: string): Promise<void>
  /** As text. */
  root(): Promise<string>
}

export const treeNames = ['ours', '@atproto/repo', '@atcute/mst'] as const

/** The same tree three times, in the order of their names; each has its nodes in memory. */
export async function treesOf(tree: Mst): Promise<readonly [Tree, Tree, Tree]> {
  return [ours(tree), await atproto(tree), await atcute(tree)]
}

function ours(start: Mst): Tree {
  let tree = start
  return {
    insert: (key) => tree.set(key, value).rootCid(),
    grow: async (key) => {
      tree = tree.set(key, value)
    },
    root: async () => cidToString(tree.rootCid()),
  }
}

async function atproto(start: Mst): Promise<Tree> {
  const blocks = new BlockMap()
  for (const { cid, bytes } of start.nodes()) blocks.set(CID.decode(cid), bytes)
  const store = new MemoryBlockstore(blocks)
  let tree =
    start.size === 0 ? await MST.create(store) : MST.load(store, CID.decode(start.rootCid()))
  return {
    insert: async (key) => await (await tree.add(key, theirValue)).getPointer(),
    grow: async (key) => {
      tree = await tree.add(key, theirValue)
    },
    root: async () => (await tree.getPointer()).toString(),
  }
}

async function atcute(start: Mst): Promise<Tree> {
  const store = new MemoryBlockStore()
  for (const { cid, bytes } of start.nodes()) {
    await store.put(cidToString(cid), new Uint8Array(bytes))
  }
  const wrangler = new NodeWrangler(new NodeStore(store))
  let root: string = cidToString(start.rootCid())
  return {
    insert: (key) => wrangler.putRecord(root, key, valueLink),
    grow: async (key) => {
      root = await wrangler.putRecord(root, key, valueLink)
    },
    root: async () => root,
  }
}
