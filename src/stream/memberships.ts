import { messageFrame } from '../atproto/stream-frame.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { Eyes } from '../service/event-view.ts'
import type { MemberLog } from '../store/member-log.ts'
import type { ServiceStore } from '../store/service.ts'

interface Parts {
  readonly store: ServiceStore
  readonly members: MemberLog
  readonly enrollments: Enrollments
  /** Public URL of the service. */
  readonly service: string
}

/** How somebody stands, or that they are not there any more. */
export interface Membership {
  readonly did: Did
  readonly isEnrolled: boolean
  readonly frame: Uint8Array
}

/**
 * Who is enrolled, first as it stands and then as it changes. What is told of those who are there is
 * how they stand now: of several changes that are read at once the last one counts for all.
 */
export class Memberships {
  readonly #parts: Parts
  /** The last change that was read, or the last before the first page. */
  #seq = 0

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Everybody who is enrolled. Changes from the first page on are told by `changes`. */
  async *present(eyes: Eyes): AsyncGenerator<readonly Membership[]> {
    const { store, members } = this.#parts
    this.#seq = await members.last()
    for (let after = ''; ;) {
      const dids = await store.enrolledDids(after, pageMax)
      const last = dids.at(-1)
      if (last === undefined) return
      after = last
      const time = new Date().toISOString()
      const found = await Promise.all(dids.map((did) => this.#of(did, { eyes, time })))
      yield found.filter(({ isEnrolled }) => isEnrolled)
    }
  }

  /**
   * What changed since this was last asked, in its order. Whoever left is said to have left, also
   * when they are back by now: what was theirs is gone.
   */
  async *changes(eyes: Eyes): AsyncGenerator<readonly Membership[]> {
    for (;;) {
      const events = await this.#parts.members.after(this.#seq, pageMax)
      const found: Membership[] = []
      for (const { did, time, seq, action } of events) {
        this.#seq = seq
        found.push(await this.#of(did, { eyes, time, hasLeft: action === 'unenroll' }))
      }
      if (found.length > 0) yield found
      if (events.length < pageMax) return
    }
  }

  /** Of some accounts those that are not enrolled. */
  async absent(dids: readonly Did[], eyes: Eyes): Promise<readonly Membership[]> {
    const time = new Date().toISOString()
    const found = await Promise.all(dids.map((did) => this.#of(did, { eyes, time })))
    return found.filter(({ isEnrolled }) => !isEnrolled)
  }

  async isEnrolled(did: Did): Promise<boolean> {
    return (await this.#parts.enrollments.find(did)) !== undefined
  }

  async #of(
    did: Did,
    at: { readonly eyes: Eyes; readonly time: string; readonly hasLeft?: boolean },
  ): Promise<Membership> {
    const { eyes, time, hasLeft = false } = at
    const { enrollments, service } = this.#parts
    const seq = this.#seq
    const enrollment = hasLeft ? undefined : await enrollments.find(did)
    const boundaries = (enrollment?.boundaries ?? []).filter(
      (one) => eyes === 'all' || eyes.includes(one),
    )
    const action = enrollment === undefined ? 'unenroll' : 'enroll'
    const frame = messageFrame('#enrollment', { did, action, service, boundaries, time, seq })
    return { did, isEnrolled: enrollment !== undefined, frame }
  }
}

const pageMax = 200
