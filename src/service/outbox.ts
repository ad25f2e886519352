import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { Lanes } from '../lib/lanes.ts'
import { Turns } from '../lib/turns.ts'
import type { Pds } from '../remote/pds.ts'
import type { ServiceStore } from '../store/service.ts'
import type { DepartureStore } from '../store/departure.ts'
import { Spending } from './budget.ts'
import type { CallActor, RowOutcome } from './calls.ts'
import { deliver, type Delivery } from './delivery.ts'
import type { Departures } from './departure.ts'
import { ActorSource, DepartureSource, type OutboxSource } from './outbox-source.ts'

interface Actor {
  /** Writes under way that may add a row. */
  holds: number
  /** Waits for its time, runs, waits for a sign-in, or has nothing to do but its hold. */
  state: 'resting' | 'queued' | 'running' | 'delayed' | 'parked'
  /** Something was added while it ran. */
  again: boolean
  timer?: ReturnType<typeof setTimeout>
}

export interface OutboxParts {
  readonly store: ServiceStore
  readonly call: CallActor
  /** The person's public repo, written with the person's own OAuth session. */
  readonly pds: (did: Did) => Pds
  /** Where the rows of people who left are, and the end of those. */
  readonly departing: { readonly store: DepartureStore; readonly departures: Departures }
  /** Of each person's write budget on the PDS. */
  readonly pointsPerHour: number
  /** What stubs name as their service, `{serviceDid}#{fragment}`. */
  readonly service: string
  /** Hears of people whose PDS refused or could not be used. */
  readonly troubled?: (did: Did) => void
  readonly log: Log
}

/**
 * Delivers what the actors' outboxes hold to their PDSes. Invariants:
 * - Rows live in the actor's database; here are only the names of actors that may have some.
 * - Such a name is in `outbox_dirty` before the first row is acknowledged, and goes only when the
 *   actor's outbox was seen empty with no write under way.
 * - An actor that has rows which were given up is in `outbox_parked`, for the operator.
 * - One actor is delivered by one task at a time, in order; many actors at once.
 *
 * For example: a write holds alice, its row is stored, the process is killed. At the next start
 * alice is among the dirty, her row is delivered, her outbox is found empty, her name is cleared.
 */
export class Outbox {
  readonly #parts: OutboxParts
  readonly #actors = new Map<Did, Actor>()
  readonly #queue: Did[] = []
  readonly #marks = new Turns<Did>()
  readonly #running = new Set<Promise<void>>()
  readonly #lanes = new Lanes<Did>(actorsOfPdsMax)
  readonly #spending: Spending
  readonly #counters = { settled: 0, postponed: 0, parked: 0, dropped: 0 }
  #stopped = false

  constructor(parts: OutboxParts) {
    this.#parts = parts
    this.#spending = new Spending(parts.pointsPerHour)
  }

