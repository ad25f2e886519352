import type { Log } from '../lib/log.ts'
import type { DepartureStore } from '../store/departure.ts'
import type { ServiceStore } from '../store/service.ts'
import type { Sessions } from '../store/session.ts'
import type { BlobSweep } from './blob-sweep.ts'
import type { Departures } from './departure.ts'
import type { Enrollments } from './enrollment.ts'
import type { KeepAlive } from './keep-alive.ts'
import type { Outbox } from './outbox.ts'
import type { Retention } from './retention.ts'
import type { SessionSecrets } from './session-secrets.ts'
import type { StubSwitch } from './stub-switch.ts'
import type { TakedownNews } from './takedown-news.ts'
import { sweepAbandoned } from './sweep.ts'

interface Parts {
  readonly dataDir: string
  /** Whether the process before this one ended in order. */
  readonly clean: boolean
  readonly store: ServiceStore
  readonly sessions: Sessions
  readonly secrets: SessionSecrets
  readonly departing: { readonly store: DepartureStore; readonly departures: Departures }
  readonly outbox: Outbox
  readonly enrollments: Enrollments
  readonly keepAlive: KeepAlive
  readonly news: TakedownNews
  readonly retention: Retention
  readonly blobSweep: BlobSweep
  readonly stubs: StubSwitch
  readonly log: Log
  /** Between two rounds of what is due. */
  readonly dueEveryMs?: number
}

/** What is taken up after a start, and again from time to time, beside the requests of people. */
export class Background {
  readonly #parts: Parts
  readonly #timer: ReturnType<typeof setInterval>
  readonly #started: Promise<'swept' | 'unswept'>
  #due: Promise<void> | undefined
  #stopped = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.#started = this.#start()
    this.#timer = setInterval(() => void this.#doDue(), parts.dueEveryMs ?? dueEveryMsDefault)
    parts.keepAlive.start()
  }

  /** Ends early what runs; says whether the outboxes need no sweep at the next start. */
  async stop(): Promise<'swept' | 'unswept'> {
    this.#stopped = true
    clearInterval(this.#timer)
    this.#parts.keepAlive.stop()
    await this.#due
    return await this.#started
  }

  async #start(): Promise<'swept' | 'unswept'> {
    const { outbox, stubs, clean } = this.#parts
    const stopped = () => this.#stopped
    await this.#attempt('outbox', () => outbox.start())
    await this.#doDue()
    await this.#attempt('abandoned', () => this.#sweepFolders())
    await this.#attempt('stubs', () => stubs.run(stopped))
    if (clean) return 'swept'
    return (await this.#attempt('sweep', () => this.#sweep())) ?? 'unswept'
  }

  /** What was decided on and could not be done at once: one round at a time. */
  #doDue(): Promise<void> {
    this.#due ??= this.#round().finally(() => (this.#due = undefined))
    return this.#due
  }

  async #round(): Promise<void> {
    const { enrollments, departing, sessions, secrets, news, retention, blobSweep } = this.#parts
    const stopped = () => this.#stopped
    await this.#attempt('departures', () => enrollments.eraseDue('background', stopped))
    await this.#attempt('records', () => enrollments.queueDueRecords('background', stopped))
    await this.#attempt('late departures', () => departing.departures.giveUp(Date.now(), stopped))
    await this.#attempt('takedown news', () => news.tellDue('background', stopped))
    await this.#attempt('sessions', () => sessions.dropExpired(Date.now()))
    await this.#attempt('session secrets', () => secrets.eraseDue())
    await this.#attempt('retention', () => retention.prune(stopped))
    await this.#attempt('blobs', () => blobSweep.run(stopped))
  }

  /** A failure of one kind of work must not keep the other kinds from being done. */
  async #attempt<Result>(work: string, task: () => Promise<Result>): Promise<Result | undefined> {
    if (this.#stopped) return undefined
    try {
      return await task()
    } catch (error) {
      this.#parts.log.error('background.failed', { work, error })
      return undefined
    }
  }

  async #sweepFolders(): Promise<void> {
    const { dataDir, store, departing, enrollments, log } = this.#parts
    await sweepAbandoned({
      dataDir,
      store,
      departures: departing.store,
      log,
      inTurn: (did, task) => enrollments.inTurn(did, task),
      stopped: () => this.#stopped,
    })
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
}

const sweepPage = 500
/** One look at indexes of rows that are hardly ever there. */
const dueEveryMsDefault = 30_000
