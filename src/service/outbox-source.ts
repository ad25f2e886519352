import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { Budget, OutboxKey, OutboxRow } from '../store/actor-outbox.ts'
import type { DepartureStore } from '../store/departure.ts'
import type { ServiceStore } from '../store/service.ts'
import type { CallActor, RowOutcome } from './calls.ts'

/** Where the rows of one person come from, and who is told what became of them. */
export interface OutboxSource {
  /** The oldest undelivered rows, in the order in which they must be delivered. */
  read(limit: number): Promise<{ readonly rows: readonly OutboxRow[]; readonly budget?: Budget }>
  report(row: OutboxKey, outcome: RowOutcome, budget: Budget): Promise<void>
}

/** The outbox of an actor who is here. */
export class ActorSource implements OutboxSource {
  readonly #did: Did
  readonly #call: CallActor
  readonly #store: ServiceStore

  constructor(did: Did, parts: { readonly call: CallActor; readonly store: ServiceStore }) {
    this.#did = did
    this.#call = parts.call
    this.#store = parts.store
  }

  async read(limit: number) {
    return await this.#call(this.#did, requestId, { kind: 'outbox', limit })
  }

  async report(row: OutboxKey, outcome: RowOutcome, budget: Budget): Promise<void> {
    // First: a mark too many costs a look, a row without one is never found.
    if (outcome.kind === 'parked') await this.#store.markParked(this.#did)
    await this.#call(this.#did, requestId, { kind: 'report', row, outcome, budget })
  }
}

/** What is left to be deleted of somebody who left. */
export class DepartureSource implements OutboxSource {
  readonly #did: Did
  readonly #departures: DepartureStore

  constructor(did: Did, departures: DepartureStore) {
    this.#did = did
    this.#departures = departures
  }

  async read(limit: number) {
    const budget = await this.#departures.budget(this.#did)
    const rows = await this.#departures.rows(this.#did, limit)
    return { rows, ...(budget === undefined ? {} : { budget }) }
  }

  async report(row: OutboxKey, outcome: RowOutcome, budget: Budget): Promise<void> {
    const entry = { did: this.#did, row, budget }
    switch (outcome.kind) {
      case 'settled':
        return await this.#departures.settle(entry)
      case 'postponed':
        return await this.#departures.postpone(entry, outcome.nextAttemptAtMs)
      case 'parked':
        return await this.#departures.park(entry, outcome.reason)
      default:
        return unreachable(outcome)
    }
  }
}

const requestId = 'outbox'
