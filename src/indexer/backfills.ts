import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { unlessAborted } from '../lib/pause.ts'
import { backfill, type BackfillOutcome, type BackfillPage } from './backfill.ts'
import type { IndexOptions } from './database.ts'
import { frameBytes, type IndexEvent } from './event.ts'
import { RepoNotFound, ServiceBusy } from './service-calls.ts'

/**
 * The repo of somebody as it is, page by page.
 * @throws RepoNotFound where there is none to be had, ServiceBusy where it is to be asked for later
 */
export type RepoPages = (did: Did, signal: AbortSignal) => AsyncIterable<BackfillPage>

interface Parts {
  readonly service: Did
  readonly index: IndexOptions
  readonly pages: RepoPages
  /** Takes events that were held back: what is given later is stored after them. */
  readonly store: (events: readonly IndexEvent[]) => Promise<void>
  /** Resolves when all that came until now is stored: a reset must not come after what follows it. */
  readonly stored: () => Promise<void>
  readonly log: Log
  readonly times?: Partial<Times>
}

interface Times {
  readonly firstMs: number
  readonly mostMs: number
  readonly goneMs: number
  readonly quietMs: number
  readonly heldMs: number
}

/** An account whose repo is being read, and its events meanwhile. */
interface Run {
  readonly stopped: AbortController
  held: IndexEvent[]
  bytes: number
  /** When the first of them came. */
  heldFromMs: number | undefined
  /** Their rows are gone, or will be before what is given to the writer later. */
  hidden: Promise<void> | undefined
  /** What is in the index is what was there before, and will be what was read. */
  isReading: boolean
  /** They have left meanwhile. */
  isOver: boolean
}

/**
 * Reads repos anew of whom the index lacks rows, few at a time. Events of an actor that come while
 * their repo is read are held back, and are stored after it; too many of them end the reading, which
 * begins anew later. Until all is stored the index is not one of now; so of whom events wait for
 * long the rows go first: others do not wait with them. What is due stands in the index: what is
 * forgotten here is found there at the next connection.
 */
export class Backfills {
  readonly #parts: Parts
  readonly #times: Times
  readonly #due = new Set<Did>()
  readonly #runs = new Map<Did, Run>()
  readonly #failures = new Map<Did, number>()
  readonly #timers = new Map<Did, ReturnType<typeof setTimeout>>()
  readonly #ended = new AbortController()
  #idle = Promise.withResolvers<void>()
  #pausedUntilMs = 0
  #pause: ReturnType<typeof setTimeout> | undefined
  #bytes = 0

  constructor(parts: Parts) {
    this.#parts = parts
    this.#times = { ...timesDefault, ...parts.times }
  }

