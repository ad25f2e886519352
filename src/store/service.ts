import type { Did } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import type { Sql, Statement } from './sql.ts'

/** A person's membership, as access decisions read it. */
export interface Enrollment {
  readonly did: Did
  /** Origin of the PDS that held the account when it enrolled. */
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
  (did, "pdsEndpoint", "signingKey", rkey, "enrolledAt", active, scope, "recordDue")
  values ($1, $2, $3, $4, $5, 1, $6, 0)
  on conflict (did) do update set "pdsEndpoint" = excluded."pdsEndpoint",
    "signingKey" = excluded."signingKey", rkey = excluded.rkey, active = 1, scope = excluded.scope`
const insertBoundary = `insert into enrollment_boundary (did, boundary) values ($1, $2)
  on conflict (did, boundary) do nothing`
const deleteBoundaries = 'delete from enrollment_boundary where did = $1'
const upsertSession = `insert into oauth_session (did, value, "updatedAt") values ($1, $2, $3)
  on conflict (did) do update set value = excluded.value, "updatedAt" = excluded."updatedAt"`
const markDirty = 'insert into outbox_dirty (did) values ($1) on conflict (did) do nothing'
const setRecordDue = 'update enrollment set "recordDue" = $2 where did = $1'

/** service.sqlite: who is enrolled where, OAuth state and sessions, and work that is due. */
export class ServiceStore {
  readonly #sql: Sql
  /** What is known of DIDs. This process alone writes, and each write forgets what it changed. */
  readonly #enrollments = new Lru<Did, { readonly found: Enrollment | undefined }>(knownMax)
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
    const { boundary: _, active, ...facts } = first
    const boundaries = rows.flatMap(({ boundary }) => (boundary === null ? [] : [boundary]))
    return { did, ...facts, active: active === 1, boundaries }
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
        { sql: upsertSession, args: [did, oauthSession, enrolledAt] },
        { sql: markDirty, args: [did] },
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
      ])
    } finally {
      this.#forget(did)
    }
  }

  #forget(did: Did): void {
    this.#writes += 1
    this.#enrollments.delete(did)
  }

  /** People whose PDS record must be queued anew. */
  async recordsDue(): Promise<Did[]> {
    const sql = 'select did from enrollment where "recordDue" = 1'
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

  /** Keeps the state of a sign-in that was started, and forgets those that are too old. */
  async saveOauthState(state: OauthState): Promise<void> {
    const { key, value, address, nowMs } = state
    await this.#sql.run([
      { sql: 'delete from oauth_state where "createdAtMs" < $1', args: [nowMs - oauthStateMaxMs] },
      {
        sql: 'insert into oauth_state (key, value, address, "createdAtMs") values ($1, $2, $3, $4)',
        args: [key, value, address, nowMs],
      },
    ])
  }

  /** Sign-ins that have not come back yet. */
  async oauthStates(
    address: string,
    nowMs: number,
  ): Promise<{ readonly all: number; readonly ofAddress: number }> {
    const sql = `select (select count(*) from oauth_state where "createdAtMs" >= $1) as "all",
      (select count(*) from oauth_state where address = $2 and "createdAtMs" >= $1) as "ofAddress"`
    type Row = { readonly all: number; readonly ofAddress: number }
    const [row] = await this.#sql.all<Row>(sql, nowMs - oauthStateMaxMs, address)
    return row ?? { all: 0, ofAddress: 0 }
  }

  async oauthState(key: string, nowMs: number): Promise<string | undefined> {
    const sql = 'select value from oauth_state where key = $1 and "createdAtMs" >= $2'
    return (await this.#sql.all<{ value: string }>(sql, key, nowMs - oauthStateMaxMs))[0]?.value
  }

  /** Takes a state for good: of two callbacks with the same state only one gets `true`. */
  async takeOauthState(key: string): Promise<boolean> {
    const sql = 'delete from oauth_state where key = $1 returning key'
    return (await this.#sql.all(sql, key)).length === 1
  }

  /** Whether the last process ended in order; from now on it counts as not. */
  async begin(): Promise<boolean> {
    const sql = `select value from meta where name = 'stopped'`
    const clean = (await this.#sql.all<{ value: string }>(sql))[0]?.value !== 'no'
    await this.#mark('no')
    return clean
  }

  /** The last thing that a process in good order says; `unswept` leaves the sweep to the next. */
  async end(state: 'swept' | 'unswept'): Promise<void> {
    if (state === 'swept') await this.#mark('yes')
    await this.#sql.close()
  }

  async #mark(stopped: 'yes' | 'no'): Promise<void> {
    const sql = `insert into meta (name, value) values ('stopped', $1)
      on conflict (name) do update set value = excluded.value`
    await this.#sql.run([{ sql, args: [stopped] }])
  }
}

/** Some 300 bytes each. */
const knownMax = 20_000

type EnrollmentRow = Omit<Enrollment, 'did' | 'active' | 'boundaries'> & {
  readonly active: number
  readonly boundary: string | null
}

export interface OauthState {
  readonly key: string
  readonly value: string
  /** Of whoever began, for limits. */
  readonly address: string
  readonly nowMs: number
}

/** A sign-in must come back within this time. */
export const oauthStateMaxMs = 10 * 60_000

function replaceBoundaries(did: Did, boundaries: readonly string[]): Statement[] {
  return [
    { sql: deleteBoundaries, args: [did] },
    ...boundaries.map((boundary) => ({ sql: insertBoundary, args: [did, boundary] })),
  ]
}
