import { messageFrame } from '../atproto/stream-frame.ts'
import { assert } from '../lib/assert.ts'
import type { EventsAnswer } from '../service/calls.ts'
import type { Happened } from './following.ts'
import type { Outlet } from './outlet.ts'

export interface FeedParts {
  readonly outlet: Outlet
  /** Whether the reader may have what happened just as it comes, now. */
  readonly isFit: (event: Happened) => boolean
  /** Reads the log of the actor. */
  readonly page: (after: number) => Promise<EventsAnswer>
  /** Named where the stream has more than one. */
  readonly actor?: { readonly did: string }
}

/**
 * What one reader gets of one actor: every event once, in order. Invariants:
 *
 * - All up to `#last` was sent, or is not for this reader; nothing beyond it was.
 * - A page is read while `#state` is `reading`; what happens meanwhile only raises `#seen`.
 * - What happens is sent as it comes while `#state` is `live` and it follows `#last`; anything else
 *   is read from the log.
 *
 * For example: a page ends at 7; event 8 is stored before the page arrives, and its push raises
 * `#seen` to 8. As 8 is beyond 7 another page is read, from 7. Had the push come after that page, it
 * would end at 8, and the push of 8, not beyond `#last`, would be passed over.
 */
export class ActorFeed {
  readonly #parts: FeedParts
  #state: 'reading' | 'live' | 'stopped' = 'reading'
  #last: number
  #told: number
  #seen = 0
  #pending: Uint8Array[] = []

  /**
   * @param last the last event that the reader has, or is not to have
   * @param told as far as the reader knows of it
   */
  constructor(parts: FeedParts, last: number, told = last) {
    this.#parts = parts
    this.#last = last
    this.#told = told
  }

  /** Of the last event that the reader knows of: what is not for them leaves no trace in it. */
  get told(): number {
    return this.#told
  }

  /** All up to there was sent, or is not for this reader. */
  get last(): number {
    return this.#last
  }

  /** Where the log is known to end; undefined where nobody has said so yet. */
  get end(): number | undefined {
    return this.#seen === 0 ? undefined : Math.max(this.#seen, this.#last)
  }

  /** The log was just seen to end there. */
  reaches(seq: number): void {
    this.#seen = Math.max(this.#seen, seq)
  }

  /** Whether all that happened so far was sent, or was not for this reader. */
  get isLive(): boolean {
    return this.#state === 'live'
  }

  /** The log ends at the cursor, as was just asked. @returns false where it has grown since */
  goLive(): boolean {
    if (this.#seen > this.#last) return false
    this.#state = 'live'
    return true
  }

  /** Nothing is sent any more, not even the rest of a page. */
  stop(): void {
    this.#state = 'stopped'
    this.#pending = []
  }

  /** Sends what the log has; what happens later is sent as it comes. */
  async catchUp(): Promise<void> {
    const { outlet, actor } = this.#parts
    while (this.#isWanted) {
      const page = await this.#parts.page(this.#last)
      if (!this.#isWanted) return
      // Whoever reads one actor from the start is told nothing new; of many, they know nothing yet.
      const asksForRest = this.#last === 0 && actor === undefined
      if (page.pruned > this.#last && !asksForRest) {
        outlet.send([messageFrame('#info', { name: 'OutdatedCursor', ...actor })])
      }
      await outlet.sendPage(framesOf(page), () => this.#isWanted)
      if (!this.#isWanted) return
      this.#told = page.seqs.at(-1) ?? this.#told
      assert(page.last > this.#last || page.head <= this.#last, 'a log has what its head has')
      this.#last = Math.max(page.last, this.#last)
      if (page.head > this.#last || this.#seen > this.#last) continue
      this.#state = 'live'
      return
    }
  }

  /**
   * @param isBusy says that what happens is better read from the log, when there is room for it
   * @returns true where the log has to be read
   */
  happened(event: Happened, isBusy = false): boolean {
    const { seq, prev, frame } = event
    if (seq <= this.#last || this.#state === 'stopped') return false
    this.#seen = Math.max(this.#seen, seq)
    if (this.#state === 'reading') return false
    if (prev !== this.#last || isBusy || !this.#parts.isFit(event)) {
      this.#state = 'reading'
      return true
    }
    this.#last = seq
    this.#told = seq
    this.#pending.push(frame)
    return false
  }

  /** Frames to be sent now. */
  take(): readonly Uint8Array[] {
    const pending = this.#pending
    this.#pending = []
    return pending
  }

  get #isWanted(): boolean {
    return this.#parts.outlet.isOpen && this.#state !== 'stopped'
  }
}

function framesOf({ bytes, lengths }: EventsAnswer): Uint8Array[] {
  let at = 0
  return lengths.map((length) => bytes.subarray(at, (at += length)))
}
