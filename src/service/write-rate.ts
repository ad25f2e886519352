import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'

export interface WriteRateRules {
  /** In `unit`, within any `windowMs`. */
  readonly limit: number
  /** Points by which a PDS counts, or writes. */
  readonly unit: 'points' | 'writes'
  readonly windowMs: number
  /** How long nothing is taken from who went over the limit; up to half of it is added by chance. */
  readonly cooldownMs: number
}

interface Surroundings {
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
  /** From 0 to 1, as `Math.random`. */
  readonly random: () => number
  readonly writersMax?: number
}

export type WriteAction = 'create' | 'update' | 'delete'

/** What became of an attempt. */
export type Attempt =
  | ({ readonly kind: 'taken' } & Standing)
  /** The same attempt passes after `waitMs` when there is none between. */
  | ({ readonly kind: 'refused'; readonly waitMs: number } & Standing)
  /** One call costs more than there ever is. */
  | { readonly kind: 'too-large'; readonly cost: number }

interface Standing {
  readonly remaining: number
  /** Until the whole limit is there again. */
  readonly resetMs: number
}

/**
 * How much each person may write.
 *
 * - No window of time, wherever it begins, sees more than the limit of one person's writes.
 * - Writes are remembered by slots of a part of the window, not one by one, and a slot is forgotten
 *   whole once its youngest write is out of the window: so memory is bounded, and a write may count
 *   for a slot's length longer than the window.
 * - Whoever goes over the limit waits for room, and for a cooldown, the end of which nobody else
 *   shares. Attempts during it cost nothing and lengthen nothing.
 * - When too many people write at once, further ones share one account.
 *
 * With a limit of 3 in 60 s: writes at 0, 1 and 2 s are taken, one at 3 s is refused and begins a
 * cooldown, and is taken at 61 s, when the slot of the first is forgotten.
 */
export class WriteRate {
  readonly rules: WriteRateRules
  readonly #now: () => number
  readonly #random: () => number
  readonly #writersMax: number
  readonly #slotMs: number
  readonly #writers = new Map<Did | '', Writer>()
  #sweptAtMs = Number.NEGATIVE_INFINITY

  constructor(rules: WriteRateRules, { now, random, writersMax = knownWritersMax }: Surroundings) {
    this.rules = rules
    this.#now = now
    this.#random = random
    this.#writersMax = writersMax
    this.#slotMs = Math.ceil(rules.windowMs / slotsOfWindow)
  }

  /** Counts the operations of one call, all of them or none. */
  take(did: Did, actions: readonly WriteAction[]): Attempt {
    const { limit, unit, cooldownMs } = this.rules
    const cost = costOf(actions, unit)
    if (cost > limit) return { kind: 'too-large', cost }
    const nowMs = this.#now()
    const writer = this.#writer(did, nowMs)
    this.#forget(writer, nowMs)
    const isOpen = nowMs >= writer.opensAtMs
    if (isOpen && spentBy(writer) + cost <= limit) {
      this.#spend(writer, { cost, nowMs })
      return { kind: 'taken', ...this.#standing(writer, nowMs) }
    }
    if (isOpen) writer.opensAtMs = nowMs + cooldownMs * (1 + this.#random() / 2)
    const waitMs = Math.max(writer.opensAtMs - nowMs, this.#roomMs(writer, { cost, nowMs }))
    return { kind: 'refused', waitMs: Math.ceil(waitMs), ...this.#standing(writer, nowMs) }
  }

  #standing(writer: Writer, nowMs: number): Standing {
    const { limit } = this.rules
    const coolingMs = Math.max(0, writer.opensAtMs - nowMs)
    const roomMs = this.#roomMs(writer, { cost: limit, nowMs })
    const remaining = coolingMs > 0 ? 0 : limit - spentBy(writer)
    return { remaining, resetMs: Math.max(coolingMs, roomMs) }
  }

  /** Until so many slots are forgotten that `cost` fits in. */
  #roomMs(writer: Writer, { cost, nowMs }: { readonly cost: number; readonly nowMs: number }) {
    let spent = spentBy(writer)
    for (const { slot, cost: freed } of writer.slots) {
      if (spent + cost <= this.rules.limit) break
      spent -= freed
      if (spent + cost <= this.rules.limit) return this.#endMs(slot) - nowMs
    }
    return 0
  }

  #spend(writer: Writer, { cost, nowMs }: { readonly cost: number; readonly nowMs: number }): void {
    const slot = Math.floor(nowMs / this.#slotMs)
    const last = writer.slots.at(-1)
    if (last?.slot === slot) last.cost += cost
    else if (cost > 0) writer.slots.push({ slot, cost })
  }

  #forget(writer: Writer, nowMs: number): void {
    const kept = writer.slots.findIndex(({ slot }) => this.#endMs(slot) > nowMs)
    writer.slots.splice(0, kept < 0 ? writer.slots.length : kept)
    assert(writer.slots.length <= slotsOfWindow + 1, 'a window has so many slots')
  }

  /** When the last write that a slot may hold is out of the window. */
  #endMs(slot: number): number {
    return (slot + slotsOfWindow + 1) * this.#slotMs
  }

  #writer(did: Did, nowMs: number): Writer {
    const known = this.#writers.get(did)
    if (known !== undefined) return known
    this.#sweep(nowMs)
    const shared = this.#writers.get('')
    const isFull = this.#writers.size >= this.#writersMax
    if (isFull && shared !== undefined) return shared
    // Who leaves the shared account may have written all that is in it.
    const slots = (shared?.slots ?? []).map(({ slot, cost }) => ({ slot, cost }))
    const writer = { slots, opensAtMs: shared?.opensAtMs ?? nowMs }
    this.#writers.set(isFull ? '' : did, writer)
    return writer
  }

  /** Drops who has the whole limit again: when it is full, and at most once in a slot's time. */
  #sweep(nowMs: number): void {
    if (this.#writers.size < this.#writersMax || nowMs < this.#sweptAtMs + this.#slotMs) return
    this.#sweptAtMs = nowMs
    for (const [key, writer] of this.#writers) {
      this.#forget(writer, nowMs)
      if (writer.slots.length === 0 && writer.opensAtMs <= nowMs) this.#writers.delete(key)
    }
  }
}

interface Writer {
  /** Oldest first; of a slot's length each, numbered from the clock's beginning. */
  readonly slots: { readonly slot: number; cost: number }[]
  /** End of the cooldown. */
  opensAtMs: number
}

/** More slots forget more exactly and take more memory: each is some 40 bytes of a busy writer. */
const slotsOfWindow = 60
/** People with an account of their own: 50 MB if each of them wrote in every slot. */
const knownWritersMax = 20_000

function costOf(actions: readonly WriteAction[], unit: WriteRateRules['unit']): number {
  if (unit === 'writes') return actions.length
  return actions.reduce((sum, action) => sum + points[action], 0)
}

/** @see https://docs.bsky.app/docs/advanced-guides/rate-limits */
const points = { create: 3, update: 2, delete: 1 } as const

function spentBy({ slots }: Writer): number {
  return slots.reduce((sum, { cost }) => sum + cost, 0)
}
