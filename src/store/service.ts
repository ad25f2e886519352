import type { Did } from '../atproto/syntax.ts'
import { Interned } from '../lib/interned.ts'
import { Lru } from '../lib/lru.ts'
import type { Budget, OutboxPlace } from './actor-outbox.ts'
import { departureStatements, forgetDeparture, type RepoNumbers } from './departure.ts'
import { type Admission, enforcing } from './admission.ts'
import { revokeCredentials } from './revocation.ts'
import type { Sql, Statement } from './sql.ts'

/** A person's membership, as access decisions read it. */
export interface Enrollment {
  readonly did: Did
  /** Origin of the PDS that holds the account, by its DID document. */
  readonly pdsEndpoint: string
  /** did:key of the user's signing key. */
  readonly signingKey: string
  /** Key of the record on the PDS. */
  readonly rkey: string
  readonly enrolledAt: string
  readonly active: boolean
  /** OAuth scope that the person granted. */
  readonly scope: string
  /** Qualified, in order; those that the configuration lacks included. */
  readonly boundaries: readonly string[]
}

const selectEnrollment = `select e."pdsEndpoint", e."signingKey", e.rkey, e."enrolledAt", e.active,
  e.scope, b.boundary from enrollment e left join enrollment_boundary b on b.did = e.did
  where e.did = $1 order by b.boundary`
const upsertEnrollment = `insert into enrollment
  (did, "pdsEndpoint", "signInPds", "signingKey", rkey, "enrolledAt", active, scope, "recordDue")
  values ($1, $2, $2, $3, $4, $5, 1, $6, 0)
  on conflict (did) do update set "pdsEndpoint" = excluded."pdsEndpoint",
    "signInPds" = excluded."signInPds", "signingKey" = excluded."signingKey",
    rkey = excluded.rkey, active = 1, scope = excluded.scope`
const insertBoundary = `insert into enrollment_boundary (did, boundary) values ($1, $2)
  on conflict (did, boundary) do nothing`
const deleteBoundaries = 'delete from enrollment_boundary where did = $1'
const upsertSession = `insert into oauth_session (did, value, "updatedAt") values ($1, $2, $3)
  on conflict (did) do update set value = excluded.value, "updatedAt" = excluded."updatedAt"`
const markDirty = 'insert into outbox_dirty (did) values ($1) on conflict (did) do nothing'
const markParked = 'insert into outbox_parked (did) values ($1) on conflict (did) do nothing'
const moveAccount = 'update enrollment set "pdsEndpoint" = $2 where did = $1'
const selectIdle = `select did, "updatedAt" from oauth_session
  where "updatedAt" < $1 and ("updatedAt", did) > ($2, $3) order by "updatedAt", did limit $4`
const setRecordDue = 'update enrollment set "recordDue" = $2 where did = $1'
const insertEvent = 'insert into service_event (did, action, time) values ($1, $2, $3)'

/** service.sqlite: who is enrolled where, OAuth state and sessions, and work that is due. */
export class ServiceStore {
  readonly #sql: Sql
  /** What is known of DIDs. This process alone writes, and each write forgets what it changed. */
  #enrollments = new Lru<Did, { readonly found: Enrollment | undefined }>(knownMax)
  /** Those of enrollments that many have in common. */
  readonly #texts = new Interned(textsMax)
  /** Counts writes, so that what was read before one is not kept after it. */
  #writes = 0

  constructor(sql: Sql) {
    this.#sql = sql
  }

  async enrollment(did: Did): Promise<Enrollment | undefined> {
    const known = this.#enrollments.get(did)
    if (known !== undefined) return known.found
    const writes = this.#writes
    const found = await this.#readEnrollment(did)
    if (writes === this.#writes) this.#enrollments.set(did, { found })
    return found
  }

  async #readEnrollment(did: Did): Promise<Enrollment | undefined> {
    // One row for each boundary, with the rest repeated; one row when there is none.
    const rows = await this.#sql.all<EnrollmentRow>(selectEnrollment, did)
    const [first] = rows
    if (first === undefined) return undefined
    const { pdsEndpoint, signingKey, rkey, enrolledAt, scope, active } = first
    const texts = this.#texts
    return {
      did,
      pdsEndpoint: texts.one(pdsEndpoint),
      signingKey,
      rkey: texts.one(rkey),
      enrolledAt,
      scope: texts.one(scope),
      active: active === 1,
      boundaries: rows.flatMap(({ boundary }) => (boundary === null ? [] : [texts.one(boundary)])),
    }
  }

