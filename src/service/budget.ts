import type { Budget, OutboxRow } from '../store/actor-outbox.ts'

/**
 * How much of a person's write budget on the PDS is used, in the points by which a PDS counts: the
 * other half of it is the person's own.
 *
 * Half of an hour's points may be used at once, and come back over an hour: so no hour, wherever it
 * begins, sees more than all of them.
 * @see protocol.md, section 8
 */
export class Spending {
  readonly #atOnce: number
  readonly #perMs: number

  constructor(pointsPerHour: number) {
    this.#atOnce = pointsPerHour / 2
    this.#perMs = pointsPerHour / 2 / hourMs
  }

  /** What there is now; a budget that was never touched is full. */
  now(budget: Budget | undefined, nowMs: number): Budget {
    if (budget === undefined) return { points: this.#atOnce, atMs: nowMs }
    // A clock that was set back gives nothing and takes nothing.
    const passedMs = Math.max(0, nowMs - budget.atMs)
    return { points: Math.min(this.#atOnce, budget.points + passedMs * this.#perMs), atMs: nowMs }
  }

  /** How long to wait until `points` can be spent. */
  waitMs(budget: Budget, points: number): number {
    return Math.max(0, Math.ceil((points - budget.points) / this.#perMs))
  }
}

export function spend(budget: Budget, points: number): Budget {
  return { ...budget, points: budget.points - points }
}

/** What a PDS counts for bringing a key to what the row wants. */
export function pointsOf(row: Pick<OutboxRow, 'record' | 'pdsCid'>): number {
  if (row.record === null) return 1
  return row.pdsCid === null ? 3 : 2
}

const hourMs = 3_600_000
