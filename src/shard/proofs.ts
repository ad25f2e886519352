import { encodeCar } from '../atproto/car.ts'
import { type CidBytes, cidMatches, cidToBytes } from '../atproto/cid.ts'
import type { MstNodeBlock } from '../atproto/mst.ts'
import { type Did, recordUri } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Turns } from '../lib/turns.ts'
import type { ProofAnswer, ProofCall } from '../service/calls.ts'
import type { ActorStore, StoredRecord } from '../store/actor.ts'
import { RepoCorrupt } from '../store/repo-corrupt.ts'
import type { Actors, OpenActor } from './actors.ts'
import type { Repos } from './repos.ts'

/**
 * Proofs of single records: the signed commit, the nodes of the tree from its root to the key, and
 * the record. Each is made in the actor's turn: no write comes between the reads of head, tree and
 * rows.
 */
export class Proofs {
  readonly #actors: Actors
  readonly #repos: Repos
  readonly #turns: Turns<Did>

  constructor(actors: Actors, repos: Repos, turns: Turns<Did>) {
    this.#actors = actors
    this.#repos = repos
    this.#turns = turns
  }

  async prove(did: Did, call: ProofCall): Promise<ProofAnswer> {
    return await this.#turns.run(did, () =>
      this.#actors.use(did, (actor) => this.#prove(actor, call)),
    )
  }

  async #prove(actor: OpenActor, call: ProofCall): Promise<ProofAnswer> {
    const { did, store } = actor
    const { collection, rkey, view, neighbours } = call
    const record = await store.record(recordUri(did, collection, rkey), view)
    // Of what is hidden no more is looked at than of what is not there, not even how long it takes.
    if (record === undefined && neighbours === 'stubbed') return missing
    const tree = await this.#repos.tree(actor)
    const path = `${collection}/${rkey}`
    const cid = tree.get(path)
    // The tree knows it, the view does not: there is no absence to prove.
    if (record === undefined && cid !== undefined) return missing
    const nodes = tree.proof(path)
    if (neighbours === 'stubbed' && !(await areStubbed(store, shownBeside(path, nodes)))) {
      return missing
    }
    const head = await store.head()
    assert(head !== undefined, 'an open actor has a head')
    const commit = { cid: cidToBytes(head.cid), bytes: head.commit }
    const own = record === undefined ? [] : [blockOf(record, cid)]
    return { rev: head.rev, bytes: encodeCar(commit.cid, [commit, ...nodes, ...own]) }
  }
}

const missing: ProofAnswer = { missing: true }

/** More stand on a path only where keys were chosen to make it long. */
const shownKeysMax = 1_000

function shownBeside(path: string, nodes: readonly MstNodeBlock[]): readonly string[] {
  return nodes.flatMap(({ leaves }) => leaves.map(({ key }) => key)).filter((key) => key !== path)
}

async function areStubbed(store: ActorStore, paths: readonly string[]): Promise<boolean> {
  if (paths.length > shownKeysMax) return false
  const keys = paths.map((path) => {
    const [collection = '', rkey = ''] = path.split('/')
    return { collection, rkey }
  })
  return await store.outbox.areStubbed(keys)
}

/** @throws RepoCorrupt when the content is not what the tree names */
function blockOf({ uri, content }: StoredRecord, cid: CidBytes | undefined) {
  if (cid === undefined || !cidMatches(cid, content)) {
    throw new RepoCorrupt(`the content of ${uri} was altered`)
  }
  return { cid, bytes: content }
}
