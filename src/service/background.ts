import type { Log } from '../lib/log.ts'
import type { ServiceStore } from '../store/service.ts'
import type { Enrollments } from './enrollment.ts'
import type { Outbox } from './outbox.ts'

interface Parts {
  /** Whether the process before this one ended in order. */
  readonly clean: boolean
  readonly store: ServiceStore
  readonly outbox: Outbox
  readonly enrollments: Enrollments
  readonly log: Log
}

/** What is taken up after a start, and again from time to time, beside the requests of people. */
export class Background {
  readonly #parts: Parts
  readonly #timer: ReturnType<typeof setInterval>
  readonly #started: Promise<'swept' | 'unswept'>
  #stopped = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.#started = this.#start()
    this.#timer = setInterval(() => void this.#queueDue(), dueEveryMs)
  }

  /** Ends early what runs; says whether the outboxes need no sweep at the next start. */
  async stop(): Promise<'swept' | 'unswept'> {
    this.#stopped = true
    clearInterval(this.#timer)
    return await this.#started
  }

  async #start(): Promise<'swept' | 'unswept'> {
    const { outbox, log, clean } = this.#parts
    try {
      await outbox.start()
      await this.#queueDue()
      return clean ? 'swept' : await this.#sweep()
    } catch (error) {
      log.error('background.failed', { error })
      return 'unswept'
    }
  }

  /** After a kill or a power cut the marks of outboxes may be missing: every actor is looked at. */
  async #sweep(): Promise<'swept' | 'unswept'> {
    const { store, outbox, log } = this.#parts
    log.info('outbox.sweep.started')
    let outcome: 'swept' | 'unswept' = 'swept'
    for (let after = ''; ;) {
      const page = await store.enrolledDids(after, sweepPage)
      for (const did of page) {
        if (this.#stopped) return 'unswept'
        try {
          await outbox.look(did)
        } catch (error) {
          // One broken actor must not hide the rows of the others.
          outcome = 'unswept'
          log.error('outbox.sweep.failed', { did, error })
        }
      }
      const last = page.at(-1)
      if (last === undefined) break
      after = last
    }
    log.info('outbox.sweep.done', { outcome })
    return outcome
  }

  async #queueDue(): Promise<void> {
    try {
      await this.#parts.enrollments.queueDueRecords('background')
    } catch (error) {
      this.#parts.log.error('background.failed', { error })
    }
  }
}

const sweepPage = 500
/** One look at an index of rows that are hardly ever there. */
const dueEveryMs = 30_000
