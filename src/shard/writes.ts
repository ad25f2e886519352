import { overloaded } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import { Mst } from '../atproto/mst.ts'
import { type Did, recordUri } from '../atproto/syntax.ts'
import type { Turns } from '../lib/turns.ts'
import type { ActorAnswers, ActorCall } from '../service/calls.ts'
import {
  planFirst,
  planWrite,
  type RepoState,
  type WriteAnswer,
  type WriteCall,
} from '../service/write.ts'
import type { WriteContext } from '../service/write-op.ts'
import type { Change } from '../store/actor-change.ts'
import type { Journal } from '../store/journal.ts'
import type { Actors, OpenActor } from './actors.ts'
import type { Events } from './events.ts'
import type { ShardBoot } from './messages.ts'
import type { Repos } from './repos.ts'

type WriteRequest = WriteCall & { readonly did: Did; readonly requestId: string }

interface Waiting {
  readonly request: WriteRequest
  readonly resolve: (answer: WriteAnswer) => void
  readonly reject: (error: unknown) => void
}

interface Decided {
  /** Absent for a refused and for a changeless write. */
  readonly change?: Change | undefined
  /** Tells the caller, refusals too: they rest on the writes that were decided before. */
  readonly settle: () => void
}

interface Parts {
  readonly boot: Pick<ShardBoot, 'rules' | 'clockId'>
  readonly journal: Journal
  readonly schemas: Schemas
  readonly turns: Turns<Did>
  readonly events: Events
}

/**
 * The writes of one shard. Invariants:
 * - One batch of an actor runs at a time, and the head and tree move only after it is stored.
 * - Every write of a batch has its own commit, rev and seq, decided on the state before it.
 * - A refused write changes nothing for its neighbours, neither does one that cannot be stored.
 * - Nobody is answered, not even by a refusal, before what the answer rests on is stored.
 *
 * For example: create A, create B and delete A arrive in one tick. They are decided in that order,
 * each on the tree that the one before left, and stored in one transaction. Should it fail, head
 * and tree are as before, and A, B and the delete are each tried alone.
 */
export class Writes {
  readonly #actors: Actors
  readonly #repos: Repos
  readonly #parts: Parts
  readonly #waiting = new Map<Did, Waiting[]>()

  constructor(actors: Actors, repos: Repos, parts: Parts) {
    this.#actors = actors
    this.#repos = repos
    this.#parts = parts
  }

  /** Makes the actor's repo with its empty commit, or only queues where there already is one. */
  async open(
    did: Did,
    { outbox, after, budget }: Extract<ActorCall, { kind: 'open' }>,
  ): Promise<ActorAnswers['open']> {
    const { turns, boot, events } = this.#parts
    return await turns.run(did, async () => {
      let created = false
      await this.#actors.create(did, async (store, key) => {
        const { vouched } = events
        const context = { did, key, clockId: boot.clockId, nowMs: Date.now(), vouched }
        if (budget !== undefined) await store.outbox.setBudget(budget)
        // What was before the person left is in no log, and whoever read all of it has to learn
        // that it is gone: one event more is missing than they have.
        const last = after === undefined ? undefined : { ...after, seq: after.seq + 1 }
        if (last !== undefined) await store.pruneTo(last.seq)
        await store.apply([planFirst({ tree: Mst.empty, outbox, after: last }, context)])
        created = true
      })
      return await this.#actors.use(did, async ({ store, head }) => {
        if (!created) {
          await store.outbox.queue(outbox)
          // The person was here: what their PDS refused before may be possible now.
          await store.outbox.unpark()
        }
        return { rev: head.rev }
      })
    })
  }

  async write(request: WriteRequest): Promise<WriteAnswer> {
    const { did } = request
    const { promise, resolve, reject } = Promise.withResolvers<WriteAnswer>()
    const waiting = { request, resolve, reject }
    const queue = this.#waiting.get(did)
    if (queue === undefined) {
      this.#waiting.set(did, [waiting])
      void this.#parts.turns.run(did, () => this.#runBatch(did))
    } else {
      const waits = queue.reduce((sum, one) => sum + one.request.ops.length, 0)
      if (queue.length >= batchMax || waits + request.ops.length > batchOpsMax) {
        throw overloaded('too many writes of this account are waiting')
      }
      queue.push(waiting)
    }
    return await promise
  }

  /** Decides and stores what waits for this actor; every waiting promise is settled by it. */
  async #runBatch(did: Did): Promise<void> {
    const batch = this.#waiting.get(did) ?? []
    this.#waiting.delete(did)
    try {
      await this.#actors.use(did, (actor) => this.#storeTogether(actor, batch))
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  async #storeTogether(actor: OpenActor, batch: readonly Waiting[]): Promise<void> {
    const start = await this.#state(actor)
    const { decided, state } = await this.#decide(actor, start, batch)
    const changes = decided.flatMap(({ change }) => (change === undefined ? [] : [change]))
    if (changes.length > 0) {
      try {
        await this.#parts.journal.store(actor.behind, changes)
      } catch (error) {
        await this.#repos.reload(actor)
        throw error
      }
      actor.head = state.head
      this.#repos.keep(actor.did, state.tree)
      this.#parts.events.stored(changes)
    }
    for (const { settle } of decided) settle()
  }

  /** Each on the state that the one before it left. */
  async #decide(
    actor: OpenActor,
    start: RepoState,
    batch: readonly Waiting[],
  ): Promise<{ decided: Decided[]; state: RepoState }> {
    const decided: Decided[] = []
    let state = start
    for (const { request, resolve, reject } of batch) {
      try {
        const plan = await planWrite(state, request, this.#context(actor))
        state = plan.state
        decided.push({ change: plan.change, settle: () => resolve(plan.answer) })
      } catch (error) {
        decided.push({ settle: () => reject(error) })
      }
    }
    return { decided, state }
  }

  #context({ did, key, store }: OpenActor): WriteContext {
    const { boot, schemas, events } = this.#parts
    return {
      did,
      key,
      schemas,
      rules: boot.rules,
      clockId: boot.clockId,
      nowMs: Date.now(),
      vouched: events.vouched,
      content: async (collection, rkey) =>
        (await store.record(recordUri(did, collection, rkey), 'all'))?.content,
      blob: (cid) => store.blobs.find(cid),
    }
  }

  async #state(actor: OpenActor): Promise<RepoState> {
    return { head: actor.head, tree: await this.#repos.tree(actor), fresh: new Map() }
  }
}

/** Writes of one actor that share a transaction; more are refused until it is stored. */
const batchMax = 64
/** Their operations: a transaction of more would hold up the other actors of the shard. */
const batchOpsMax = 400
