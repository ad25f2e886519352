import { verifyCommit } from '../atproto/commit.ts'
import { cidToBytes, equalCids } from '../atproto/cid.ts'
import { Mst } from '../atproto/mst.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { Lru } from '../lib/lru.ts'
import { RepoCorrupt } from '../store/repo-corrupt.ts'
import type { OpenActor } from './actors.ts'

/** The decoded trees of one shard, bounded by their estimated bytes. */
export class Repos {
  readonly #trees: Lru<Did, Mst>

  constructor(bytesMax: number) {
    this.#trees = new Lru(bytesMax)
  }

  /**
   * The tree at the actor's head. At first touch it is built from the record rows and must come out
   * at the root that the commit signs.
   * @throws RepoCorrupt when rows and commit disagree
   */
  async tree(actor: OpenActor): Promise<Mst> {
    const known = this.#trees.get(actor.did)
    if (known !== undefined) return known
    const tree = await rebuild(actor)
    this.keep(actor.did, tree)
    return tree
  }

  keep(did: Did, tree: Mst): void {
    this.#trees.set(did, tree, tree.estimatedBytes)
  }

  /** The database was closed: what is built again as fast as that is opened again, goes with it. */
  closed(did: Did): void {
    const tree = this.#trees.peek(did)
    if (tree !== undefined && tree.size <= smallRecordsMax) this.#trees.delete(did)
  }

  forget(did: Did): void {
    this.#trees.delete(did)
  }
}

/** Records of a tree that is built in some 1.5 ms, not much longer than a database takes to open. */
const smallRecordsMax = 1_000

async function rebuild({ did, store, key }: OpenActor): Promise<Mst> {
  const head = await store.head()
  assert(head !== undefined, 'an open actor has a head')
  const rows = await store.entries()
  const tree = Mst.fromSorted(
    rows.map((row) => [`${row.collection}/${row.rkey}`, cidToBytes(row.cid)] as const),
  )
  const commit = verifyCommit(head.commit, key.did)
  if (commit.did !== did || commit.rev !== head.rev || !equalCids(tree.rootCid(), commit.data)) {
    throw new RepoCorrupt(
      `the ${rows.length} records of ${did} do not make the tree of its commit ${head.rev}: ` +
        'restore the database of this actor from a backup',
    )
  }
  return tree
}
