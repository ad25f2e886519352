import { XrpcError } from '../atproto/errors.ts'
import { indexVersion } from '../indexer/database.ts'
import type { Log } from '../lib/log.ts'
import { sleep } from '../lib/pause.ts'
import { codeOf, IndexReads, indexUnavailable } from './index-reads.ts'

export interface IndexWatchOptions {
  readonly url: string | undefined
  readonly now: () => number
  readonly log: Log
  readonly everyMs?: number
}

/** For the operator. */
export interface IndexState {
  readonly state: 'unknown' | 'well' | 'away' | 'unmigrated' | 'newer'
  /** Since the enrollment stream of each service was heard, as far as the index is known to say. */
  readonly lagSeconds: Readonly<Record<string, number>>
}

/**
 * Looks every second at whether the index is there, and of the version that this program reads.
 * Meanwhile nobody waits for one that is not: who asks is refused at once, until a look finds it well.
 */
export class IndexWatch {
  readonly #options: IndexWatchOptions
  readonly #reads: IndexReads
  readonly #first = Promise.withResolvers<void>()
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>
  #state: IndexState['state'] = 'unknown'
  #heard: ReadonlyMap<string, number> = new Map()

  constructor(options: IndexWatchOptions) {
    this.#options = options
    this.#reads = new IndexReads({ url: options.url, connectionsMax: 1, ...limits })
    this.#running = this.#run()
  }

  get state(): IndexState {
    const now = this.#options.now()
    const lag = [...this.#heard].map(([service, at]) => [service, Math.round(now - at) / 1000])
    return { state: this.#state, lagSeconds: Object.fromEntries(lag) }
  }

  /** @throws XrpcError 503 IndexUnavailable */
  async check(): Promise<void> {
    if (this.#state === 'unknown') await this.#first.promise
    if (this.#state !== 'well') throw indexUnavailable(new Error(`the index is ${this.#state}`))
  }

  /** The index is elsewhere, or nowhere, from now on. */
  use(url: string | undefined): void {
    this.#reads.use(url)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
    await this.#reads[Symbol.asyncDispose]()
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      await this.#look()
      this.#first.resolve()
      await sleep(this.#options.everyMs ?? everyMsDefault, signal).catch(ended)
    }
  }

  async #look(): Promise<void> {
    try {
      const rows = await this.#reads.rows<Row>(lookText, [])
      const version = rows[0]?.version ?? 0
      this.#heard = new Map(
        rows.flatMap(({ service, heardAt }) =>
          service === null ? [] : [[service, heardAt.getTime()] as const],
        ),
      )
      this.#found(stateOf(version), { version, needed: indexVersion })
    } catch (error) {
      const code = codeOf(error)
      if (code === undefinedTable) this.#found('unmigrated', { needed: indexVersion })
      else this.#found('away', { code, ...(error instanceof XrpcError ? {} : { error }) })
    }
  }

  /** Says so once. */
  #found(state: IndexState['state'], about: Readonly<Record<string, unknown>>): void {
    if (state === this.#state) return
    this.#state = state
    const { log } = this.#options
    if (state === 'well') log.info('index.well', about)
    else log.warn(`index.${state}`, { ...about, hint: hints[state] })
  }
}

type Row = { readonly version: number | null } & (
  | { readonly service: string; readonly heardAt: Date }
  | { readonly service: null; readonly heardAt: null }
)

const lookText = `
  select (select max(version) from stratos_migration) as version, s.service, s."heardAt"
  from (values (1)) as one left join stratos_service_state s on true`

function stateOf(version: number): IndexState['state'] {
  if (version === indexVersion) return 'well'
  return version < indexVersion ? 'unmigrated' : 'newer'
}

const hints: Readonly<Record<IndexState['state'], string>> = {
  unknown: '',
  well: '',
  away: 'see that PostgreSQL runs, and that STRATOS_INDEX_POSTGRES_URL leads to it',
  unmigrated: 'start "stratos index" of this version: it brings the tables to their newest form',
  newer: 'start the newer program that wrote the index',
}

/** The sleep was cut short. */
function ended(error: unknown): void {
  if (!(error instanceof Error && error.name === 'AbortError')) throw error
}

/** @see https://www.postgresql.org/docs/18/errcodes-appendix.html */
const undefinedTable = '42P01'
const everyMsDefault = 1_000
const limits = { statementMsMax: 2_000, answerMsMax: 3_000 } as const
