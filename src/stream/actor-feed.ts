import { messageFrame } from '../atproto/stream-frame.ts'
import type { EventsAnswer } from '../service/calls.ts'
import type { Eyes } from '../service/event-view.ts'
import type { Happened } from './following.ts'
import type { Outlet } from './outlet.ts'

export interface FeedParts {
  readonly outlet: Outlet
  /** Whether `eyes` are those that see all boundaries of the service. */
  readonly eyes: Eyes
  readonly seesWhole: boolean
  /** Reads the log of the actor. */
  readonly page: (after: number) => Promise<EventsAnswer>
}

/**
 * What one reader gets of one actor: every event once, in order. Invariants:
 *
 * - All up to `#last` was sent, nothing beyond it.
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
  #state: 'reading' | 'live' = 'reading'
  #last: number
  #seen = 0
  #pending: Uint8Array[] = []

  constructor(parts: FeedParts, cursor: number) {
    this.#parts = parts
    this.#last = cursor
  }

  get last(): number {
    return this.#last
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

  /** Sends what the log has; what happens later is sent as it comes. */
  async catchUp(): Promise<void> {
    const { outlet } = this.#parts
    this.#state = 'reading'
    while (outlet.isOpen) {
      const page = await this.#parts.page(this.#last)
      if (this.#last > 0 && page.pruned > this.#last) {
        outlet.send([messageFrame('#info', { name: 'OutdatedCursor' })])
      }
      await outlet.sendPage(framesOf(page))
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
  happened({ seq, prev, isWhole, frame }: Happened, isBusy = false): boolean {
    if (seq <= this.#last) return false
    this.#seen = Math.max(this.#seen, seq)
    if (this.#state === 'reading') return false
    const { eyes, seesWhole } = this.#parts
    const isFit = eyes === 'all' || (seesWhole && isWhole)
    if (prev !== this.#last || !isFit || isBusy) {
      this.#state = 'reading'
      return true
    }
    this.#last = seq
    this.#pending.push(frame)
    return false
  }

  /** Frames to be sent now. */
  take(): readonly Uint8Array[] {
    const pending = this.#pending
    this.#pending = []
    return pending
  }
}

function framesOf({ bytes, lengths }: EventsAnswer): Uint8Array[] {
  let at = 0
  return lengths.map((length) => bytes.subarray(at, (at += length)))
}
