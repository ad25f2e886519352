import { messageFrame } from '../atproto/stream-frame.ts'
import type { Did } from '../atproto/syntax.ts'
import { ActorFeed } from './actor-feed.ts'
import type { Follower, Happened } from './following.ts'
import type { Membership, Memberships } from './memberships.ts'
import type { Outlet } from './outlet.ts'
import { type CommitSources, pageOf, type Reading } from './repo-stream.ts'

interface Parts extends CommitSources, Reading {
  readonly memberships: Memberships
  readonly outlet: Outlet
  /** Where the reader is, by account; undefined for enrollments alone. */
  readonly cursors: ReadonlyMap<Did, number> | undefined
}

/**
 * The stream of the whole service, for AppViews: enrollments, and with `cursors` the commits of
 * everybody who is enrolled. Of an actor whose log the reader has to its end nothing is opened.
 * @see protocol.md, section 6
 */
export class ServiceStream implements Follower {
  readonly #parts: Parts
  readonly #feeds = new Map<Did, ActorFeed>()
  /** Whose logs have to be read, in order. */
  readonly #due: ActorFeed[] = []
  readonly #touched = new Set<ActorFeed>()
  #reading = 0
  #isPresent = false
  #changing: Promise<void> | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async start(): Promise<void> {
    const { following, cursors, memberships, outlet, eyes } = this.#parts
    if (cursors !== undefined) following.add(this, 'all')
    for await (const page of memberships.present(eyes)) {
      if (!outlet.isOpen) return
      await outlet.sendPage(page.map(({ frame }) => frame))
      for (const { did } of page) await this.#begin(did)
    }
    this.#isPresent = true
    await this.changed()
  }

  stop(): void {
    if (this.#parts.cursors !== undefined) this.#parts.following.remove(this, 'all')
  }

  /** To be called when any membership may have changed. */
  async changed(): Promise<void> {
    if (!this.#isPresent) return
    // One at a time, and once more for what came meanwhile.
    const before = this.#changing ?? Promise.resolve()
    this.#changing = before.then(() => this.#tell())
    await this.#changing
  }

  async #tell(): Promise<void> {
    const { memberships, outlet, eyes } = this.#parts
    for (const one of await memberships.changes(eyes)) {
      outlet.send([one.frame])
      await this.#changedOne(one)
    }
  }

  async #changedOne({ did, isEnrolled }: Membership): Promise<void> {
    if (!isEnrolled) this.#feeds.delete(did)
    else if (!this.#feeds.has(did)) await this.#begin(did)
  }

  happened(event: Happened): void {
    const feed = this.#feeds.get(event.did)
    if (feed === undefined) return
    if (feed.happened(event, this.#parts.outlet.isBusy)) this.#read(feed)
    else this.#touched.add(feed)
  }

  flush(): void {
    if (this.#touched.size === 0) return
    const frames: Uint8Array[] = []
    for (const feed of this.#touched) frames.push(...feed.take())
    this.#touched.clear()
    this.#parts.outlet.send(frames)
  }

  /** To be called now and then: a silent stream is not told from a broken one. */
  tick(): void {
    const { outlet } = this.#parts
    if (performance.now() - outlet.sentAtMs < heartbeatMs) return
    outlet.send([messageFrame('#info', { name: 'Heartbeat' })])
  }

  async #begin(did: Did): Promise<void> {
    const { cursors, call, requestId, outlet, eyes, seesWhole } = this.#parts
    if (cursors === undefined) return
    const cursor = cursors.get(did) ?? 0
    const page = (after: number) => pageOf(did, after, this.#parts)
    const feed = new ActorFeed({ outlet, eyes, seesWhole, page }, cursor)
    this.#feeds.set(did, feed)
    const { seq } = await call(did, requestId, { kind: 'last' })
    if (cursor > seq) outlet.fail('FutureCursor', `the cursor of ${did} is past the end`)
    else if (seq > cursor || !feed.goLive()) this.#read(feed)
  }

  #read(feed: ActorFeed): void {
    this.#due.push(feed)
    if (this.#reading < readingMax) void this.#readDue()
  }

  async #readDue(): Promise<void> {
    this.#reading += 1
    try {
      for (let feed = this.#due.shift(); feed !== undefined; feed = this.#due.shift()) {
        if (!this.#parts.outlet.isOpen) return
        await feed.catchUp()
      }
    } catch (error) {
      this.#parts.outlet.broken(error)
    } finally {
      this.#reading -= 1
    }
  }
}

/** Logs that are read at once for one reader. */
const readingMax = 8
const heartbeatMs = 2_000
