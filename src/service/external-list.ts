import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { FetchFailed, FetchRefused } from '../remote/fetch.ts'
import type { AllowList } from '../store/allow-list.ts'
import { NoList } from './list-text.ts'
import type { ListSource } from './list-source.ts'

interface Parts {
  readonly source: ListSource
  readonly store: AllowList
  readonly log: Log
  readonly now: () => number
  readonly times?: Partial<Times>
}

interface Times {
  readonly everyMs: number
  /** On top of it, at random. */
  readonly jitterMs: number
  /** Between two readings, when a shared copy was taken that is about to grow old. */
  readonly gapMs: number
  readonly retryMs: number
  /** So often the list is read for people who are not on the copy. */
  readonly freshMs: number
  /** So long they wait for it, with a browser open. */
  readonly patienceMs: number
}

/**
 * The list at somebody else's place, and our last good copy of it. Invariants:
 * - It is read by one task at a time, whoever asked for that.
 * - Only a whole and good text replaces the copy; after anything else the copy stays.
 */
export class ExternalList {
  readonly #parts: Parts
  readonly #times: Times
  readonly #stopping = new AbortController()
  #reading: Promise<void> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** As of when the outcome of the last reading tells who is on the list. */
  #readAtMs = -Infinity
  #failures = 0
  #fault: string | undefined
  #onRead: () => Promise<void> = async () => undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.#times = { ...timesDefault, ...parts.times }
  }

  /** By which its copy is told from that of another list. */
  get id(): string {
    return this.#parts.store.id
  }

  /** Whether the copy holds somebody. */
  has(did: Did): Promise<boolean> {
    return this.#parts.store.has(did)
  }

  /** What an answer of `has` is worth. */
  async state(): Promise<'read' | 'outdated' | 'unread'> {
    if ((await this.#parts.store.copy()) === undefined) return 'unread'
    const isSettled = this.#reading === undefined && this.#fault === undefined
    return isSettled ? 'read' : 'outdated'
  }

  /**
   * Reads the list now, and from then on every ten minutes at least, and calls `onRead` each time that the
   * copy was found good or replaced. What it returns ends with the first reading, however it went.
   */
  start(onRead: () => Promise<void>): Promise<void> {
    this.#onRead = onRead
    return this.#readOften()
  }

  /**
   * Reads the list now, for somebody who is not on the copy: they may have been added lately. At
   * most once a minute, for all who ask together, and nobody waits long for it.
   */
  async freshen(): Promise<void> {
    const { freshMs, patienceMs } = this.#times
    if (this.#parts.now() - this.#readAtMs < freshMs) return
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, patienceMs)
    await Promise.race([this.#read(freshMs), late.promise])
    clearTimeout(timer)
  }

  /** Cuts off what runs; the copy stays what it was. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    clearTimeout(this.#timer)
    await this.#reading
  }

  async #readOften(): Promise<void> {
    await this.#read(this.#times.everyMs)
    if (this.#stopping.signal.aborted) return
    this.#timer = setTimeout(() => void this.#readOften(), this.#waitMs())
  }

  #waitMs(): number {
    const { everyMs, jitterMs, gapMs, retryMs } = this.#times
    const random = Math.random()
    if (this.#failures > 0) {
      const attempt = this.#failures - 1
      return backoffMs({ attempt, firstMs: retryMs, mostMs: everyMs, random })
    }
    // Whoever took a shared copy reads again when that one is old.
    const ageMs = this.#parts.now() - this.#readAtMs
    return Math.max(gapMs, everyMs - ageMs) + random * jitterMs
  }

  #read(ageMsMax: number): Promise<void> {
    if (this.#stopping.signal.aborted) return Promise.resolve()
    this.#reading ??= this.#readOnce(ageMsMax).finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #readOnce(ageMsMax: number): Promise<void> {
    const { source, store, now, log } = this.#parts
    const { signal } = this.#stopping
    try {
      const { copy, dids } = await source.newest(await store.copy(), { ageMsMax, signal })
      if (dids === undefined) await store.renew(copy)
      else {
        const listed = dids.size
        await store.replace(copy, dids, signal)
        log.info('allow-list.replaced', { listed })
      }
      await this.#onRead()
      if (this.#fault !== undefined) log.info('allow-list.back')
      this.#fault = undefined
      this.#failures = 0
      this.#readAtMs = Math.min(now(), copy.fetchedAtMs)
    } catch (error) {
      if (signal.aborted) return
      this.#failures += 1
      this.#readAtMs = now()
      this.#failed(error)
    }
  }

  /** Warns once, until something else is wrong. */
  #failed(error: unknown): void {
    const { log } = this.#parts
    if (error instanceof FetchFailed || error instanceof FetchRefused || error instanceof NoList) {
      const why = error.message
      if (why !== this.#fault) log.warn('allow-list.not-read', { why })
      this.#fault = why
    } else {
      log.error('allow-list.failed', { error })
      this.#fault = 'a fault of ours'
    }
  }
}

/** With the jitter ten minutes at most. */
const timesDefault: Times = {
  everyMs: 570_000,
  jitterMs: 30_000,
  gapMs: 15_000,
  retryMs: 60_000,
  freshMs: 60_000,
  patienceMs: 10_000,
}