  /** Takes up what was left by the process before this one. */
  async start(): Promise<void> {
    for (const did of await this.#parts.store.outboxDirty()) this.#found(did)
  }

  #found(did: Did): void {
    if (!this.#actors.has(did)) this.#actors.set(did, fresh())
    this.#enqueue(did)
  }

  /** Marks an actor whose mark may have been lost with the power, if it has rows. */
  async look(did: Did): Promise<void> {
    const { rows } = await this.#parts.call(did, 'sweep', { kind: 'outbox', limit: 1 })
    if (rows.length > 0) (await this.hold(did))()
  }

  /**
   * To be called before a write that may add rows; what it returns, after it. In between the
   * actor's mark stays, so that a row is never acknowledged without one.
   */
  async hold(did: Did): Promise<() => void> {
    const known = this.#actors.get(did)
    if (known !== undefined) known.holds += 1
    else {
      await this.#marks.run(did, async () => {
        await this.#parts.store.markOutbox(did)
        const actor = this.#actors.get(did) ?? fresh()
        actor.holds += 1
        this.#actors.set(did, actor)
      })
    }
    return () => {
      const actor = this.#actors.get(did)
      if (actor !== undefined) actor.holds -= 1
      this.#enqueue(did)
    }
  }

  /**
   * How many actors have work, and how many of them wait for their time or for a sign-in; and what
   * became of rows since the start. Dropped are stubs of collections that the person's PDS was not asked for.
   */
  counts(): OutboxCounts {
    const states = [...this.#actors.values()].map(({ state }) => state)
    const count = (wanted: Actor['state']) => states.filter((state) => state === wanted).length
    const actors = {
      waiting: states.length,
      delayed: count('delayed'),
      parked: count('parked'),
    }
    return { actors, rows: { ...this.#counters } }
  }

  /** What is done for an actor at the moment. */
  stateOf(did: Did): 'idle' | 'queued' | 'running' | 'delayed' | 'session-lost' {
    const state = this.#actors.get(did)?.state
    switch (state) {
      case undefined:
        return 'idle'
      case 'resting':
        return 'queued'
      case 'parked':
        return 'session-lost'
      case 'queued':
      case 'running':
      case 'delayed':
        return state
      default:
        return unreachable(state)
    }
  }

  /** A stub that cannot be written: the person has not granted that. */
  drop(): void {
    this.#counters.dropped += 1
  }

  /** The person has signed in again, or left: whatever it waited for, it is looked at now. */
  resume(did: Did): void {
    const actor = this.#actors.get(did)
    if (actor?.state === 'parked' || actor?.state === 'delayed') {
      clearTimeout(actor.timer)
      actor.state = 'resting'
    }
    this.#enqueue(did)
  }

  /** Begins nothing new and waits a little for what runs: a delivery survives being cut off. */
  async stop(): Promise<void> {
    this.#stopped = true
    for (const actor of this.#actors.values()) clearTimeout(actor.timer)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, stopMsMax)
    await Promise.race([Promise.all(this.#running), late])
    clearTimeout(timer)
  }

  #enqueue(did: Did): void {
    const actor = this.#actors.get(did)
    if (actor === undefined || this.#stopped) return
    if (actor.state === 'running') actor.again = true
    if (actor.state !== 'resting') return
    actor.state = 'queued'
    this.#queue.push(did)
    this.#next()
  }

  #next(): void {
    while (!this.#stopped && this.#running.size < actorsAtOnceMax) {
      const did = this.#queue.shift()
      const actor = did === undefined ? undefined : this.#actors.get(did)
      if (did === undefined || actor === undefined) return
      actor.state = 'running'
      actor.again = false
      const task = this.#run(did, actor).finally(() => {
        this.#running.delete(task)
        this.#next()
      })
      this.#running.add(task)
    }
  }

  async #run(did: Did, actor: Actor): Promise<void> {
    const lane = await this.#laneOf(did)
    if (!this.#lanes.enter(lane, did)) {
      actor.state = 'queued'
      return
    }
    try {
      await this.#turn(did, actor)
    } finally {
      const next = this.#lanes.leave(lane)
      // First in line: it has waited in another one already.
      if (next !== undefined) this.#queue.unshift(next)
    }
  }

  /** A PDS that takes its time holds up its own people, and leaves room for those of others. */
  async #laneOf(did: Did): Promise<string> {
    try {
      return (await this.#parts.store.enrollment(did))?.pdsEndpoint ?? departuresLane
    } catch (error) {
      this.#parts.log.error('outbox.failed', { did, error })
      return departuresLane
    }
  }

  async #turn(did: Did, actor: Actor): Promise<void> {
    const outcome = await this.#deliver(did)
    actor.state = 'resting'
    switch (outcome.kind) {
      case 'empty':
        // A hold that is still open enqueues by itself when it ends.
        if (actor.again) this.#enqueue(did)
        else await this.#clear(did, actor)
        return
      case 'later':
        actor.state = 'delayed'
        actor.timer = setTimeout(
          () => {
            actor.state = 'resting'
            this.#enqueue(did)
          },
          Math.min(outcome.waitMs, longestTimerMs),
        )
        return
      case 'stuck':
        if (actor.again) return this.#enqueue(did)
        actor.state = 'parked'
        return
      case 'session-lost':
        // A sign-in may have come during the very try that found the old session lost.
        if (actor.again) return this.#enqueue(did)
        actor.state = 'parked'
        this.#parts.log.warn('outbox.session.lost', { did })
        return
    }
  }

  async #deliver(did: Did): Promise<Delivery> {
    const { store, call, log, departing } = this.#parts
    const departed = async () => (await departing.store.departure(did)) !== undefined
    let leaves = false
    try {
      leaves = await departed()
      if (leaves) return await this.#deliverDeparture(did)
      // Without a row the enrollment did not come about, and neither did anything it queued.
      if ((await store.enrollment(did)) === undefined) return { kind: 'empty' }
      return await this.#deliverFrom(did, new ActorSource(did, { call, store }))
    } catch (error) {
      // The repo was closed under our hands: what is left of it is in the departure now.
      if (!leaves && (await departed().catch(() => false))) return { kind: 'later', waitMs: 0 }
      log.error('outbox.failed', { did, error })
      const random = Math.random()
      const waitMs = backoffMs({ attempt: 6, firstMs: 1_000, mostMs: 60_000, random })
      return { kind: 'later', waitMs }
    }
  }

  async #deliverDeparture(did: Did): Promise<Delivery> {
    const { store, departures } = this.#parts.departing
    const outcome = await this.#deliverFrom(did, new DepartureSource(did, store))
    if (outcome.kind !== 'empty') return outcome
    const end = await departures.finish(did)
    if (end === 'unerased') return { kind: 'later', waitMs: unerasedMs }
    return end === 'finished' ? outcome : { kind: 'stuck' }
  }

  async #deliverFrom(did: Did, source: OutboxSource): Promise<Delivery> {
    const { pds, service, troubled, log } = this.#parts
    const stopped = () => this.#stopped
    const count = (outcome: RowOutcome['kind']) => void (this.#counters[outcome] += 1)
    const spending = this.#spending
    const about = { did, source, spending, pds: pds(did), service, troubled, log }
    return await deliver({ ...about, stopped, count })
  }

  /** To be called when nothing is delivered, and so nothing given up meanwhile. */
  async #clearParked(did: Did): Promise<void> {
    const { store, call } = this.#parts
    if (!(await store.isParked(did))) return
    const isHere = (await store.enrollment(did)) !== undefined
    const ask = { kind: 'outbox-state', parkedMax: 0 } as const
    if (isHere && (await call(did, 'outbox', ask)).parkedCount > 0) return
    await store.clearParked(did)
  }

  async #clear(did: Did, actor: Actor): Promise<void> {
    await this.#marks.run(did, async () => {
      if (actor.holds > 0 || actor.state !== 'resting') return
      // Out of the map first: a hold that comes now waits for this turn and marks anew.
      this.#actors.delete(did)
      try {
        await this.#clearParked(did)
        await this.#parts.store.clearOutbox(did)
      } catch (error) {
        // The mark stays, and costs one look at the next start.
        this.#parts.log.error('outbox.failed', { did, error })
      }
    })
  }
}

function fresh(): Actor {
  return { holds: 0, state: 'resting', again: false }
}

interface OutboxCounts {
  readonly actors: Readonly<Record<'waiting' | 'delayed' | 'parked', number>>
  readonly rows: Readonly<Record<RowOutcome['kind'] | 'dropped', number>>
}

const actorsAtOnceMax = 16
/** Of one PDS at once: half of the room, so that one alone cannot take all of it. */
const actorsOfPdsMax = 8
/** For people who left: where their PDS is, is no longer known here. */
const departuresLane = ''
/** Erasing takes no longer, unless it failed; then it is tried again in the background. */
const unerasedMs = 5_000
const stopMsMax = 3_000
/** Node's timers overflow above 2^31 ms; a longer wait is looked at again in between. */
const longestTimerMs = 3_600_000
