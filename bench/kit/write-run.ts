import type { Did } from '../../src/atproto/syntax.ts'
import { isFields, textOf } from '../../test/kit/xrpc.ts'
import { type Driven, drive } from './generator.ts'
import { benchDid, Callers, seedPeople } from './people.ts'
import { type Figures, figuresLine, figuresOf, print } from './report.ts'
import { type Build, Service } from './service.ts'
import { type Exporter, verifyRepos } from './verify.ts'
import {
  applying,
  creating,
  creatingWithTokens,
  mixing,
  postText,
  preparing,
  someKeys,
  type WritePlan,
  type WriteTarget,
} from './write-plans.ts'

export const writeLoads = [
  'one',
  'actors',
  'half',
  'writers',
  'apply10',
  'apply200',
  'mix',
  'token-one',
  'token',
  'fresh-one',
  'fresh',
] as const
export type WriteLoad = (typeof writeLoads)[number]

export interface WriteRunOptions {
  readonly build: Build
  /** Of SQLite: full or normal. */
  readonly synchronous: string
  readonly seconds: number
  readonly loads: readonly WriteLoad[]
  readonly shards?: string | undefined
  /** In the mixed load. */
  readonly people: number
}

const busyActors = 64
const writersOfOne = 32
const mixClients = 64
const mixKeys = 10
/** Steps are made before the load: more of them than any server here can answer. */
const mixPerSecondMax = 20_000
/** Each takes about 0.25 ms to make, and so about as long to verify. */
const freshPerSecondMax = 3_000
const createNsid = 'zone.stratos.repo.createRecord'

/** One service on a folder of its own, and all its loads; its repos are verified at the end. */
export async function measureWrites(options: WriteRunOptions): Promise<Figures[]> {
  const run = await WriteRun.begin(options)
  await using _ = run
  const figures: Figures[] = []
  for (const load of options.loads) figures.push(await run.measure(load))
  await run.verify()
  return figures
}

/** A running service, what people wrote to it so far, and how they call it. */
class WriteRun implements AsyncDisposable {
  readonly #options: WriteRunOptions
  readonly #service: Service
  readonly #callers: Callers
  readonly #dids: readonly Did[]
  readonly #written = new Map<Did, number>()
  readonly #emptyBytes: number
  #peak: number | undefined

  private constructor(
    options: WriteRunOptions,
    parts: {
      readonly service: Service
      readonly callers: Callers
      readonly dids: readonly Did[]
      readonly emptyBytes: number
    },
  ) {
    this.#options = options
    this.#service = parts.service
    this.#callers = parts.callers
    this.#dids = parts.dids
    this.#emptyBytes = parts.emptyBytes
  }

  static async begin(options: WriteRunOptions): Promise<WriteRun> {
    const { build, synchronous, shards, loads, people } = options
    await using parts = new AsyncDisposableStack()
    const service = parts.use(await Service.prepare())
    const callers = parts.use(new Callers())
    const count = busyActors + (loads.includes('mix') ? people : 0)
    const dids = Array.from({ length: count }, (_, index) => benchDid(index))
    for (const did of dids.slice(0, busyActors)) callers.add(did)
    print(`\n${nameOf(options)}: enrolling ${count} people`)
    await seedPeople(service, dids, build)
    const env = {
      STRATOS_ALLOWED_DOMAINS: 'a,b',
      STRATOS_SQLITE_SYNCHRONOUS: synchronous,
      ...callers.env,
      ...(shards === undefined ? {} : { STRATOS_SHARDS: shards }),
    }
    await service.start(env, build)
    const run = new WriteRun(options, {
      service,
      callers,
      dids,
      emptyBytes: await service.diskBytes(),
    })
    // What a process does the first time is no load's.
    await run.#drive(creating(run.#target, run.#busy), { seconds: Math.min(1, options.seconds) })
    parts.move()
    return run
  }

  async measure(load: WriteLoad): Promise<Figures> {
    const { name, driven, recordsPerRequest } = await this.#run(load)
    const figures = figuresOf(name, driven, recordsPerRequest)
    print(figuresLine(figures, 'writes'))
    return figures
  }

