import type { Cid } from '../atproto/cid.ts'
import { decode } from '../atproto/cbor.ts'
import { type DataObject, isDataObject } from '../atproto/data.ts'
import { type AtUri, type Did, recordUri } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { Lru } from '../lib/lru.ts'
import { boundaryNames } from '../service/boundary.ts'
import type { ActorAnswers, ListCall, ReadCall } from '../service/calls.ts'
import type { Targets } from '../service/targets.ts'
import type { FoundRecord, View } from '../store/actor.ts'
import type { HydrateQuery } from '../store/actor-hydrate.ts'
import type { Actors } from './actors.ts'

/** Reads of the actors of one shard, each with the eyes of its caller. */
export class Reads {
  readonly #actors: Actors
  /** JSON of the content of records by its CID, which is its hash: whose records, is no matter. */
  #values = new Lru<Cid, string>(valueCharsMax)

  constructor(actors: Actors) {
    this.#actors = actors
  }

  async record(did: Did, call: ReadCall): Promise<ActorAnswers['read']> {
    return await this.#actors.use(did, async ({ store, head }) => {
      const uri = recordUri(did, call.collection, call.rkey)
      const row = await store.record(uri, call.view)
      const wanted = row !== undefined && (call.cid === undefined || call.cid === row.cid)
      return wanted
        ? { rev: head.rev, cid: row.cid, texts: [this.#text(row)] }
        : { rev: head.rev, cid: null, texts: [] }
    })
  }

  async list(did: Did, call: ListCall): Promise<ActorAnswers['list']> {
    return await this.#actors.use(did, async ({ store, head }) => {
      const held = this.#held()
      const rows = await store.list(call, held.known)
      const last = rows.at(-1)?.rkey
      const texts = rows.map((row) => this.#text(row, held.values))
      return { rev: head.rev, texts, ...(last === undefined ? {} : { last }) }
    })
  }

  async hydrate(did: Did, query: HydrateQuery): Promise<ActorAnswers['hydrate']> {
    return await this.#actors.use(did, async ({ store }) => {
      const { records, ...rest } = await store.hydrate(query)
      return { texts: records.map((row) => this.#text(row)), ...rest }
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
        if (row !== undefined) boundaries[uri] = boundaryNames(object(row.content)['boundary'])
      }
      return { boundaries }
    })
  }

  /** Brings all that was acknowledged to where other threads can read it. */
  async settle(did: Did): Promise<ActorAnswers['settle']> {
    return await this.#actors.use(did, async ({ behind, key }) => {
      behind.catchUp()
      return { signingKey: key.did }
    })
  }

  /** What this keeps of the content of records goes, for good. */
  forget(): void {
    this.#values = new Lru(valueCharsMax)
  }

  /** Values that one answer relies on: it has them also when they are no longer kept. */
  #held() {
    const values = new Map<Cid, string>()
    const known = (cid: Cid): boolean => {
      const value = this.#values.get(cid)
      if (value !== undefined) values.set(cid, value)
      return value !== undefined
    }
    return { values, known }
  }

  #text({ uri, cid, content }: FoundRecord, held: ReadonlyMap<Cid, string> = noValues): string {
    const value = held.get(cid) ?? this.#value(cid, content)
    // None of the characters of a URI or CID is written otherwise in JSON.
    return `{"uri":"${uri}","cid":"${cid}","value":${value}}`
  }

  #value(cid: Cid, content: Uint8Array | undefined): string {
    const kept = this.#values.get(cid)
    if (kept !== undefined) return kept
    assert(content !== undefined, 'what was not known was read')
    const value = JSON.stringify(object(content))
    this.#values.set(cid, value, value.length)
    return value
  }
}

const noValues: ReadonlyMap<Cid, string> = new Map()

/** JSON of records of one shard that is kept, in characters. */
const valueCharsMax = 8 * 1024 * 1024

function object(content: Uint8Array): DataObject {
  const value = decode(content)
  assert(isDataObject(value), 'a record is a map')
  return value
}
