import type { ServiceKey } from '../atproto/keys.ts'
import type { Did } from '../atproto/syntax.ts'
import { openIndex } from '../indexer/database.ts'
import { EmbeddedPostgres } from '../indexer/embedded-postgres.ts'
import { followedService, type ReaderParts } from '../indexer/followed-service.ts'
import type { FirehoseUrl } from '../indexer/firehose-url.ts'
import type { FollowerState } from '../indexer/follower.ts'
import { Indexing } from '../indexer/indexing.ts'
import type { AtExit } from '../indexer/postgres-programs.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { sleep } from '../lib/pause.ts'
import { ServerFailed } from '../indexer/server-failed.ts'
import type { Identities } from '../remote/identity.ts'
import { serviceToken } from '../remote/service-token.ts'
import { MigrationError } from '../store/migrate.ts'

interface OwnDatabase {
  readonly folder: string
  readonly atExit: AtExit
}

interface Parts {
  /** A PostgreSQL of the operator, or one of our own in a folder. */
  readonly database: { readonly url: string } | OwnDatabase
  readonly services: readonly { readonly did: Did; readonly origin: string | undefined }[]
  readonly firehoses: readonly FirehoseUrl[]
  readonly allowPrivateNetwork: boolean
  /** As whom services are read. */
  readonly reader: Did
  readonly key: ServiceKey
  readonly identities: Identities
  readonly fetches: ReaderParts['fetches']
  readonly log: Log
  /** Learns where the index is, and undefined when it is there no more. */
  readonly moved?: (url: string | undefined) => void
}

/**
 * The index of this process and whoever fills it. Its database may go away and come back; one of our
 * own that ends is started anew, with another URL.
 */
export class IndexSide {
  readonly #parts: Parts
  readonly #ended = new AbortController()
  readonly #failed = Promise.withResolvers<never>()
  #wasOpen = false
  #indexing: Indexing | undefined
  #running: Promise<void> | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.#failed.promise.catch(() => undefined)
  }

  /** For the operator. */
  get state(): object {
    const state = this.#indexing?.state
    if (state === undefined) return { role: 'starting' }
    return { ...state, services: state.services.map(lagging) }
  }

  /** Whether what services say is in the index as it happens, or another process sees to that. */
  get isReady(): boolean {
    const state = this.#indexing?.state
    if (state?.role === 'waiting') return true
    return state?.role === 'leading' && state.services.every(isInTime)
  }

  /** Rejects with what no later try could mend: MigrationError, ServerFailed. */
  get failed(): Promise<never> {
    return this.#failed.promise
  }

  start(): void {
    this.#running ??= this.#run(this.#ended.signal).catch((error: unknown) => {
      this.#failed.reject(error)
    })
  }

  async stop(): Promise<void> {
    this.#ended.abort()
    await this.#running
  }

  readonly #authorize = async (aud: Did, lxm: string) => {
    const { key, reader } = this.#parts
    return `Bearer ${serviceToken(key, { iss: reader, aud, lxm, nowMs: Date.now() })}`
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; failures++) {
      const startedMs = performance.now()
      try {
        await this.#once(signal)
      } catch (error) {
        if (error === signal.reason) return
        // Another try would find the same; of one that was well before the operator reads in the log.
        const isLasting = error instanceof MigrationError || error instanceof ServerFailed
        if (isLasting && !this.#wasOpen) throw error
        this.#parts.log.error('index.unreachable', { error })
      }
      if (performance.now() - startedMs > mostMs) failures = 0
      const wait = { attempt: failures, firstMs, mostMs, random: Math.random() }
      await sleep(backoffMs(wait), signal).catch(() => undefined)
    }
  }

  /** As long as the database can be had, or nobody ends it. */
  async #once(signal: AbortSignal): Promise<void> {
    const { database, log } = this.#parts
    if ('url' in database) return await this.#over(database.url, signal)
    await using embedded = await EmbeddedPostgres.start({ ...database, log, signal })
    const died = new AbortController()
    void embedded.died.then((error) => {
      log.error('index.postgres.ended', { error })
      died.abort()
    })
    await this.#over(embedded.url, AbortSignal.any([signal, died.signal]))
  }

  async #over(url: string, signal: AbortSignal): Promise<void> {
    const { services, moved } = this.#parts
    const sql = await openIndex({ url })
    const reading = { ...this.#parts, authorize: this.#authorize }
    const followed = services.map((service) => followedService(service, reading))
    const indexing = new Indexing({ ...this.#parts, index: { url }, sql, services: followed })
    try {
      this.#wasOpen = true
      moved?.(url)
      this.#indexing = indexing
      indexing.start()
      await aborted(signal)
    } finally {
      moved?.(undefined)
      this.#indexing = undefined
      await indexing.stop()
      await sql.end({ timeout: endSeconds })
    }
  }
}

function isInTime({ isLive, heardMs }: FollowerState): boolean {
  return isLive && heardMs !== undefined && Date.now() - heardMs < lagMsMax
}

/** With the time since which the index may lack something. */
function lagging({ heardMs, ...state }: FollowerState) {
  return heardMs === undefined ? state : { ...state, lagSeconds: (Date.now() - heardMs) / 1000 }
}

async function aborted(signal: AbortSignal): Promise<void> {
  const end = Promise.withResolvers<void>()
  if (signal.aborted) return
  signal.addEventListener('abort', () => end.resolve(), { once: true })
  await end.promise
}

/** Heartbeats come every two seconds; after five without one feeds are refused. */
const lagMsMax = 10_000
const firstMs = 500
const mostMs = 30_000
/** Until reads that still run are cut off. */
const endSeconds = 5
