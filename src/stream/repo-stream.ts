import { XrpcError } from '../atproto/errors.ts'
import { messageFrame } from '../atproto/stream-frame.ts'
import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { CallActor, EventsAnswer } from '../service/calls.ts'
import type { Eyes } from '../service/event-view.ts'
import type { TakedownStore } from '../store/takedown.ts'
import { ActorFeed, type FeedParts } from './actor-feed.ts'
import type { Follower, Following, Happened } from './following.ts'
import type { Outlet } from './outlet.ts'
import type { ToldCursors } from './told-cursors.ts'

/** What all streams of commits have in common. */
export interface CommitSources {
  readonly call: CallActor
  readonly takedowns: TakedownStore
  readonly following: Following
  readonly told: ToldCursors
}

export interface Reading {
  readonly eyes: Eyes
  /** Whether these are all boundaries of the service, or more. */
  readonly seesWhole: boolean
  /** The operator sees what is taken down, too. */
  readonly seesTakendown: boolean
  readonly requestId: string
}

/**
 * The feed of one actor for one reader. What is taken down comes without its content: what happens
 * is passed on as it comes only while nothing of the actor is known to be taken down.
 * @param told as far as the reader knows of the log, where that is not `last`
 */
export function feedOf(
  { did, outlet, actor }: Pick<FeedParts, 'outlet' | 'actor'> & { readonly did: Did },
  { last, told }: { readonly last: number; readonly told: number },
  sources: CommitSources & Reading,
): ActorFeed {
  const { takedowns, eyes, seesWhole, seesTakendown } = sources
  const isFit = ({ isWhole }: Happened) =>
    (eyes === 'all' || (seesWhole && isWhole)) && (seesTakendown || takedowns.hasNone(did))
  const page = (after: number) => pageOf(did, after, sources)
  return new ActorFeed(
    { outlet, isFit, page, ...(actor === undefined ? {} : { actor }) },
    last,
    told,
  )
}

async function pageOf(
  did: Did,
  after: number,
  { call, takedowns, eyes, seesTakendown, requestId }: CommitSources & Reading,
): Promise<EventsAnswer> {
  for (;;) {
    const found = await takedowns.of(did)
    const except = seesTakendown ? [] : found.repo ? ('all' as const) : found.records
    const ask = { kind: 'events', after, eyes, except } as const
    const page = await patiently(() => call(did, requestId, ask))
    // What was taken down meanwhile may be in it.
    if (seesTakendown || (await takedowns.of(did)) === found) return page
  }
}

/** Where the log of an actor ends, as far as a reader may know: cursors of some are times. */
export async function endOf(
  did: Did,
  { call, requestId, eyes, told }: CommitSources & Reading,
  nowMs: number,
): Promise<{ readonly seq: number; readonly end: number }> {
  const { seq } = await patiently(() => call(did, requestId, { kind: 'last' }))
  return { seq, end: eyes === 'all' ? seq : Math.max(seq, nowMs * 1000, told.most) }
}

/** A shard that is busy is asked again: it is for readers to wait, not to be sent away. */
async function patiently<Result>(ask: () => Promise<Result>): Promise<Result> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask()
    } catch (error) {
      if (!isOverloaded(error) || attempt === attemptsMax) throw error
      const wait = { attempt, firstMs: 50, mostMs: 2_000, random: Math.random() }
      await Bun.sleep(backoffMs(wait))
    }
  }
}

function isOverloaded(error: unknown): boolean {
  return error instanceof XrpcError && error.error === 'Overloaded'
}

/** Some ten seconds. */
const attemptsMax = 10

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
  #telling = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.#toldAtMs = parts.now()
  }

  /** Resolves when the stream is over, or has sent all there is and goes on by itself. */
  async start(): Promise<void> {
    const { did, following, outlet, cursor, now } = this.#parts
    following.add(this, did)
    const { seq, end } = await endOf(did, this.#parts, now())
    if (cursor !== undefined && cursor > end) {
      return outlet.fail('FutureCursor', 'the cursor is past the end of the stream')
    }
    // Where the log ends says when something happened that may not be for this reader.
    const place = { last: cursor ?? seq, told: cursor ?? (this.#isFiltered ? 0 : seq) }
    this.#feed = feedOf({ did, outlet }, place, this.#parts)
    await this.#feed.catchUp()
  }

  stop(): void {
    this.#parts.following.remove(this, this.#parts.did)
  }

  happened(event: Happened): void {
    const feed = this.#feed
    const { outlet } = this.#parts
    if (feed?.happened(event) !== true) return
    feed.catchUp().catch((error: unknown) => outlet.broken(error))
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
    if (!this.#isFiltered || this.#telling || this.#feed?.isLive !== true) return
    const nowMs = now()
    // A clock that was set back must not keep a reader waiting until it is where it was.
    if (Math.abs(nowMs - this.#toldAtMs) < cursorEveryMs) return
    this.#telling = true
    this.#tell(this.#feed, nowMs)
      .catch((error: unknown) => outlet.broken(error))
      .finally(() => (this.#telling = false))
  }

  /** Once it is certain that nothing is logged up to there after the reader has read it. */
  async #tell(feed: ActorFeed, nowMs: number): Promise<void> {
    const { did, call, requestId, outlet, told } = this.#parts
    const time = Math.round((nowMs - cursorAgeMs) * 1000)
    told.reach(time)
    const { seq: end } = await patiently(() => call(did, requestId, { kind: 'vouch', seq: time }))
    // What was logged meanwhile is read first.
    if (!feed.isLive || feed.last < end) return
    this.#toldAtMs = nowMs
    outlet.send([messageFrame('#info', { name: 'Cursor', seq: Math.max(feed.told, time) })])
  }

  get #isFiltered(): boolean {
    return this.#parts.eyes !== 'all'
  }
}

const cursorEveryMs = 60_000
/** So long ago that it says of nothing when it was written. */
export const cursorAgeMs = 60_000
