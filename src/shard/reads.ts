import { carBlock, carHeader } from '../atproto/car.ts'
import { type Cid, cidMatches, cidToBytes } from '../atproto/cid.ts'
import { decode } from '../atproto/cbor.ts'
import { type DataObject, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import { type AtUri, type Did, recordUri } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Turns } from '../lib/turns.ts'
import { boundaryNames } from '../service/boundary.ts'
import {
  type ActorAnswers,
  exportBytesMax,
  type ListCall,
  type ReadCall,
  type RecordAnswer,
} from '../service/calls.ts'
import type { Targets } from '../service/targets.ts'
import type { StoredRecord, View } from '../store/actor.ts'
import type { Actors, OpenActor } from './actors.ts'
import { RepoCorrupt, type Repos } from './repos.ts'

/** Reads of the actors of one shard, each with the eyes of its caller. */
export class Reads {
  readonly #actors: Actors
  readonly #repos: Repos
  readonly #turns: Turns<Did>

  constructor(actors: Actors, repos: Repos, turns: Turns<Did>) {
    this.#actors = actors
    this.#repos = repos
    this.#turns = turns
  }

  async record(did: Did, call: ReadCall): Promise<ActorAnswers['read']> {
    return await this.#actors.use(did, async ({ store, head }) => {
      const uri = recordUri(did, call.collection, call.rkey)
      const row = await store.record(uri, call.view)
      const wanted = row !== undefined && (call.cid === undefined || call.cid === row.cid)
      return { rev: head.rev, record: wanted ? answer(row) : null }
    })
  }

  async list(did: Did, call: ListCall): Promise<ActorAnswers['list']> {
    return await this.#actors.use(did, async ({ store, head }) => {
      const rows = await store.list(call)
      const last = rows.at(-1)?.rkey
      return { rev: head.rev, records: rows.map(answer), ...(last === undefined ? {} : { last }) }
    })
  }

  /** Boundaries of those of the records that `view` may see, by URI. */
  async targets(
    did: Did,
    call: { readonly uris: readonly AtUri[]; readonly view: View },
  ): Promise<ActorAnswers['targets']> {
    return await this.#actors.use(did, async ({ store }) => {
      const boundaries: Record<string, Targets[string]> = {}
      for (const uri of call.uris) {
        const row = await store.record(uri, call.view)
        if (row !== undefined) boundaries[uri] = boundaryNames(object(row)['boundary'])
      }
      return { boundaries }
    })
  }

  /**
   * The whole repo as a CAR: commit, then tree nodes, then records. The tree names records that
   * `view` may not see, too, but their content is not there unless another record has the same.
   * @throws XrpcError 413 when the records are more than fit into one answer
   */
  async export(did: Did, view: View): Promise<Uint8Array<ArrayBuffer>> {
    // In the actor's turn no write comes between the reads of head, tree and blocks.
    return await this.#turns.run(did, () =>
      this.#actors.use(did, (actor) => this.#car(actor, view)),
    )
  }

  async #car(actor: OpenActor, view: View): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = await actor.store.contentBytes()
    if (bytes > exportBytesMax) {
      throw new XrpcError(
        413,
        'RepoTooLarge',
        `the records of this repo have ${bytes} bytes, an export at most ${exportBytesMax}`,
      )
    }
    const tree = await this.#repos.tree(actor)
    const head = await actor.store.head()
    assert(head !== undefined, 'an open actor has a head')
    const commit = cidToBytes(head.cid)
    const parts = [carHeader(commit), carBlock(commit, head.commit)]
    for (const node of tree.nodes()) parts.push(carBlock(node.cid, node.bytes))
    const put = new Set<Cid>()
    for (const block of await actor.store.blocks(view)) {
      const cid = cidToBytes(block.cid)
      if (!cidMatches(cid, block.content)) {
        throw new RepoCorrupt(`the content of ${block.cid} of ${actor.did} was altered`)
      }
      // Records of the same content share a block.
      if (!put.has(block.cid)) parts.push(carBlock(cid, block.content))
      put.add(block.cid)
    }
    return Bun.concatArrayBuffers(parts, Number.POSITIVE_INFINITY, true)
  }
}

function answer(row: StoredRecord): RecordAnswer {
  return { uri: row.uri, cid: row.cid, value: object(row) }
}

function object(row: StoredRecord): DataObject {
  const value = decode(row.content)
  assert(isDataObject(value), 'a record is a map')
  return value
}
