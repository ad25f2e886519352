import { XrpcError } from '../atproto/errors.ts'
import { messageFrame } from '../atproto/stream-frame.ts'
import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import type { ActorFeed } from './actor-feed.ts'
import type { Follower, Happened } from './following.ts'
import type { Membership, Memberships } from './memberships.ts'
import type { Outlet } from './outlet.ts'
import { type CommitSources, endOf, feedOf, type Reading } from './repo-stream.ts'

interface Parts extends CommitSources, Reading {
  readonly memberships: Memberships
  readonly outlet: Outlet
  /** Where the reader is, by account; undefined for enrollments alone. */
  readonly cursors: ReadonlyMap<Did, number> | undefined
  readonly log: Log
}

/** One actor of the stream, from when they are told to be enrolled until they are told to have left. */
interface Followed {
  readonly did: Did
  readonly feed: ActorFeed
  /** Times in a row that reading the log failed. */
  failures: number
}

/** A time, and where the logs ended then of actors whose events up to it are still to be sent. */
interface Mark {
  /** ISO 8601. */
  readonly time: string
  /** The same by the clock that is never set. */
  readonly atMs: number
  /** Where an end is not known yet they are waited for until nothing is left. */
  readonly ends: Map<Followed, { readonly end: number | undefined; readonly failures: number }>
}

/**
 * The stream of the whole service, for AppViews: enrollments, and with `cursors` the commits of
 * everybody who is enrolled. Of an actor whose log the reader has to its end nothing is opened.
 * @see protocol.md, section 6
 */
