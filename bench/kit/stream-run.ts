import type { Did } from '../../src/atproto/syntax.ts'
import { drive } from './generator.ts'
import type { PlannedStream } from './listen-plan.ts'
import { seedPeople } from './people.ts'
import { settle } from './process.ts'
import { type Build, Service } from './service.ts'
import { verifyRepos } from './verify.ts'
import { postText, type WritePlan, type WriteTarget } from './write-plans.ts'
import { addWritten, stratosExporter, stratosTarget } from './write-run.ts'

/** Of an AppView, in the service that only this bench asks. */
const syncToken = 'the-token-of-an-appview-that-reads-streams'
const path = '/xrpc/zone.stratos.sync.subscribeRecords'

/** A service of some people, and what was written to it. */
export class StreamRun implements AsyncDisposable {
  readonly service: Service
  readonly dids: readonly Did[]
  readonly written = new Map<Did, number>()
  readonly #options: { readonly build: Build; readonly shards: string | undefined }

  private constructor(service: Service, dids: readonly Did[], options: StreamRun['options']) {
    this.service = service
    this.dids = dids
    this.#options = options
  }

  get options(): { readonly build: Build; readonly shards: string | undefined } {
    return this.#options
  }

  static async of(dids: readonly Did[], options: StreamRun['options']): Promise<StreamRun> {
    const service = await Service.prepare()
    await using preparing = new AsyncDisposableStack()
    preparing.use(service)
    await seedPeople(service, dids, options.build)
    preparing.move()
    return new StreamRun(service, dids, options)
  }

  async start(): Promise<void> {
    const { build, shards } = this.#options
    const threads = shards === undefined ? {} : { STRATOS_SHARDS: shards }
    const env = { STRATOS_ALLOWED_DOMAINS: 'a,b', STRATOS_SYNC_TOKEN: syncToken, ...threads }
    await this.service.start(env, build)
    await settle(this.service.pid)
  }

  /** Posts that say when they were sent. */
  get target(): WriteTarget {
    const target = stratosTarget(this.service)
    return { ...target, record: { ...target.record, text: `${postText} Sent at <now>` } }
  }

  /** Every client does its steps once. */
  async write({ requests, clients, effects }: WritePlan, perSecond: number | null = null) {
    const { port, pid } = this.service
    const timing = { warmUpSeconds: 0, seconds: null, perSecond }
    const driven = await drive({ port, requests, clients, ...timing }, pid)
    addWritten(this.written, { effects, answered: driven.answered })
    return driven
  }

  async verify(): Promise<string> {
    return await verifyRepos(stratosExporter(this.service), this.written)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.service[Symbol.asyncDispose]()
  }
}

/** Streams of one repo, by its owner. */
export function repoStream(
  did: Did,
  stream: Pick<PlannedStream, 'sockets' | 'commits' | 'reading'> & { readonly cursor?: number },
): PlannedStream {
  const { cursor, ...counts } = stream
  const query = new URLSearchParams({
    did,
    ...(cursor === undefined ? {} : { cursor: String(cursor) }),
  })
  return {
    ...counts,
    path: `${path}?${query.toString()}`,
    headers: { Authorization: `Bearer ${did}` },
    cursors: null,
    enrollments: 0,
  }
}

/** The stream of everybody's commits, by an AppView. */
export function everyonesStream(
  stream: Pick<PlannedStream, 'cursors' | 'enrollments' | 'commits'>,
): PlannedStream {
  return {
    ...stream,
    sockets: 1,
    reading: 'decode',
    path: `${path}?${new URLSearchParams({ commits: 'true', syncToken }).toString()}`,
    headers: {},
  }
}
