import { assert } from '../lib/assert.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { IndexEvent } from './event.ts'
import type { Parked } from './fold.ts'
import { failureKind } from './refusal.ts'
import { IndexSession, type IndexTransaction, type SessionOptions } from './session.ts'
import { storeEvents } from './store-events.ts'

export interface LaneParts {
  readonly index: SessionOptions
  readonly now: () => number
  /** Learns of a try that failed and is made again. */
  readonly delayed?: ((error: unknown) => void) | undefined
  /** Learns of events that were put aside. */
  readonly parked?: ((event: Parked) => void) | undefined
  /** Learns of the failure after which nothing more is taken. */
  readonly broken: (error: unknown) => void
}

/**
 * One connection, and what waits for it: it is stored in the order in which it is given. Events that
 * wait together go together, a task goes alone. Commits wait for the disk: a process that outlives a
 * fall of the server goes on after the events that it was told are stored, and the cursor would
 * follow it past those that were lost.
 */
export class Lane implements AsyncDisposable {
  readonly #parts: LaneParts
  readonly #session: IndexSession
  readonly #queue: Work[] = []
  readonly #stopping = new AbortController()
  #waiting = 0
  #running: Promise<void> | undefined
  #broken: { readonly error: unknown } | undefined

  constructor(parts: LaneParts) {
    this.#parts = parts
    this.#session = new IndexSession(parts.index)
  }

  /** Resolves when all are stored. */
  write(events: readonly IndexEvent[]): Promise<void> {
    return this.#add({ kind: 'events', events, next: 0, ...Promise.withResolvers<void>() })
  }

  /**
   * Resolves when it is done, in a transaction of its own.
   * @param after what it waits for when it is its turn; a failure of it is one of the lane
   */
  task(run: Task['run'], after: Promise<unknown> = Promise.resolve()): Promise<void> {
    // Whoever learns of it first says so.
    after.catch(() => undefined)
    return this.#add({ kind: 'task', run, after, ...Promise.withResolvers<void>() })
  }

  /** Resolves when everything is stored that was given until now. */
  async idle(): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken.error
    await this.#queue.at(-1)?.promise
  }

  /** Nothing more is taken, and what waits is refused. */
  break(error: unknown): void {
    if (this.#broken !== undefined) return
    this.#broken = { error }
    for (const work of this.#queue.splice(0)) work.reject(error)
    this.#parts.broken(error)
  }

  /** What cannot be stored now is refused from here on, and not tried again. */
  stop(): void {
    this.#stopping.abort()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop()
    await this.#running
    await this.#session[Symbol.asyncDispose]()
  }

  async #add(work: Work): Promise<void> {
    assert(!this.#stopping.signal.aborted, 'nothing is given to a writer that is closed')
    if (this.#broken !== undefined) throw this.#broken.error
    this.#queue.push(work)
    this.#waiting += sizeOf(work)
    if (this.#waiting > waitingMax) this.break(new Error('the index is given more than it takes'))
    else this.#running ??= this.#run().finally(() => (this.#running = undefined))
    await work.promise
  }

  async #run(): Promise<void> {
    // What is given in the same turn of the loop goes together.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const [head] = this.#queue
      const batch = takeBatch(this.#queue)
      try {
        if (head?.kind === 'task') {
          await head.after
          await this.#patiently(() => this.#session.begin(head.run))
        } else await this.#patiently(() => this.#store(batch))
      } catch (error) {
        this.break(error)
        return
      }
      this.#settle(head?.kind === 'task' ? 1 : batch.length)
    }
  }

  /** The first works of the queue, or so many events of them, are stored. */
  #settle(count: number): void {
    this.#waiting -= count
    let left = count
    while (this.#queue.length > 0) {
      const [work] = this.#queue
      if (work === undefined) return
      if (work.kind === 'events') {
        const stored = Math.min(left, work.events.length - work.next)
        work.next += stored
        left -= stored
        if (work.next < work.events.length) return
      } else {
        if (left === 0) return
        left -= 1
      }
      this.#queue.shift()
      work.resolve()
    }
  }

  async #patiently(attempt: () => Promise<unknown>): Promise<void> {
    for (let failures = 0; ; failures++) {
      try {
        await attempt()
        return
      } catch (error) {
        if (failureKind(error) !== 'passing' || this.#stopping.signal.aborted) throw error
        this.#parts.delayed?.(error)
        const wait = { firstMs: againMs, mostMs: againMsMax, random: Math.random() }
        await pause(backoffMs({ attempt: failures, ...wait }), this.#stopping.signal)
      }
    }
  }

  async #store(events: readonly IndexEvent[]): Promise<void> {
    if (events.length === 0) return
    const parked = await storeEvents(this.#session, events, this.#parts.now())
    for (const one of parked) this.#parts.parked?.(one)
  }
}

interface Task extends PromiseWithResolvers<void> {
  readonly kind: 'task'
  readonly run: (transaction: IndexTransaction) => Promise<void>
  readonly after: Promise<unknown>
}

interface EventsWork extends PromiseWithResolvers<void> {
  readonly kind: 'events'
  readonly events: readonly IndexEvent[]
  /** Those before are stored. */
  next: number
}

type Work = Task | EventsWork

function sizeOf(work: Work): number {
  return work.kind === 'task' ? 1 : work.events.length
}

/** The next events up to a task, of one caller or more: few round trips, and one commit. */
function takeBatch(queue: readonly Work[]): readonly IndexEvent[] {
  const batch: IndexEvent[] = []
  let bytes = 0
  for (const work of queue) {
    if (work.kind === 'task') return batch
    for (let next = work.next; next < work.events.length; next++) {
      const event = work.events[next]
      if (event === undefined) break
      const size = bytesOf(event)
      if (batch.length > 0 && (batch.length === eventsMax || bytes + size > bytesMax)) return batch
      batch.push(event)
      bytes += size
    }
  }
  return batch
}

function bytesOf(event: IndexEvent): number {
  if (event.kind !== 'commit') return 0
  return event.ops.reduce((sum, op) => sum + (op.action === 'delete' ? 0 : op.content.length), 0)
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  const done = Promise.withResolvers<void>()
  const timer = setTimeout(done.resolve, ms)
  signal.addEventListener('abort', () => done.resolve(), { once: true })
  return done.promise.finally(() => clearTimeout(timer))
}

/** In one transaction. Beyond some hundred there is little to be gained. */
const eventsMax = 1_000
/** Of records, before they are written as JSON, which takes twice as much again. */
const bytesMax = 4 * 1024 * 1024
/** Events that were given and are not stored: far more than a caller who waits could give. */
const waitingMax = 100_000
const againMs = 100
const againMsMax = 10_000
