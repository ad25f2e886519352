import type { Did, Tid } from '../atproto/syntax.ts'
import {
  type Budget,
  type OutboxCounts,
  type OutboxKey,
  type OutboxPlace,
  type OutboxRow,
  type OutboxState,
  outboxState,
  type ParkedRow,
} from './actor-outbox.ts'
import type { Sql, Statement } from './sql.ts'

/** The numbers that a repo had when its owner left, and that a return continues. */
export interface RepoNumbers {
  readonly seq: number
  readonly rev: Tid
}

/** Somebody left, and something of theirs is still here or on their PDS. */
export interface Departure {
  readonly sinceMs: number
  /** Whether data and key are gone. */
  readonly erased: boolean
}

const selectDeparted = 'select seq, rev from departed where did = $1'
const selectDeparture = 'select "sinceMs", erased from departure where did = $1'
const selectRows = `select collection, rkey, position, null as record, "pdsCid", attempts,
  "nextAttemptAtMs" from departure_key where did = $1 and parked is null order by position limit $2`
const selectKeys = `select collection, rkey, "pdsCid" from departure_key where did = $1
  order by position`
const countKeys = `select count(*) - count(parked) as pending, count(parked) as "parkedCount"
  from departure_key where did = $1`
const selectParked = `select collection, rkey, parked as reason from departure_key
  where did = $1 and parked is not null order by collection, rkey limit $2`
const selectBudget = 'select points, "pointsAtMs" from departure where did = $1'
const setBudget = 'update departure set points = $2, "pointsAtMs" = $3 where did = $1'
const upsertDeparted = `insert into departed
  (did, seq, rev, "departedAt", "eventSeq", "leftBehind")
  values ($1, $2, $3, $4, (select max(seq) from service_event), null)
  on conflict (did) do update set seq = excluded.seq, rev = excluded.rev,
    "departedAt" = excluded."departedAt", "eventSeq" = excluded."eventSeq", "leftBehind" = null`
const insertDeparture = `insert into departure (did, "sinceMs", erased, points, "pointsAtMs")
  values ($1, $2, 0, $3, $4)`
const insertKey = `insert into departure_key
  (did, collection, rkey, position, "pdsCid", attempts, "nextAttemptAtMs", parked)
  values ($1, $2, $3, $4, $5, 0, 0, null)`
const hasLeft = `did = $1 and exists (select 1 from departure d where d.did = $1 and d.erased = 1)`

/** What leaving adds to a transaction, after the event that tells of it. */
export function departureStatements(departure: {
  readonly did: Did
  readonly numbers: RepoNumbers
  readonly keys: readonly OutboxPlace[]
  readonly budget: Budget | undefined
  readonly nowMs: number
}): Statement[] {
  const { did, numbers, keys, budget, nowMs } = departure
  const departedAt = new Date(nowMs).toISOString()
  return [
    { sql: upsertDeparted, args: [did, numbers.seq, numbers.rev, departedAt] },
    { sql: insertDeparture, args: [did, nowMs, budget?.points ?? null, budget?.atMs ?? null] },
    ...keys.map(({ collection, rkey, pdsCid }, index) => ({
      sql: insertKey,
      args: [did, collection, rkey, index + 1, pdsCid],
    })),
  ]
}

export function forgetDeparture(did: Did): Statement[] {
  return [
    { sql: 'delete from departure_key where did = $1', args: [did] },
    { sql: 'delete from departure where did = $1', args: [did] },
  ]
}

