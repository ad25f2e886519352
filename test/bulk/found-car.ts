import { CarReader } from '@ipld/car'
import { decode } from '@ipld/dag-cbor'
import type { CID } from 'multiformats/cid'

interface Commit {
  readonly rev: string
  readonly data: CID
}

interface Node {
  readonly l: CID | null
  readonly e: readonly {
    readonly p: number
    readonly k: Uint8Array
    readonly v: CID
    readonly t: CID | null
  }[]
}

/** What somebody else's reader of CARs finds, and what the tree in there says of its order. */
export interface FoundCar {
  readonly root: string
  readonly rev: string
  /** CIDs of all blocks, in their order. */
  readonly cids: readonly string[]
  readonly blocks: ReadonlyMap<string, Uint8Array>
  /** Those that are there: commit, each node before what is below it, records where they stand. */
  readonly inOrder: readonly string[]
  readonly nodes: ReadonlySet<string>
  /** Path and CID of all leaves of those nodes. */
  readonly leaves: ReadonlyMap<string, string>
}

export async function readCar(car: Uint8Array): Promise<FoundCar> {
  const reader = await CarReader.fromBytes(car)
  const [root = ''] = (await reader.getRoots()).map(String)
  const blocks = new Map<string, Uint8Array>()
  const cids: string[] = []
  for await (const { cid, bytes } of reader.blocks()) {
    cids.push(cid.toString())
    blocks.set(cid.toString(), bytes)
  }
  const inOrder = new Set<string>([root])
  const nodes = new Set<string>()
  const leaves = new Map<string, string>()
  const visit = (link: CID | null): void => {
    const bytes = blocks.get(String(link))
    if (bytes === undefined) return
    inOrder.add(String(link))
    nodes.add(String(link))
    const { l, e } = decode<Node>(bytes)
    visit(l)
    let path = ''
    for (const { p, k, v, t } of e) {
      path = path.slice(0, p) + Buffer.from(k).toString('latin1')
      leaves.set(path, v.toString())
      if (blocks.has(v.toString())) inOrder.add(v.toString())
      visit(t)
    }
  }
  const { rev, data } = decode<Commit>(blocks.get(root) ?? new Uint8Array())
  visit(data)
  return { root, rev, cids, blocks, inOrder: [...inOrder], nodes, leaves }
}
