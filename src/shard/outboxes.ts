import { decode } from '../atproto/cbor.ts'
import { isDataObject } from '../atproto/data.ts'
import { enrollmentCollection } from '../atproto/enrollment.ts'
import { type Did, recordUri } from '../atproto/syntax.ts'
import { assert, unreachable } from '../lib/assert.ts'
import type { Turns } from '../lib/turns.ts'
import type { ActorAnswers, ActorCall, RestubCall } from '../service/calls.ts'
import { saidTime, stubOf } from '../service/stub.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { ActorOutbox } from '../store/actor-outbox.ts'
import type { Actors } from './actors.ts'

type Report = Extract<ActorCall, { kind: 'report' }>

/** What the PDSes of one shard's actors still have to be told. */
export class Outboxes {
  readonly #actors: Actors
  readonly #turns: Turns<Did>
  readonly #rules: WriteRules

  constructor(actors: Actors, turns: Turns<Did>, rules: WriteRules) {
    this.#actors = actors
    this.#turns = turns
    this.#rules = rules
  }

  async queue(did: Did, entries: Extract<ActorCall, { kind: 'queue' }>['outbox']) {
    await this.#use(did, (outbox) => outbox.queue(entries))
    return {}
  }

  async rows(did: Did, limit: number): Promise<ActorAnswers['outbox']> {
    return await this.#use(did, async (outbox) => {
      const budget = await outbox.budget()
      return { rows: await outbox.rows(limit), ...(budget === undefined ? {} : { budget }) }
    })
  }

  async state(did: Did, parkedMax: number): Promise<ActorAnswers['outbox-state']> {
    return await this.#use(did, (outbox) => outbox.state(parkedMax))
  }

  async report(did: Did, { row, outcome, budget }: Report): Promise<ActorAnswers['report']> {
    await this.#use(did, async (outbox) => {
      switch (outcome.kind) {
        case 'settled':
          return await outbox.settle(row, outcome.pdsCid, budget)
        case 'postponed':
          return await outbox.postpone(row, outcome.nextAttemptAtMs, budget)
        case 'parked':
          return await outbox.park(row, outcome.reason, budget)
        default:
          return unreachable(outcome)
      }
    })
    return {}
  }

  async restub(did: Did, call: RestubCall): Promise<ActorAnswers['restub']> {
    // In the actor's turn no record comes or goes between the look and the queuing.
    return await this.#turns.run(did, () =>
      this.#use(did, (outbox) =>
        call.wanted === 'off' ? clear(outbox, call) : this.#announce(outbox, did, call),
      ),
    )
  }

  /** Queues stubs for records that have none. */
  async #announce(
    outbox: ActorOutbox,
    did: Did,
    { collection, after }: Extract<RestubCall, { wanted: 'full' }>,
  ) {
    const first = `at://${did}/${collection}/`
    const range = { after: after === '' ? first : after, end: `${first}\x7f`, limit: pageMax }
    const page = await outbox.unannounced(range)
    await outbox.queue(
      page.map(({ cid, rkey, indexedAt, content }) => {
        const createdAt = createdAtOf(content) ?? indexedAt
        const uri = recordUri(did, collection, rkey)
        const stub = stubOf({ collection, uri, cid, createdAt, rules: this.#rules })
        return { collection, rkey, record: JSON.stringify(stub) }
      }),
    )
    return restubbed(page.map(({ uri }) => uri))
  }

  async #use<Result>(did: Did, task: (outbox: ActorOutbox) => Promise<Result>): Promise<Result> {
    return await this.#actors.use(did, ({ store }) => task(store.outbox))
  }
}

/**
 * Queues the deletion of every stub that stands, or may come to stand: also in collections that hold
 * private records no longer.
 */
async function clear(outbox: ActorOutbox, { after }: RestubCall) {
  const [collection = '', rkey = ''] = after.split('/')
  const page = await outbox.standing({ collection, rkey }, enrollmentCollection, pageMax)
  await outbox.queue(page.map((place) => ({ ...place, record: null })))
  return restubbed(page.map((place) => `${place.collection}/${place.rkey}`))
}

function restubbed(keys: readonly string[]): ActorAnswers['restub'] {
  const next = keys.length < pageMax ? undefined : keys.at(-1)
  return { queued: keys.length, ...(next === undefined ? {} : { next }) }
}

/** Rows of one transaction: other calls of the shard wait for it. */
const pageMax = 200

/** The time that the record itself gives, if it gives one. */
function createdAtOf(content: Uint8Array): string | undefined {
  const record = decode(content)
  assert(isDataObject(record), 'a record is a map')
  return saidTime(record)
}