/** Who left, and the jobs that see to it that nothing of theirs is left. */
export class DepartureStore {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Of whoever was here once and left, also when they came back. */
  async departed(did: Did): Promise<RepoNumbers | undefined> {
    return (await this.#sql.all<RepoNumbers>(selectDeparted, did))[0]
  }

  async departure(did: Did): Promise<Departure | undefined> {
    type Row = { readonly sinceMs: number; readonly erased: number }
    const [row] = await this.#sql.all<Row>(selectDeparture, did)
    return row === undefined ? undefined : { sinceMs: row.sinceMs, erased: row.erased === 1 }
  }

  /** Those whose data and key are still here. */
  async unerased(): Promise<Did[]> {
    return await this.#dids('select did from departure where erased = 0')
  }

  /** Those that began before a time and have nothing here any more, oldest first. */
  async erasedBefore(ms: number, limit: number): Promise<Did[]> {
    const sql = `select did from departure where "sinceMs" < $1 and erased = 1
      order by "sinceMs" limit $2`
    return await this.#dids(sql, ms, limit)
  }

  async markErased(did: Did): Promise<void> {
    await this.#sql.run([{ sql: 'update departure set erased = 1 where did = $1', args: [did] }])
  }

  /** All keys that are not known to be clean, parked ones included. */
  async keys(did: Did): Promise<OutboxPlace[]> {
    return await this.#sql.all<OutboxPlace>(selectKeys, did)
  }

  /** The oldest rows that are not parked; each wants nothing at its key. */
  async rows(did: Did, limit: number): Promise<OutboxRow[]> {
    return await this.#sql.all<OutboxRow>(selectRows, did, limit)
  }

  /** What is left to be deleted on the PDS; undefined where nobody is leaving. */
  async outboxState(did: Did, parkedMax: number): Promise<OutboxState | undefined> {
    if ((await this.departure(did)) === undefined) return undefined
    const [counts] = await this.#sql.all<OutboxCounts>(countKeys, did)
    const parked = await this.#sql.all<ParkedRow>(selectParked, did, parkedMax)
    return outboxState({ counts, oldest: (await this.rows(did, 1))[0], parked })
  }

  async budget(did: Did): Promise<Budget | undefined> {
    type Row = { readonly points: number | null; readonly pointsAtMs: number | null }
    const [row] = await this.#sql.all<Row>(selectBudget, did)
    if (row === undefined || row.points === null || row.pointsAtMs === null) return undefined
    return { points: row.points, atMs: row.pointsAtMs }
  }

  async settle({ did, row, budget }: Entry): Promise<void> {
    const sql = 'delete from departure_key where did = $1 and collection = $2 and rkey = $3'
    await this.#sql.run([{ sql, args: [did, row.collection, row.rkey] }, spent(did, budget)])
  }

  async postpone({ did, row, budget }: Entry, nextAttemptAtMs: number): Promise<void> {
    const sql = `update departure_key set attempts = attempts + 1, "nextAttemptAtMs" = $4
      where did = $1 and collection = $2 and rkey = $3`
    const args = [did, row.collection, row.rkey, nextAttemptAtMs]
    await this.#sql.run([{ sql, args }, spent(did, budget)])
  }

  async park({ did, row, budget }: Entry, reason: string): Promise<void> {
    const sql = `update departure_key set parked = $4
      where did = $1 and collection = $2 and rkey = $3`
    const args = [did, row.collection, row.rkey, reason]
    await this.#sql.run([{ sql, args }, spent(did, budget)])
  }

  /**
   * The end of a job: only the row in `departed` stays. Changes nothing once the person came back.
   * @param leftBehind what could not be deleted on the PDS
   */
  async finish(did: Did, leftBehind: readonly string[]): Promise<void> {
    const left = leftBehind.length === 0 ? null : JSON.stringify(leftBehind)
    await this.#sql.run([
      { sql: `delete from oauth_session where ${hasLeft}`, args: [did] },
      { sql: `delete from service_event where ${hasLeft}`, args: [did] },
      { sql: `update departed set "leftBehind" = $2 where ${hasLeft}`, args: [did, left] },
      { sql: `delete from departure_key where ${hasLeft}`, args: [did] },
      // Last: it is what the others go by.
      { sql: 'delete from departure where did = $1 and erased = 1', args: [did] },
    ])
    await this.#sql.scrub()
  }

  async #dids(sql: string, ...args: readonly number[]): Promise<Did[]> {
    return (await this.#sql.all<{ did: Did }>(sql, ...args)).map(({ did }) => did)
  }
}

interface Entry {
  readonly did: Did
  readonly row: OutboxKey
  readonly budget: Budget
}

function spent(did: Did, budget: Budget): Statement {
  return { sql: setBudget, args: [did, budget.points, budget.atMs] }
}