  /** Everybody who ever enrolled and has not left, in the order of DIDs after `after`. */
  async enrolledDids(after: string, limit: number): Promise<Did[]> {
    const sql = 'select did from enrollment where did > $1 order by did limit $2'
    return (await this.#sql.all<{ did: Did }>(sql, after, limit)).map(({ did }) => did)
  }

  /**
   * The last step of an enrollment: with this the person is enrolled, their OAuth session is kept
   * and the outbox is known to have work. Someone who is enrolled keeps boundaries and date.
   */
  async enroll(enrollment: Omit<Enrollment, 'active'>, oauthSession: string): Promise<void> {
    const { did, pdsEndpoint, signingKey, rkey, enrolledAt, scope, boundaries } = enrollment
    try {
      await this.#sql.run([
        { sql: upsertEnrollment, args: [did, pdsEndpoint, signingKey, rkey, enrolledAt, scope] },
        ...replaceBoundaries(did, boundaries),
        { sql: upsertSession, args: [did, oauthSession, new Date().toISOString()] },
        { sql: markDirty, args: [did] },
        // What a departure had left to do was queued in the new outbox.
        ...forgetDeparture(did),
        enrolledEvent(did),
      ])
    } finally {
      // Also when it failed: who knows what of it was stored.
      this.#forget(did)
    }
  }

  /** Replaces the set; the PDS record is due from the same instant. */
  async setBoundaries(did: Did, boundaries: readonly string[]): Promise<void> {
    try {
      await this.#sql.run([
        { sql: setRecordDue, args: [did, 1], rows: 1 },
        ...replaceBoundaries(did, boundaries),
        enrolledEvent(did),
      ])
    } finally {
      this.#forget(did)
    }
  }

  /** Notes where somebody's account lives now; where it did before, if that is a change. */
  async movedTo(did: Did, pdsEndpoint: string): Promise<string | undefined> {
    const before = (await this.enrollment(did))?.pdsEndpoint
    if (before === undefined || before === pdsEndpoint) return undefined
    try {
      await this.#sql.run([{ sql: moveAccount, args: [did, pdsEndpoint] }])
    } finally {
      this.#forget(did)
    }
    return before
  }

  /**
   * With this the person is out, and the job that sees to the rest is there. The OAuth session
   * stays for that job.
   * @throws RowsMismatch for somebody who is not enrolled
   */
  async leave(departure: {
    readonly did: Did
    readonly numbers: RepoNumbers
    readonly keys: readonly OutboxPlace[]
    readonly budget: Budget | undefined
    readonly nowMs: number
  }): Promise<void> {
    const { did } = departure
    try {
      await this.#sql.run([
        { sql: 'delete from enrollment where did = $1', args: [did], rows: 1 },
        { sql: deleteBoundaries, args: [did] },
        ...revokeCredentials(did),
        { sql: insertEvent, args: [did, 'unenroll', new Date().toISOString()] },
        ...departureStatements(departure),
        { sql: markDirty, args: [did] },
      ])
    } finally {
      this.#forget(did)
    }
  }

  /** Those of `dids` that are enrolled. */
  async enrolledAmong(dids: readonly Did[]): Promise<ReadonlySet<Did>> {
    const found = new Set<Did>()
    for (let start = 0; start < dids.length; start += lookUpMax) {
      const some = dids.slice(start, start + lookUpMax)
      const places = some.map((_, index) => `$${index + 1}`).join(', ')
      const sql = `select did from enrollment where did in (${places})`
      for (const { did } of await this.#sql.all<{ did: Did }>(sql, ...some)) found.add(did)
    }
    return found
  }

  async countEnrolled(): Promise<number> {
    const rows = await this.#sql.all<{ count: number }>('select count(*) as count from enrollment')
    return rows[0]?.count ?? 0
  }

  /** Boundaries that people have, and how many have each. */
  async boundaryCounts(): Promise<{ readonly boundary: string; readonly members: number }[]> {
    return await this.#sql.all(`select boundary, count(*) as members from enrollment_boundary
      group by boundary order by boundary`)
  }

  /** Grows with every change of what this store says of people. */
  get writes(): number {
    return this.#writes
  }

  /** Changes of membership after `after`, oldest first. */
  async events(after: number, limit: number): Promise<ServiceEvent[]> {
    const sql = `select seq, did, action, time from service_event where seq > $1
      order by seq limit $2`
    return await this.#sql.all<ServiceEvent>(sql, after, limit)
  }

  /**
   * Makes the PDS records due that another configuration changes, and remembers that configuration
   * in the same step.
   * @param changed boundaries that came or went, or `all` when every record changes
   */
  async recordsChange(changed: readonly string[] | 'all', remember: Remembered): Promise<void> {
    const time = new Date().toISOString()
    const { condition, args } = holdersOf(changed)
    await this.#sql.run([
      { sql: `update enrollment set "recordDue" = 1 where ${condition}`, args },
      ...(changed === 'all' ? [] : [changeEvents(condition, [...args, time])]),
      { sql: upsertMeta, args: [remember.name, remember.value] },
    ])
  }

  /** What an earlier process of this service wrote down under a name. */
  async remembered(name: string): Promise<string | undefined> {
    const sql = 'select value from meta where name = $1'
    return (await this.#sql.all<{ value: string }>(sql, name))[0]?.value
  }

  async remember({ name, value }: Remembered): Promise<void> {
    await this.#sql.run([{ sql: upsertMeta, args: [name, value] }])
  }

  /**
   * Makes everybody's enrollment, or that of one person, active or inactive as `admission` says.
   * @returns how many became the one and the other
   */
  async enforce(admission: Admission, did?: Did): Promise<Record<'active' | 'inactive', number>> {
    const last = 'select coalesce(max(seq), 0) as seq from service_event'
    const [before] = await this.#sql.all<{ seq: number }>(last)
    try {
      await this.#sql.run(enforcing(admission, { time: new Date().toISOString(), did }))
    } finally {
      if (did === undefined) this.#forgetAll()
      else this.#forget(did)
    }
    const counts = `select action, count(*) as people from service_event where seq > $1
      group by action`
    type Row = { readonly action: string; readonly people: number }
    const rows = await this.#sql.all<Row>(counts, before?.seq ?? 0)
    const people = (action: string) => rows.find((row) => row.action === action)?.people ?? 0
    return { active: people('enroll'), inactive: people('unenroll') }
  }

  #forget(did: Did): void {
    this.#writes += 1
    this.#enrollments.delete(did)
  }

  #forgetAll(): void {
    this.#writes += 1
    this.#enrollments = new Lru(knownMax)
  }

  /** People whose PDS record must be queued anew; that of the inactive waits until they are not. */
  async recordsDue(): Promise<Did[]> {
    const sql = 'select did from enrollment where "recordDue" = 1 and active = 1'
    return (await this.#sql.all<{ did: Did }>(sql)).map(({ did }) => did)
  }

  async recordQueued(did: Did): Promise<void> {
    await this.#sql.run([{ sql: setRecordDue, args: [did, 0] }])
  }

  async outboxDirty(): Promise<Did[]> {
    return (await this.#sql.all<{ did: Did }>('select did from outbox_dirty')).map(({ did }) => did)
  }

  async markOutbox(did: Did): Promise<void> {
    await this.#sql.run([{ sql: markDirty, args: [did] }])
  }

  async clearOutbox(did: Did): Promise<void> {
    await this.#sql.run([{ sql: 'delete from outbox_dirty where did = $1', args: [did] }])
  }

  async isParked(did: Did): Promise<boolean> {
    const sql = 'select did from outbox_parked where did = $1'
    return (await this.#sql.all(sql, did)).length > 0
  }

  /** To be said before a row of the actor's outbox is given up, so that the operator finds it. */
  async markParked(did: Did): Promise<void> {
    await this.#sql.run([{ sql: markParked, args: [did] }])
  }

  /** To be said when the actor's outbox was seen without such rows and nothing delivers it. */
  async clearParked(did: Did): Promise<void> {
    await this.#sql.run([{ sql: 'delete from outbox_parked where did = $1', args: [did] }])
  }

  async oauthSession(did: string): Promise<string | undefined> {
    const sql = 'select value from oauth_session where did = $1'
    return (await this.#sql.all<{ value: string }>(sql, did))[0]?.value
  }

  async saveOauthSession(did: string, value: string): Promise<void> {
    await this.#sql.run([{ sql: upsertSession, args: [did, value, new Date().toISOString()] }])
  }

  async dropOauthSession(did: string): Promise<void> {
    await this.#sql.run([{ sql: 'delete from oauth_session where did = $1', args: [did] }])
  }

  /** Sessions that were last stored before a time, oldest first, from `after` on. */
  async idleSessions(asked: {
    readonly before: string
    readonly after: IdleSession | undefined
    readonly limit: number
  }): Promise<IdleSession[]> {
    const { before, after, limit } = asked
    return await this.#sql.all(selectIdle, before, after?.updatedAt ?? '', after?.did ?? '', limit)
  }

  /** Whether the last process ended in order; from now on it counts as not. */
  async begin(): Promise<boolean> {
    const clean = (await this.remembered('stopped')) !== 'no'
    await this.#mark('no')
    return clean
  }

  /** The last thing that a process in good order says; `unswept` leaves the sweep to the next. */
  async end(state: 'swept' | 'unswept'): Promise<void> {
    if (state === 'swept') await this.#mark('yes')
    await this.#sql.close()
  }

  async #mark(stopped: 'yes' | 'no'): Promise<void> {
    await this.remember({ name: 'stopped', value: stopped })
  }
}

/** Some 500 bytes each. */
const knownMax = 20_000
const textsMax = 10_000
const lookUpMax = 500

/** A change of membership; `enroll` stands for every change of boundaries, too. */
export interface ServiceEvent {
  readonly seq: number
  readonly did: Did
  readonly action: 'enroll' | 'unenroll'
  readonly time: string
}

interface Remembered {
  readonly name: string
  readonly value: string
}

const upsertMeta = `insert into meta (name, value) values ($1, $2)
  on conflict (name) do update set value = excluded.value`

/** Of nobody who is inactive: they are not there for others. */
function enrolledEvent(did: Did): Statement {
  return changeEvents('did = $1', [did, new Date().toISOString()])
}

/** A condition over `enrollment` for whoever is in one of these boundaries. */
function holdersOf(boundaries: readonly string[] | 'all') {
  if (boundaries === 'all') return { condition: '1 = 1', args: [] }
  const places = boundaries.map((_, index) => `$${index + 1}`).join(', ')
  const sql = `select b.did from enrollment_boundary b where b.boundary in (${places})`
  return { condition: `did in (${sql})`, args: boundaries }
}

function changeEvents(condition: string, args: readonly string[]): Statement {
  const sql = `insert into service_event (did, action, time)
    select did, 'enroll', $${args.length} from enrollment where active = 1 and ${condition}`
  return { sql, args }
}

type EnrollmentRow = Omit<Enrollment, 'did' | 'active' | 'boundaries'> & {
  readonly active: number
  readonly boundary: string | null
}

export interface IdleSession {
  readonly did: Did
  readonly updatedAt: string
}

function replaceBoundaries(did: Did, boundaries: readonly string[]): Statement[] {
  return [
    { sql: deleteBoundaries, args: [did] },
    ...boundaries.map((boundary) => ({ sql: insertBoundary, args: [did, boundary] })),
  ]
}
