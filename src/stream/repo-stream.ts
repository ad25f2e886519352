import { messageFrame } from '../atproto/stream-frame.ts'
import type { Did } from '../atproto/syntax.ts'
import type { CallActor, EventsAnswer } from '../service/calls.ts'
import type { Eyes } from '../service/event-view.ts'
import type { TakedownStore } from '../store/takedown.ts'
import { ActorFeed } from './actor-feed.ts'
import type { Follower, Following, Happened } from './following.ts'
import type { Outlet } from './outlet.ts'

/** What all streams of commits have in common. */
export interface CommitSources {
  readonly call: CallActor
  readonly takedowns: TakedownStore
  readonly following: Following
}

export interface Reading {
  readonly eyes: Eyes
  /** Whether these are all boundaries of the service, or more. */
  readonly seesWhole: boolean
  /** The operator sees what is taken down, too. */
  readonly seesTakendown: boolean
  readonly requestId: string
}

/** A page of the log of `did` for a reader. What is taken down comes without its content. */
export async function pageOf(
  did: Did,
  after: number,
  { call, takedowns, eyes, seesTakendown, requestId }: CommitSources & Reading,
): Promise<EventsAnswer> {
  const { repo, records } = await takedowns.of(did)
  const except = seesTakendown ? [] : repo ? ('all' as const) : records
  return await call(did, requestId, { kind: 'events', after, eyes, except })
}

interface Parts extends CommitSources, Reading {
  readonly did: Did
  readonly outlet: Outlet
  /** Of the last event that the reader has; undefined for only what comes. */
  readonly cursor: number | undefined
  readonly now: () => number
}

/** The stream of one repo. @see protocol.md, section 6 */
export class RepoStream implements Follower {
  readonly #parts: Parts
  #feed: ActorFeed | undefined
  #toldAtMs: number

  constructor(parts: Parts) {
    this.#parts = parts
    this.#toldAtMs = parts.now()
  }

  /** Resolves when the stream is over, or has sent all there is and goes on by itself. */
  async start(): Promise<void> {
    const { did, following, outlet, cursor, now } = this.#parts
    following.add(this, did)
    const { seq } = await this.#parts.call(did, this.#parts.requestId, { kind: 'last' })
    // Readers with fewer boundaries are told cursors that are times.
    const end = this.#isFiltered ? Math.max(seq, now() * 1000) : seq
    if (cursor !== undefined && cursor > end) {
      return outlet.fail('FutureCursor', 'the cursor is past the end of the stream')
    }
    const { eyes, seesWhole } = this.#parts
    const page = (after: number) => pageOf(did, after, this.#parts)
    this.#feed = new ActorFeed({ outlet, eyes, seesWhole, page }, cursor ?? seq)
    await this.#feed.catchUp()
  }

  stop(): void {
    this.#parts.following.remove(this, this.#parts.did)
  }

  happened(event: Happened): void {
    const feed = this.#feed
    if (feed?.happened(event) === true) this.#again(feed)
  }

  flush(): void {
    this.#parts.outlet.send(this.#feed?.take() ?? [])
  }

  /**
   * To be called now and then: tells readers who see only a part where to go on from. It is a time,
   * some while ago, and so says nothing of what they do not see.
   */
  tick(): void {
    const { now, outlet } = this.#parts
    const feed = this.#feed
    if (!this.#isFiltered || feed?.isLive !== true) return
    if (now() - this.#toldAtMs < cursorEveryMs) return
    this.#toldAtMs = now()
    const seq = Math.max(feed.last, (now() - cursorAgeMs) * 1000)
    outlet.send([messageFrame('#info', { name: 'Cursor', seq })])
  }

  get #isFiltered(): boolean {
    return this.#parts.eyes !== 'all'
  }

  #again(feed: ActorFeed): void {
    const { outlet } = this.#parts
    feed.catchUp().catch((error: unknown) => outlet.broken(error))
  }
}

const cursorEveryMs = 60_000
/** So long ago that all of it was read, also after a clock was put right. */
export const cursorAgeMs = 60_000
