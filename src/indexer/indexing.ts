import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { sleep, unlessAborted } from '../lib/pause.ts'
import { clearClosed } from './clearing.ts'
import type { IndexOptions, IndexSql } from './database.ts'
import { Firehose, type FirehoseCounts } from './firehose.ts'
import type { FirehoseUrl } from './firehose-url.ts'
import { type FollowedService, Follower, type FollowerState } from './follower.ts'
import { LockLost, LockTaken } from './session.ts'
import type { SocketLimits } from './stream-socket.ts'
import { removeUnfollowed } from './unfollowed.ts'
import { IndexWriter } from './writer.ts'

interface Parts {
  readonly index: IndexOptions
  /** For reading; its tables are there. */
  readonly sql: IndexSql
  readonly services: readonly FollowedService[]
  /** PDSes and relays that hint at who enrolls. */
  readonly firehoses?: readonly FirehoseUrl[]
  /** Admits every address: closed networks and tests. */
  readonly allowPrivateNetwork: boolean
  readonly log: Log
  readonly limits?: SocketLimits
  readonly hintMs?: number
  /** Until the lock is tried for again. */
  readonly standbyMs?: number
}

export interface IndexingState {
  /** Several may run: one leads, and the others wait for it to end. Before, that is not known. */
  readonly role: 'starting' | 'leading' | 'waiting'
  readonly services: readonly FollowerState[]
  readonly firehoses: readonly FirehoseCounts[]
}

/**
 * Fills the index from services, as long as nobody else does. The lock by which one process leads is
 * held by the connection that writes: whoever lost it cannot write either.
 */
export class Indexing {
  readonly #parts: Parts
  readonly #ended = new AbortController()
  #followers: readonly Follower[] = []
  #firehoses: readonly Firehose[] = []
  #role: IndexingState['role'] = 'starting'
  #running: Promise<void> | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  get state(): IndexingState {
    return {
      role: this.#role,
      services: this.#followers.map(({ state }) => state),
      firehoses: this.#firehoses.map(({ counts }) => counts),
    }
  }

  start(): void {
    this.#running ??= this.#run(this.#ended.signal)
  }

  /** Stores what came, unless the database is away. */
  async stop(): Promise<void> {
    this.#ended.abort()
    await this.#running
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { log, standbyMs = standbyMsDefault } = this.#parts
    let toldToWait = false
    for (let failures = 0; !signal.aborted; failures++) {
      let waitMs = backoffMs({ attempt: failures, firstMs, mostMs, random: Math.random() })
      try {
        await this.#lead(signal, () => {
          failures = 0
          toldToWait = false
          log.info('index.leading')
        })
      } catch (error) {
        if (signal.aborted) return
        this.#role = error instanceof LockTaken ? 'waiting' : 'starting'
        if (error instanceof LockTaken) {
          if (!toldToWait) log.info('index.waiting', { because: error.message })
          toldToWait = true
          waitMs = standbyMs
        } else if (error instanceof LockLost) log.warn('index.lost', { because: error.message })
        else log.error('index.failed', { error })
      }
      await sleep(waitMs, signal).catch(() => undefined)
    }
  }

  async #lead(signal: AbortSignal, leading: () => void): Promise<void> {
    const { index, services, log } = this.#parts
    await using writer = new IndexWriter({
      index: { ...index, lock: writerLock },
      delayed: (error) => log.warn('index.delayed', { error }),
      parked: ({ service, did, seq, error }) =>
        log.warn('index.parked', { service, did, seq, error }),
    })
    await unlessAborted(writer.open(), signal)
    leading()
    this.#followers = services.map((service) => new Follower({ ...this.#parts, service, writer }))
    this.#firehoses = (this.#parts.firehoses ?? []).map((at) => this.#firehose(at))
    this.#role = 'leading'
    const lost = new AbortController()
    const either = AbortSignal.any([signal, lost.signal])
    const all = [...this.#followers, ...this.#firehoses].map(async (one) => {
      try {
        await one.run(either)
      } finally {
        // The writer is one for all: when it fails for one there is nothing left to do.
        lost.abort()
      }
    })
    const followed = services.map(({ did }) => did)
    const beside = [
      removeUnfollowed(writer, followed, { log, signal: either }),
      clearClosed(writer, either),
    ].map(async (task) => {
      try {
        await task
      } catch (error) {
        if (either.aborted) return
        lost.abort()
        throw error
      }
    })
    const ends = await Promise.allSettled([...all, ...beside])
    this.#followers = []
    this.#firehoses = []
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }

  #firehose(at: FirehoseUrl): Firehose {
    const { sql, log, allowPrivateNetwork, services } = this.#parts
    return new Firehose({
      at,
      services: new Set(services.map(({ did }) => did)),
      sql,
      log,
      allowPrivateNetwork,
      tell: async ({ did, service }) => {
        const follower = this.#followers.find(({ state }) => state.service === service)
        if (follower?.hint(did) === false) throw new Error('too many hints at once')
      },
    })
  }
}

/** Any number that nobody else takes. */
const writerLock = 7_245_117_302
const standbyMsDefault = 2_000
const firstMs = 500
const mostMs = 30_000
