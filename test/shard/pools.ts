import { createHash, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { verifyRepoCar } from '@atproto/repo'
import type { Cid } from '../../src/atproto/cid.ts'
import { Bulk } from '../../src/bulk/bulk.ts'
import { Schemas } from '../../src/atproto/lexicon.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import {
  type AtUri,
  type Did,
  type Nsid,
  parseDid,
  parseRkey,
  type Tid,
} from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import type { WriteCall } from '../../src/service/write.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import type { ShardBoot } from '../../src/shard/messages.ts'
import { ShardPool } from '../../src/shard/pool.ts'
import type { View } from '../../src/store/actor.ts'
import { bulkBoot } from '../bulk/boot.ts'
import { seedBoot } from '../kit/seed.ts'
import { a, b, collection, post, serviceDid } from '../service/posts.ts'

/** Where the engine runs. Every suite holds for both. */
export const kinds = ['inline', 'worker'] as const
export type Kind = (typeof kinds)[number]

/** A pool, what its engine logged (inline only), and workers that ended by themselves. */
export class House {
  readonly pool: ShardPool
  readonly bulk: Bulk
  readonly dataDir: string
  readonly log: string[]
  readonly died: string[]
  readonly workers: readonly Worker[]

  private constructor(
    parts: Pick<House, 'pool' | 'bulk' | 'dataDir' | 'log' | 'died' | 'workers'>,
  ) {
    this.pool = parts.pool
    this.bulk = parts.bulk
    this.dataDir = parts.dataDir
    this.log = parts.log
    this.died = parts.died
    this.workers = parts.workers
  }

  /** Opens a data folder; `over` goes to one boot a shard, one shard by default. */
  static async open(kind: Kind, dataDir: string, over: readonly Partial<ShardBoot>[] = [{}]) {
    const log: string[] = []
    const died: string[] = []
    const workers: Worker[] = []
    const boots = over.map((one, index) => ({
      ...boot(dataDir),
      name: `shard-${index}`,
      ...one,
    }))
    const [first] = boots
    const rest = { dataDir, log, died, workers }
    if (kind === 'inline' && first !== undefined) {
      const inlineLog = createLog('warn', keepIn(log))
      const bulk = Bulk.inline(bulkBoot(dataDir), inlineLog)
      const parts = { schemas: new Schemas(schemaDocs), log: inlineLog }
      return new House({ pool: ShardPool.inline(first, parts), bulk, ...rest })
    }
    const startWorker = () => {
      const worker = new Worker(new URL('../../src/worker.ts', import.meta.url).href)
      workers.push(worker)
      return worker
    }
    const ended = (name: string, error: unknown) => void died.push(`${name}: ${String(error)}`)
    const bulk = Bulk.inWorker(bulkBoot(dataDir), { startWorker, died: ended })
    const pool = await ShardPool.inWorkers(boots, { start: startWorker, died: ended })
    return new House({ pool, bulk, ...rest })
  }

  /** A new actor with an empty repo. */
  async actor(did = newDid()): Promise<Actor> {
    const { signingKey } = await this.pool.call(did, 'test', { kind: 'key' })
    await this.pool.call(did, 'test', { kind: 'open', outbox: [] })
    return this.known(did, signingKey)
  }

  known(did: Did, signingKey: string): Actor {
    return new Actor(this, did, signingKey)
  }
}

/** What a test asks of one actor, as its owner. */
export class Actor {
  readonly did: Did
  readonly signingKey: string
  readonly #house: House

  constructor(house: House, did: Did, signingKey: string) {
    this.#house = house
    this.did = did
    this.signingKey = signingKey
  }

  get folder(): string {
    const prefix = createHash('sha256').update(this.did).digest('hex').slice(0, 2)
    return join(this.#house.dataDir, 'actors', prefix, this.did)
  }

  get database(): string {
    return join(this.folder, 'stratos.sqlite')
  }

  /** The path of the database, once everything that was acknowledged is in it. */
  async stored(): Promise<string> {
    await this.rkeys()
    return this.database
  }

  /** One operation, and what came of it. */
  async write(op: WriteOp, over: Partial<WriteCall> = {}) {
    const { results, ...rest } = await this.apply([op], over)
    return { ...results[0], ...rest }
  }

  /** Several, as one commit. */
  apply(ops: readonly WriteOp[], over: Partial<WriteCall> = {}) {
    const facts = {
      boundaries: [a, b],
      targets: {},
      stubs: [] as readonly Nsid[],
      takendown: [],
      takendownBlobs: [],
    }
    return this.#house.pool.call(this.did, 'test', { kind: 'write', ops, ...facts, ...over })
  }

  create(rkey?: string, over: Partial<WriteCall> & { record?: unknown } = {}) {
    const { record = post({ text: rkey ?? 'a post' }), ...rest } = over
    const key = rkey === undefined ? undefined : parseRkey(rkey)
    return this.write({ action: 'create', collection, rkey: key, record }, rest)
  }

  remove(rkey: string, over: Partial<WriteCall> & { swapRecord?: Cid | undefined } = {}) {
    const { swapRecord, ...rest } = over
    return this.write({ action: 'delete', collection, rkey: parseRkey(rkey), swapRecord }, rest)
  }

  async read(rkey: string) {
    const ask = { kind: 'read', collection, rkey: parseRkey(rkey), view: 'all' } as const
    return recordsOf(await this.#house.pool.call(this.did, 'test', ask))[0]
  }

  /** Keys of all records, oldest key first. */
  async rkeys(): Promise<string[]> {
    const base = { kind: 'list', collection, order: 'ascending', view: 'all' } as const
    const page = await this.#house.pool.call(this.did, 'test', { ...base, limit: 10_000 })
    return recordsOf(page).map(({ uri }) => uri.slice(uri.lastIndexOf('/') + 1))
  }

  async export(wanted: { view?: View; since?: Tid } = {}): Promise<Uint8Array> {
    return await new Response(await this.exporting(wanted)).bytes()
  }

  async exporting({ view = 'all', since }: { view?: View; since?: Tid } = {}) {
    const settled = () => this.#house.pool.call(this.did, 'test', { kind: 'settle' })
    return await this.#house.bulk.export({ did: this.did, view, since }, settled)
  }

  /** Keys and CIDs of the whole repo, which must verify against the signing key. */
  async verified(): Promise<{ rev: string; rkeys: string[]; cids: Map<string, string> }> {
    const { commit, creates } = await verifyRepoCar(await this.export(), this.did, this.signingKey)
    const cids = new Map(creates.map(({ rkey, cid }) => [rkey, cid.toString()]))
    return { rev: commit.rev, rkeys: [...cids.keys()].toSorted(), cids }
  }
}

/** What stands in the texts of an answer. */
export function recordsOf({ texts }: { readonly texts: readonly string[] }): ReadRecord[] {
  return texts.map((text): ReadRecord => JSON.parse(text))
}

interface ReadRecord {
  readonly uri: AtUri
  readonly cid: Cid
  readonly value: Readonly<Record<string, unknown>>
}

export function newDid(): Did {
  return parseDid(`did:web:${randomUUID()}.test`)
}

function boot(dataDir: string): ShardBoot {
  const seeded = seedBoot(dataDir, serviceDid)
  return { ...seeded, schemas: JSON.stringify(schemaDocs), logLevel: 'silent' }
}

function keepIn(lines: string[]): (line: string) => void {
  return (line) => void lines.push(line)
}