  /** To be read, be it again. */
  add(did: Did): void {
    if (this.#ended.signal.aborted) return
    clearTimeout(this.#timers.get(did))
    this.#timers.delete(did)
    this.#due.add(did)
    this.#next()
  }

  /** To be read once this was not asked for during a while: what is broken is left alone. */
  addWhenQuiet(did: Did): void {
    this.#due.delete(did)
    this.#later(did, this.#times.quietMs)
  }

  /** Whether it is being read, or will be. */
  has(did: Did): boolean {
    return this.#due.has(did) || this.#runs.has(did) || this.#timers.has(did)
  }

  /** They have left. */
  forget(did: Did): void {
    this.#due.delete(did)
    this.#failures.delete(did)
    clearTimeout(this.#timers.get(did))
    this.#timers.delete(did)
    const run = this.#runs.get(did)
    if (run === undefined) return
    this.#bytes -= run.bytes
    run.held = []
    run.bytes = 0
    run.isOver = true
    run.stopped.abort()
  }

  /** @returns whether the event waits here for the end of a reading */
  hold(event: IndexEvent): boolean {
    const run = this.#runs.get(event.did)
    if (run === undefined) return false
    const bytes = eventBytes + frameBytes(event)
    run.heldFromMs ??= performance.now()
    run.held.push(event)
    run.bytes += bytes
    this.#bytes += bytes
    if (run.bytes > heldBytesMax || this.#bytes > allHeldBytesMax) run.stopped.abort()
    return true
  }

  /** Events that wait. */
  get held(): number {
    let held = 0
    for (const run of this.#runs.values()) held += run.held.length
    return held
  }

  /** Whether events wait of somebody whose rows are there as they were before. */
  get isHoldingSeen(): boolean {
    return [...this.#runs.values()].some(({ held, hidden }) => held.length > 0 && !hidden)
  }

  /** The rows go of those whose events have waited for long, until their repo was read. */
  hideSlow(): void {
    const longAgoMs = performance.now() - this.#times.heldMs
    for (const [did, run] of this.#runs) {
      const { heldFromMs = Infinity, isReading } = run
      if (isReading && heldFromMs <= longAgoMs) this.#hide(did, run)
    }
  }

  /** Accounts whose repos are to be read, or are being read. */
  get due(): number {
    return this.#due.size + this.#runs.size + this.#timers.size
  }

  /** Resolves when each was read, or cannot be for a while. */
  async idle(): Promise<void> {
    if (!this.#isIdle) await this.#idle.promise
  }

  get #isIdle(): boolean {
    const isPaused = this.#pausedUntilMs > performance.now()
    return this.#runs.size === 0 && (this.#due.size === 0 || isPaused)
  }

  async stop(): Promise<void> {
    this.#ended.abort()
    this.#due.clear()
    clearTimeout(this.#pause)
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
    for (const { stopped } of this.#runs.values()) stopped.abort()
    await this.idle()
  }

  #next(): void {
    const waitMs = this.#pausedUntilMs - performance.now()
    if (waitMs > 0 && this.#due.size > 0) {
      clearTimeout(this.#pause)
      this.#pause = setTimeout(() => this.#next(), waitMs)
      return
    }
    for (const did of this.#due) {
      if (this.#runs.size >= runsMax) return
      if (this.#runs.has(did)) continue
      this.#due.delete(did)
      const run = newRun()
      this.#runs.set(did, run)
      void this.#run(did, run)
    }
  }

  async #run(did: Did, run: Run): Promise<void> {
    const waitMs = await this.#read(did, run)
    // In one turn: whatever comes from now on is given after what was held.
    this.#runs.delete(did)
    this.#bytes -= run.bytes
    const stored = run.held.length === 0 ? undefined : this.#parts.store(run.held)
    const isPutOff = this.#timers.has(did)
    if (waitMs !== undefined && !run.isOver && !isPutOff) this.#later(did, waitMs)
    this.#next()
    if (this.#isIdle) {
      this.#idle.resolve()
      this.#idle = Promise.withResolvers<void>()
    }
    // Whoever gave the writer says what becomes of it when it fails.
    await stored?.catch(() => undefined)
  }

  #later(did: Did, ms: number): void {
    if (this.#ended.signal.aborted) return
    clearTimeout(this.#timers.get(did))
    this.#timers.set(
      did,
      setTimeout(() => this.add(did), ms),
    )
  }

  /** @returns after how long to try again; undefined where there is no need */
  async #read(did: Did, run: Run): Promise<number | undefined> {
    const { service, index, log } = this.#parts
    const signal = AbortSignal.any([run.stopped.signal, this.#ended.signal])
    try {
      await unlessAborted(this.#parts.stored(), signal)
      run.isReading = true
      const read = this.#pagesOf(did, run, signal)
      const outcome = await backfill(index, read, { actor: { service, did }, signal })
      return this.#said(did, outcome)
    } catch (error) {
      if (this.#ended.signal.aborted) return undefined
      // Too much was held back.
      if (run.stopped.signal.aborted) return this.#again(did)
      if (error instanceof RepoNotFound) return this.#times.goneMs
      if (error instanceof ServiceBusy) {
        this.#pausedUntilMs = performance.now() + error.retryAfterMs
        return error.retryAfterMs
      }
      log.warn('index.backfill.failed', { service, did, error })
      return this.#again(did)
    }
  }

  /** Ends when nothing more is hidden. */
  async *#pagesOf(did: Did, run: Run, signal: AbortSignal): AsyncGenerator<BackfillPage> {
    let records = 0
    for await (const page of this.#parts.pages(did, signal)) {
      records += page.records.length
      yield page
    }
    // While many rows take the place of others, nothing else can be done with them.
    if (records > recordsMax) this.#hide(did, run)
    run.isReading = false
    if (run.hidden !== undefined) await unlessAborted(run.hidden, signal)
  }

  #hide(did: Did, run: Run): void {
    const { service, store } = this.#parts
    run.hidden ??= store([{ kind: 'reset', service, did, seq: undefined }])
    // Whoever gave the writer says what becomes of it when it fails.
    run.hidden.catch(() => undefined)
  }

  #said(did: Did, outcome: BackfillOutcome): number | undefined {
    const { service, log } = this.#parts
    // That they are enrolled may still have to be stored.
    if (outcome.kind !== 'replaced') return this.#again(did)
    const { posts, parked } = outcome
    this.#failures.delete(did)
    log.info('index.backfilled', { service, did, posts })
    for (const { seq, error } of parked) log.warn('index.parked', { service, did, seq, error })
    return undefined
  }

  #again(did: Did): number {
    const attempt = this.#failures.get(did) ?? 0
    this.#failures.set(did, attempt + 1)
    const { firstMs, mostMs } = this.#times
    return backoffMs({ attempt, firstMs, mostMs, random: Math.random() })
  }
}

function newRun(): Run {
  return {
    stopped: new AbortController(),
    held: [],
    bytes: 0,
    heldFromMs: undefined,
    hidden: undefined,
    isReading: false,
    isOver: false,
  }
}

/** A service lets a caller have few exports at once. */
const runsMax = 2
/** What an event takes beside its frame. */
const eventBytes = 256
const heldBytesMax = 8 * 1024 * 1024
const allHeldBytesMax = 32 * 1024 * 1024
/** Of a log that cannot be read a service says so each second. */
const quietMs = 3_000
/** Nobody is told of a change for so long, and for as long as the rows take to go. */
const heldMs = 2_000
/** So many are replaced in less than that. */
const recordsMax = 2_000
const timesDefault: Times = { firstMs: 1_000, mostMs: 300_000, goneMs: 600_000, quietMs, heldMs }
