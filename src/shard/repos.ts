import { setImmediate } from 'node:timers/promises'
import { verifyCommit } from '../atproto/commit.ts'
import { cidToBytes, equalCids } from '../atproto/cid.ts'
import { MstBuilder } from '../atproto/mst-build.ts'
import { Mst } from '../atproto/mst.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { Lru } from '../lib/lru.ts'
import { RepoCorrupt } from '../store/repo-corrupt.ts'
import type { OpenActor } from './actors.ts'

/**
 * The decoded trees of one shard, bounded by their estimated bytes. One that is not there is built
 * from the record rows by pages, between which other actors have their turn. Invariants:
 * - A tree is handed out only when its root is the one that the commit at the head signs, and that
 *   head was the newest before the first and after the last page: every change of the rows is one
 *   of the head, so that all pages are of one state.
 * - A write cannot come in between: it is decided on the tree, and waits for the same rebuild. What
 *   changes the rows without a tree, or puts another tree in place, calls `forget` or `keep`.
 * - An actor has one rebuild at a time. One that `keep` or `forget` overtook is never kept: those
 *   who wait for it look again.
 *
 * For example: a proof and a write of an actor with 10,000 records arrive after a start. The proof
 * has the actor's turn and rebuilds, five pages long; a read and the writes of other actors run
 * meanwhile. The proof is given; the write has its turn and finds the tree.
 */
export class Repos {
  readonly #trees: Lru<Did, Mst>
  /** Those under way that nothing has overtaken. */
  readonly #rebuilds = new Map<Did, Promise<Mst | undefined>>()

  constructor(bytesMax: number) {
    this.#trees = new Lru(bytesMax)
  }

  /**
   * The tree at the actor's head. At first touch it is built from the record rows and must come out
   * at the root that the commit signs.
   * @throws RepoCorrupt when rows and commit disagree
   */
  async tree(actor: OpenActor): Promise<Mst> {
    for (let attempt = 0; attempt < rebuildsMax; attempt++) {
      const known = this.#trees.get(actor.did)
      if (known !== undefined) return known
      const tree = await (this.#rebuilds.get(actor.did) ?? this.#start(actor))
      if (tree !== undefined) return tree
    }
    throw new Error(`the repo of ${actor.did} changed under each of ${rebuildsMax} rebuilds`)
  }

  #start(actor: OpenActor): Promise<Mst | undefined> {
    const { did } = actor
    const mine = this.#rebuild(actor, () => this.#rebuilds.get(did) === mine)
    this.#rebuilds.set(did, mine)
    return mine
  }

  /** Undefined when it was overtaken. */
  async #rebuild(actor: OpenActor, isNewest: () => boolean): Promise<Mst | undefined> {
    try {
      const tree = await rebuilt(actor)
      if (tree === undefined || !isNewest()) return undefined
      this.keep(actor.did, tree)
      return tree
    } finally {
      if (isNewest()) this.#rebuilds.delete(actor.did)
    }
  }

  /**
   * Head and tree come from the rows again: of what somebody else wrote, and of a transaction that
   * failed, memory is no witness.
   */
  async reload(actor: OpenActor): Promise<void> {
    this.forget(actor.did)
    const head = await actor.store.head()
    assert(head !== undefined, 'an open actor has a head')
    const { commit: _, ...rest } = head
    actor.head = rest
  }

  keep(did: Did, tree: Mst): void {
    this.#rebuilds.delete(did)
    this.#trees.set(did, tree, tree.estimatedBytes)
  }

  /** The database was closed: what is built again as fast as that is opened again, goes with it. */
  closed(did: Did): void {
    const tree = this.#trees.peek(did)
    if (tree !== undefined && tree.size <= smallRecordsMax) this.#trees.delete(did)
  }

  forget(did: Did): void {
    this.#rebuilds.delete(did)
    this.#trees.delete(did)
  }
}

/** Of a tree that is built in some 1.5 ms, not much longer than a database takes to open. */
const smallRecordsMax = 1_000

/** A write that overtook one left its own tree, and the next one waits: more cannot be. */
const rebuildsMax = 3

/** Undefined when the head moved in the meantime. */
async function rebuilt({ did, store, key }: OpenActor): Promise<Mst | undefined> {
  const head = await store.head()
  assert(head !== undefined, 'an open actor has a head')
  const builder = new MstBuilder()
  let pages = 0
  for await (const page of store.entries()) {
    // Small trees, and these are most, are made without a rest.
    if (pages > 0) await setImmediate()
    for (const { collection, rkey, cid } of page) {
      builder.add(`${collection}/${rkey}`, cidToBytes(cid))
    }
    pages += 1
  }
  const tree = Mst.built(builder)
  if ((await store.head())?.rev !== head.rev) return undefined
  const commit = verifyCommit(head.commit, key.did)
  if (commit.did !== did || commit.rev !== head.rev || !equalCids(tree.rootCid(), commit.data)) {
    throw new RepoCorrupt(
      `the ${tree.size} records of ${did} do not make the tree of its commit ${head.rev}: ` +
        'restore the database of this actor from a backup',
    )
  }
  return tree
}