  /** Also says what the writes left behind. */
  async verify(): Promise<void> {
    const service = this.#service
    const records = [...this.#written.values()].reduce((sum, count) => sum + count, 0)
    const resident = service.residentMb()
    const bytes = ((await service.diskBytes()) - this.#emptyBytes) / records
    print(
      `resident ${resident.toFixed(0)} MB, ${bytes.toFixed(0)} bytes on disk per record ` +
        `(of ${records} in ${this.#written.size} repos, beyond the empty repos)`,
    )
    print(await verifyRepos(stratosExporter(service), this.#written))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#callers[Symbol.asyncDispose]()
    await this.#service[Symbol.asyncDispose]()
  }

  get #busy(): Did[] {
    return this.#dids.slice(0, busyActors)
  }

  get #target(): WriteTarget {
    return stratosTarget(this.#service)
  }

  async #run(
    load: WriteLoad,
  ): Promise<{ name: string; driven: Driven; recordsPerRequest?: number }> {
    const [first, second] = this.#dids
    if (first === undefined || second === undefined) throw new Error('a run without people')
    const target = this.#target
    const timed = async (name: string, plan: WritePlan) => ({
      name,
      driven: await this.#drive(plan, {}),
    })
    switch (load) {
      case 'one':
        return await timed('1 client in sequence', creating(target, [first]))
      case 'actors': {
        const done = await timed('64 actors at once', creating(target, this.#busy))
        this.#peak = done.driven.times.length / done.driven.seconds
        return done
      }
      case 'half':
        return await this.#half()
      case 'writers': {
        const writers = Array.from({ length: writersOfOne }, () => second)
        return await timed('1 actor, 32 writers', creating(target, writers))
      }
      case 'apply10':
        return {
          ...(await timed('applyWrites of 10, in sequence', applying(target, this.#busy, 10))),
          recordsPerRequest: 10,
        }
      case 'apply200':
        return {
          ...(await timed('applyWrites of 200, in sequence', applying(target, this.#busy, 200))),
          recordsPerRequest: 200,
        }
      case 'mix':
        return await this.#mix()
      case 'token-one':
        return await timed('1 client, one token', creating(this.#tokenTarget(), [first]))
      case 'token':
        return await timed('64 actors, a token each', creating(this.#tokenTarget(), this.#busy))
      case 'fresh-one':
        return await timed('1 client, a token a request', this.#fresh([first]))
      case 'fresh':
        return await timed('64 actors, a token a request', this.#fresh(this.#busy))
      default:
        return load satisfies never
    }
  }

  /** At half of what 64 clients without a pause reached, which is measured first where it was not. */
  async #half(): Promise<{ name: string; driven: Driven }> {
    if (this.#peak === undefined) await this.measure('actors')
    const perSecond = (this.#peak ?? 0) / 2
    const plan = creating(this.#target, this.#busy)
    return {
      name: '64 actors at half the peak rate',
      driven: await this.#drive(plan, { perSecond }),
    }
  }

  async #mix(): Promise<{ name: string; driven: Driven }> {
    const dids = this.#dids.slice(busyActors)
    const keys = someKeys(mixKeys)
    const target = this.#target
    const prepared = preparing(target, dids, { keys, clients: mixClients })
    await this.#drive(prepared, { seconds: null })
    const { seconds } = this.#options
    const stepsPerClient = Math.ceil((mixPerSecondMax * (seconds + warmUp(seconds))) / mixClients)
    const plan = mixing(target, dids, { keys, clients: mixClients, stepsPerClient })
    const name = `mix over ${dids.length} actors`
    return { name, driven: await this.#drive(plan, {}) }
  }

  #tokenTarget(): WriteTarget {
    const tokens = new Map(this.#busy.map((did) => [did, this.#token(did)]))
    const headersOf = (did: Did) => ({ Authorization: `Bearer ${tokens.get(did)}` })
    return { ...this.#target, headersOf }
  }

  #fresh(writers: readonly Did[]): WritePlan {
    const { seconds } = this.#options
    const each = Math.ceil((freshPerSecondMax * (seconds + warmUp(seconds))) / writers.length)
    return creatingWithTokens(this.#target, writers, (did) =>
      Array.from({ length: each }, () => this.#token(did)),
    )
  }

  #token(did: Did): string {
    return this.#callers.token(did, { aud: this.#service.did, lxm: createNsid })
  }

  async #drive(
    plan: WritePlan,
    timing: { readonly seconds?: number | null; readonly perSecond?: number },
  ): Promise<Driven> {
    const { seconds = this.#options.seconds, perSecond = null } = timing
    const { requests, clients, effects } = plan
    const warmUpSeconds = seconds === null ? 0 : warmUp(seconds)
    const { port, pid } = this.#service
    const driven = await drive({ port, requests, clients, warmUpSeconds, seconds, perSecond }, pid)
    addWritten(this.#written, { effects, answered: driven.answered })
    return driven
  }
}

/** How a bench writes to a service of ours, by the development bearer. */
export function stratosTarget(service: Pick<Service, 'did'>): WriteTarget {
  const collection = 'zone.stratos.feed.post'
  return {
    methods: 'zone.stratos.repo',
    collection,
    headersOf: bearer,
    record: {
      $type: collection,
      text: postText,
      createdAt: new Date().toISOString(),
      langs: ['en'],
      boundary: { values: [{ value: `${service.did}/a` }] },
    },
  }
}

export function stratosExporter({ url }: { readonly url: string }): Exporter {
  return {
    url,
    method: 'zone.stratos.sync.getRepo',
    headersOf: bearer,
    signingKeyOf: async (did: Did) => {
      const path = `/xrpc/zone.stratos.enrollment.status?did=${did}`
      const enrollment: unknown = await (await fetch(url + path, { headers: bearer(did) })).json()
      if (!isFields(enrollment)) throw new Error(`no status of ${did}`)
      return textOf(enrollment, 'signingKey')
    },
  }
}

/** Keeps count of the records in each repo, from the answers to each request of a plan. */
export function addWritten(
  written: Map<Did, number>,
  {
    effects,
    answered,
  }: { readonly effects: WritePlan['effects']; readonly answered: readonly number[] },
): void {
  for (const [index, { did, added }] of effects.entries()) {
    const count = answered[index] ?? 0
    if (count > 0) written.set(did, (written.get(did) ?? 0) + added * count)
  }
}

function warmUp(seconds: number): number {
  return seconds / 5
}

function bearer(did: Did): Record<string, string> {
  return { Authorization: `Bearer ${did}` }
}

function nameOf({ build, synchronous, seconds }: WriteRunOptions): string {
  return `synchronous=${synchronous}, ${build.binary ?? 'from source'}, ${seconds} s a load`
}
