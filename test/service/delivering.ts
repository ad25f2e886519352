import { join } from 'node:path'
import type { Did, Nsid } from '../../src/atproto/syntax.ts'
import { parseRkey } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import type { ServiceKey } from '../../src/atproto/keys.ts'
import { createLog } from '../../src/lib/log.ts'
import { Pds, SessionLost } from '../../src/remote/pds.ts'
import type { CallActor } from '../../src/service/calls.ts'
import { Departures } from '../../src/service/departure.ts'
import { Enrollments, type EnrollmentRules } from '../../src/service/enrollment.ts'
import { Outbox } from '../../src/service/outbox.ts'
import { DepartureStore } from '../../src/store/departure.ts'
import { DiskBlobs } from '../../src/store/blob-disk.ts'
import { TakedownStore } from '../../src/store/takedown.ts'
import { BlobKeeper } from '../../src/service/blob-keeper.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { ServiceStore } from '../../src/store/service.ts'
import type { Sql } from '../../src/store/sql.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { eventually } from '../kit/wait.ts'
import { type Actor, House } from '../shard/pools.ts'
import { a, b, c, collection, serviceDid } from './posts.ts'
import { PdsServer } from './pds-server.ts'

/** Where a test may step in; each passes on to the real part by default. */
export interface Seams {
  call(pass: CallActor): CallActor
  /** Statements of the service store, before they run. */
  run(sql: string): Promise<void>
  /** Before and after each call of a shard, batch of the service store and request to the PDS. */
  step(): Promise<void>
}

/** An outbox with real stores and a real shard, and somebody's PDS on the other side. */
export class Delivering implements AsyncDisposable {
  house: House
  store: ServiceStore
  readonly departures: DepartureStore
  readonly takedowns: TakedownStore
  readonly storage: DiskBlobs
  readonly blobs: BlobKeeper
  readonly sql: Sql
  readonly pds: PdsServer
  /** Whose OAuth sessions were ended at the PDS. */
  readonly revoked: Did[] = []
  readonly log: string[] = []
  /** Whose OAuth session is lost. */
  readonly signedOut = new Set<Did>()
  /** Whose PDS gave trouble, in order. */
  readonly troubled: Did[] = []
  /** Looks at the use of a session before it is given. */
  beforeSession: (did: Did) => Promise<void> = async () => undefined
  /** What had its turn with a session before its end. */
  beforeEnding: (did: Did) => Promise<void> = async () => undefined
  readonly leaving: Departures
  outbox: Outbox
  readonly seams: Seams

  private constructor(parts: { house: House; sql: Sql; seams: Seams }) {
    this.house = parts.house
    this.sql = parts.sql
    this.store = new ServiceStore(parts.sql)
    this.departures = new DepartureStore(parts.sql)
    this.takedowns = new TakedownStore(parts.sql)
    this.storage = new DiskBlobs(parts.house.dataDir)
    this.blobs = new BlobKeeper({
      storage: this.storage,
      takedowns: this.takedowns,
      call: (did, requestId, call) => this.call(did, requestId, call),
      log: createLog('info', (line) => void this.log.push(line)),
    })
    this.seams = parts.seams
    this.pds = new PdsServer()
    this.leaving = new Departures({
      store: this.departures,
      ending: async (did, task) => {
        await this.beforeEnding(did)
        return await task(async () => void this.revoked.push(did))
      },
      log: createLog('info', (line) => void this.log.push(line)),
    })
    this.outbox = this.fresh()
  }

  static async open(dataDir: string): Promise<Delivering> {
    const idle = async () => undefined
    const seams: Seams = { call: (pass) => pass, run: idle, step: idle }
    const house = await House.open('inline', dataDir)
    const options = { synchronous: 'normal', cacheKib: 256, exclusive: true } as const
    const sqlite = openSqlite(join(dataDir, '..', `${crypto.randomUUID()}.sqlite`), options)
    await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
    const sql: Sql = {
      all: (text, ...args) => sqlite.all(text, ...args),
      run: async (batch) => {
        for (const statement of batch) await seams.run(statement.sql)
        await seams.step()
        await sqlite.run(batch)
        await seams.step()
      },
      scrub: () => sqlite.scrub(),
      close: () => sqlite.close(),
    }
    return new Delivering({ house, sql, seams })
  }