export class ServiceStream implements Follower {
  readonly #parts: Parts
  /** Where the reader was with actors who are not followed yet. */
  readonly #cursors: Map<Did, number>
  readonly #followed = new Map<Did, Followed>()
  /** Whose logs have to be read, in order. */
  readonly #due: Followed[] = []
  readonly #touched = new Set<ActorFeed>()
  #reading = 0
  #isPresent = false
  #mark: Mark | undefined
  #markedAtMs = -Infinity
  /** How often it was asked to look at memberships, and whether somebody looks. */
  #asked = 0
  #telling = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.#cursors = new Map(parts.cursors)
  }

  async start(): Promise<void> {
    const { following, cursors, memberships, outlet, eyes } = this.#parts
    if (cursors !== undefined) following.add(this, 'all')
    for await (const page of memberships.present(eyes)) {
      await outlet.sendPage(page.map(({ frame }) => frame))
      if (!outlet.isOpen) return
      await Promise.all(page.map(({ did }) => this.#begin(did)))
    }
    await this.#tellAbsent()
    this.#isPresent = true
    this.changed()
  }

  stop(): void {
    if (this.#parts.cursors !== undefined) this.#parts.following.remove(this, 'all')
    for (const { feed } of this.#followed.values()) feed.stop()
  }

  /** To be called when any membership may have changed. */
  changed(): void {
    this.#asked += 1
    if (!this.#isPresent || this.#telling) return
    this.#telling = true
    this.#tell()
      .catch((error: unknown) => this.#parts.outlet.broken(error))
      .finally(() => (this.#telling = false))
  }

  happened(event: Happened): void {
    const followed = this.#followed.get(event.did)
    if (followed === undefined) return
    if (followed.feed.happened(event, this.#parts.outlet.isBusy)) this.#read(followed)
    else this.#touched.add(followed.feed)
  }

  flush(): void {
    if (this.#touched.size === 0) return
    const frames: Uint8Array[] = []
    for (const feed of this.#touched) frames.push(...feed.take())
    this.#touched.clear()
    this.#parts.outlet.send(frames)
  }

  /**
   * To be called now and then: a silent stream is not told from a broken one. A heartbeat says until
   * when all that happened was sent, or that the stream is behind.
   */
  tick(): void {
    const { outlet } = this.#parts
    // A reader who is behind has something to read.
    if (outlet.isBusy) return
    const nowMs = performance.now()
    // One that was made just now may be about changes that are to be told yet.
    if (this.#mark !== undefined && !this.#telling && this.#isReached(this.#mark)) {
      this.#say(this.#mark)
    } else if (nowMs - outlet.sentAtMs >= heartbeatMs) {
      outlet.send([messageFrame('#info', { name: 'Heartbeat', behind: true })])
    }
    const isDue = this.#mark === undefined && nowMs - this.#markedAtMs >= markEveryMs
    if (!isDue || !this.#isPresent) return
    this.#markedAtMs = nowMs
    this.#mark = this.#markNow()
  }

  #markNow(): Mark {
    const behind = [...this.#followed.values()].filter(({ feed }) => !feed.isLive)
    const ends = new Map(
      behind.map((followed) => {
        const { feed, failures } = followed
        return [followed, { end: feed.end, failures }]
      }),
    )
    return { time: new Date().toISOString(), atMs: performance.now(), ends }
  }

  /** Of whose log the reader was told since that it cannot be read: they hold nobody up. */
  #isReached({ ends }: Mark): boolean {
    for (const [followed, { end, failures }] of ends) {
      const { did, feed } = followed
      const isReached = feed.isLive || (end !== undefined && feed.last >= end)
      const isTold = followed.failures > failures
      if (isReached || isTold || this.#followed.get(did) !== followed) ends.delete(followed)
    }
    return ends.size === 0
  }

  /** What was taken down and is in no log yet nobody can have been sent. */
  #say(mark: Mark): void {
    const { takedowns, outlet } = this.#parts
    this.#mark = undefined
    takedowns.hasUntold().then(
      (hasUntold) => {
        if (hasUntold) return (this.#mark ??= mark)
        const age = Math.ceil(performance.now() - mark.atMs)
        outlet.send([messageFrame('#info', { name: 'Heartbeat', time: mark.time, age })])
        return undefined
      },
      (error: unknown) => outlet.broken(error),
    )
  }

  /** Whoever the reader names and who has left meanwhile: what the reader has of them has to go. */
  async #tellAbsent(): Promise<void> {
    const { memberships, outlet, eyes } = this.#parts
    const named = [...this.#cursors.keys()]
    for (let start = 0; start < named.length && outlet.isOpen; start += absentMax) {
      const absent = await memberships.absent(named.slice(start, start + absentMax), eyes)
      for (const { did } of absent) this.#cursors.delete(did)
      await outlet.sendPage(absent.map(({ frame }) => frame))
    }
  }

  /** All changes there are, and those that come meanwhile. */
  async #tell(): Promise<void> {
    const { memberships, outlet, eyes } = this.#parts
    for (let done = -1; done !== this.#asked && outlet.isOpen;) {
      done = this.#asked
      for await (const page of memberships.changes(eyes)) {
        for (const one of page) await this.#tellOne(one)
      }
    }
  }

  async #tellOne({ did, isEnrolled, frame }: Membership): Promise<void> {
    if (!isEnrolled) {
      // First: after they are told to have left nothing of theirs is sent.
      this.#followed.get(did)?.feed.stop()
      this.#followed.delete(did)
      // Of what they had the reader keeps nothing, and so begins anew should they come back.
      this.#cursors.delete(did)
    }
    await this.#parts.outlet.sendPage([frame])
    if (isEnrolled && !this.#followed.has(did)) await this.#begin(did)
  }

  async #begin(did: Did): Promise<void> {
    const { cursors, outlet } = this.#parts
    if (cursors === undefined) return
    const cursor = this.#cursors.get(did) ?? 0
    this.#cursors.delete(did)
    const place = { last: cursor, told: cursor }
    const feed = feedOf({ did, outlet, actor: { did } }, place, this.#parts)
    const followed = { did, feed, failures: 0 }
    this.#followed.set(did, followed)
    try {
      const { seq, end } = await endOf(did, this.#parts, Date.now())
      feed.reaches(seq)
      // Whoever sees all is never told a time to go on from.
      if (cursor > (this.#parts.seesWhole ? seq : end))
        outlet.fail('FutureCursor', `the cursor of ${did} is past the end`)
      else if (seq > cursor || !feed.goLive()) this.#read(followed)
    } catch (error) {
      await this.#failed(followed, error)
    }
  }

  #read(followed: Followed): void {
    this.#due.push(followed)
    if (this.#reading === readingMax) return
    this.#readDue().catch((error: unknown) => this.#parts.outlet.broken(error))
  }

  async #readDue(): Promise<void> {
    this.#reading += 1
    try {
      for (let next = this.#due.shift(); next !== undefined; next = this.#due.shift()) {
        try {
          await next.feed.catchUp()
          next.failures = 0
        } catch (error) {
          await this.#failed(next, error)
        }
      }
    } finally {
      this.#reading -= 1
    }
  }

  /**
   * One broken log must not end the stream of all others, and neither may it look like one in which
   * nothing happens: the reader is told, and it is tried again.
   */
  async #failed(followed: Followed, error: unknown): Promise<void> {
    const { outlet, memberships, log, requestId } = this.#parts
    const { did } = followed
    const isCurrent = () => outlet.isOpen && this.#followed.get(did) === followed
    // Of whoever is leaving there is nothing to be read any more: that they left is told soon.
    const isLeft = error instanceof XrpcError && error.error === 'RepoNotFound'
    if (!isCurrent() || (isLeft && !(await memberships.isEnrolled(did)))) return
    const attempt = followed.failures++
    if (attempt === 0) log.error('stream.actor.failed', { did, requestId, error })
    // Each time: what the reader has of it since the last one may be as old as that.
    outlet.send([messageFrame('#info', { name: 'RepoUnavailable', did })])
    const wait = { attempt, firstMs: againMs, mostMs: againMsMax, random: Math.random() }
    setTimeout(() => {
      if (isCurrent()) this.#read(followed)
    }, backoffMs(wait)).unref()
  }
}

/** Logs that are read at once for one reader. */
const readingMax = 8
/** @see protocol.md, section 6 */
const heartbeatMs = 2_000
/** Two of them fall into the time after which a silent service counts as stale, and one may be late. */
const markEveryMs = 1_500
const absentMax = 200
/** Until a log that could not be read is tried again. */
const againMs = 1_000
const againMsMax = 1_000