  /** The outbox of the next process; the one before it has to be stopped. */
  fresh({ pointsPerHour = 1_000_000 } = {}): Outbox {
    const log = createLog('info', (line) => void this.log.push(line))
    return new Outbox({
      store: this.store,
      departing: { store: this.departures, departures: this.leaving },
      pointsPerHour,
      call: this.call,
      pds: (did) =>
        new Pds({ did, use: async (task) => task(await this.#session(did)), now: Date.now }),
      service: `${serviceDid}#atproto_pns`,
      troubled: (did) => void this.troubled.push(did),
      log,
    })
  }

  /** What the next process of the service finds: memory is gone, files and rows are there. */
  async restart(): Promise<void> {
    await this.outbox.stop()
    await this.house.pool.close()
    this.house = await House.open('inline', this.house.dataDir)
    this.store = new ServiceStore(this.sql)
    this.outbox = this.fresh()
  }

  readonly call: CallActor = async (did, requestId, call) => {
    const pass: CallActor = (...asked) => this.house.pool.call(...asked)
    await this.seams.step()
    const answer = await this.seams.call(pass)(did, requestId, call)
    await this.seams.step()
    return answer
  }

  /** Enrollments of boundaries a, b and c, over this outbox and these stores. */
  enrollments(key: ServiceKey, over: Partial<EnrollmentRules> = {}): Enrollments {
    const { store, departures, outbox, call } = this
    const log = createLog('info', (line) => void this.log.push(line))
    return new Enrollments(
      { ...rules, ...over },
      { store, departures, outbox, call, blobs: this.blobs, key, log },
    )
  }

  /** An enrolled person with an empty repo, of whom nothing is due. */
  async person(pdsEndpoint = this.pds.url): Promise<Person> {
    const actor = await this.house.actor()
    await this.enroll(actor, pdsEndpoint)
    await this.store.clearOutbox(actor.did)
    return new Person(this, actor)
  }

  /** @param pdsEndpoint where the account is said to be; all calls go to the one PDS */
  async enroll({ did, signingKey }: Actor, pdsEndpoint = this.pds.url): Promise<void> {
    const person = {
      did,
      signingKey,
      boundaries: [],
      pdsEndpoint,
      rkey: serviceDid,
      enrolledAt: new Date().toISOString(),
      scope: 'atproto',
    }
    await this.store.enroll(person, '{}')
  }

  /** Until nothing is due for anybody. */
  async quiet(): Promise<void> {
    const look = async () => ((await this.store.outboxDirty()).length === 0 ? true : undefined)
    await eventually('end of all deliveries', look, { withinMs: 4_000, everyMs: 2 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.outbox.stop()
    await this.house.pool.close()
    await this.store.end('swept')
    await this.pds[Symbol.asyncDispose]()
  }

  async #session(did: Did) {
    const lost = this.signedOut.has(did)
    await this.beforeSession(did)
    if (lost) throw new SessionLost(did)
    return {
      fetchHandler: async (path: string, init?: RequestInit) => {
        await this.seams.step()
        const response = await fetch(new URL(path, this.pds.url), init)
        await this.seams.step()
        return response
      },
      getTokenInfo: () => Promise.reject(new Error('nobody asks')),
    }
  }
}

/** Somebody who writes through the service. */
export class Person {
  readonly actor: Actor
  readonly #world: Delivering

  constructor(world: Delivering, actor: Actor) {
    this.#world = world
    this.actor = actor
  }

  get did(): Did {
    return this.actor.did
  }

  /** Writes private posts, as the service's own door does: under a hold. */
  async post(...rkeys: readonly string[]): Promise<void> {
    await this.held(async () => {
      for (const rkey of rkeys) await this.actor.create(rkey, { stubs })
    })
  }

  async remove(...rkeys: readonly string[]): Promise<void> {
    await this.held(async () => {
      for (const rkey of rkeys) await this.actor.remove(rkey, { stubs })
    })
  }

  /** Queues a record for the PDS, at one key or at many, that no write is behind. */
  async queue(keys: string | readonly string[], record: object | null, nsid: Nsid = collection) {
    const text = record === null ? null : JSON.stringify(record)
    const rkeys = typeof keys === 'string' ? [keys] : keys
    const outbox = rkeys.map((rkey) => ({
      collection: nsid,
      rkey: parseRkey(rkey),
      record: text,
    }))
    await this.held(async () => {
      await this.#world.house.pool.call(this.did, 'test', { kind: 'queue', outbox })
    })
  }

  /** What the outbox still has to deliver. */
  async pending(): Promise<string[]> {
    const ask = { kind: 'outbox', limit: 100 } as const
    const { rows } = await this.#world.house.pool.call(this.did, 'test', ask)
    return rows.map(({ rkey }) => rkey)
  }

  async held(task: () => Promise<void>): Promise<void> {
    const release = await this.#world.outbox.hold(this.did)
    try {
      await task()
    } finally {
      release()
    }
  }
}

export const stubs: readonly Nsid[] = [collection]

const rules: EnrollmentRules = {
  serviceDid,
  publicUrl: 'http://localhost:3100',
  boundaries: [a, b, c],
  newBoundaries: [a, c],
  publishBoundaries: true,
}
