import type { Nsid, Rkey } from '../atproto/syntax.ts'
import type { Cid } from '../atproto/cid.ts'
import { assert } from '../lib/assert.ts'
import { pairsFor } from './parameters.ts'
import type { Sql, Statement } from './sql.ts'

/** What has to be on the PDS at one key: a record, or nothing. */
export interface OutboxEntry {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly record: string | null
  /** CID of what is known to stand there, for a key that this outbox has never held. */
  readonly pdsCid?: string | null
  /** Nothing is queued where this outbox knows of nothing at that key. */
  readonly onlyKnown?: true
}

export interface OutboxRow {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly position: number
  readonly record: string | null
  readonly pdsCid: string | null
  readonly attempts: number
  readonly nextAttemptAtMs: number
}

export type OutboxKey = Pick<OutboxRow, 'collection' | 'rkey' | 'position'>

/** Points of a person's write budget on the PDS that are ours to use, as of `atMs`. */
export interface Budget {
  readonly points: number
  readonly atMs: number
}

/** A place in the public repo and the CID of what we last put there, as far as we know. */
export interface OutboxPlace {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly pdsCid: string | null
}

/** What is in an outbox, for the operator. */
export interface OutboxState {
  readonly pending: number
  /** When the oldest pending row is due; absent unless a try of it has failed. */
  readonly nextAttemptAtMs?: number
  readonly parkedCount: number
  /** The first ones. */
  readonly parked: readonly ParkedRow[]
}

export interface ParkedRow {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly reason: string
}

interface UnannouncedRow {
  readonly uri: string
  readonly cid: Cid
  readonly rkey: Rkey
  readonly indexedAt: string
  readonly content: Uint8Array
}

const nextPosition = `(select coalesce(max(position), 0) + 1 from stratos_outbox
  where pending = 1)`
const queueEntry = `insert into stratos_outbox
  (collection, rkey, position, record, "pdsCid", pending, attempts, "nextAttemptAtMs", parked)
  values ($1, $2, ${nextPosition}, $3, $4, 1, 0, 0, null)
  on conflict (collection, rkey) do update set position = excluded.position,
    record = excluded.record, pending = 1, attempts = 0, "nextAttemptAtMs" = 0, parked = null`
const queueKnown = `update stratos_outbox set position = ${nextPosition},
  record = $3, pending = 1, attempts = 0, "nextAttemptAtMs" = 0, parked = null
  where collection = $1 and rkey = $2`
const settlePut = `update stratos_outbox
  set "pdsCid" = $4, record = null, pending = 0, attempts = 0
  where collection = $1 and rkey = $2 and position = $3 and pending = 1`
const settleDelete = `delete from stratos_outbox
  where collection = $1 and rkey = $2 and position = $3 and pending = 1`
const rememberPut = `update stratos_outbox set "pdsCid" = $4
  where collection = $1 and rkey = $2 and position <> $3`
const postpone = `update stratos_outbox
  set attempts = attempts + 1, "nextAttemptAtMs" = $4
  where collection = $1 and rkey = $2 and position = $3 and pending = 1`
const park = `update stratos_outbox set parked = $4, pending = 0
  where collection = $1 and rkey = $2 and position = $3 and pending = 1`
const unpark = `update stratos_outbox
  set parked = null, pending = 1, attempts = 0, "nextAttemptAtMs" = 0 where parked is not null`
const nextRows = `select collection, rkey, position, record, "pdsCid", attempts,
  "nextAttemptAtMs" from stratos_outbox where pending = 1 order by position limit $1`
const countRows = `select (select count(*) from stratos_outbox where pending = 1) as pending,
  (select count(*) from stratos_outbox where parked is not null) as "parkedCount"`
const selectParked = `select collection, rkey, parked as reason from stratos_outbox
  where parked is not null order by collection, rkey limit $1`
const selectPlaces = `select collection, rkey, "pdsCid" from stratos_outbox
  order by collection, rkey`
const selectBudget = 'select points, "pointsAtMs" from stratos_outbox_budget'
const setBudget = `insert into stratos_outbox_budget (id, points, "pointsAtMs") values (1, $1, $2)
  on conflict (id) do update set points = excluded.points, "pointsAtMs" = excluded."pointsAtMs"`
/** Keys where something of ours is, or may come to be. */
const selectStanding = `select collection, rkey from stratos_outbox
  where collection <> $1 and (collection, rkey) > ($2, $3)
    and ((pending = 1 and record is not null)
      or (pending = 0 and ("pdsCid" is not null or parked is not null)))
  order by collection, rkey limit $4`
/** Records at whose key nothing stands and nothing is about to. */
const selectUnannounced = `select r.uri, r.cid, r.rkey, r."indexedAt", b.content from stratos_record r
  join stratos_repo_block b on b.id = r."blockId"
  left join stratos_outbox o on o.collection = r.collection and o.rkey = r.rkey
  where r.uri > $1 and r.uri < $2 and (o.rkey is null or (o.pending = 1 and o.record is null)
    or (o.parked is not null and o.record is null))
  order by r.uri limit $3`

/** Keys at which a stub stands and nothing else is wanted, or one is wanted and not given up. */
const countStubbed = (keys: string): string => `select count(*) as stubbed from stratos_outbox
  where (collection, rkey) in (values ${keys}) and ((pending = 1 and record is not null)
    or (pending = 0 and "pdsCid" is not null and parked is null))`

/** Queues an entry; part of the transaction of its cause. */
export function queueStatement(entry: OutboxEntry): Statement {
  const { collection, rkey, record, pdsCid = null, onlyKnown = false } = entry
  if (onlyKnown) return { sql: queueKnown, args: [collection, rkey, record] }
  return { sql: queueEntry, args: [collection, rkey, record, pdsCid], rows: 1 }
}

/** What one actor's PDS still has to be told, and what was told before. */
export class ActorOutbox {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  async queue(entries: readonly OutboxEntry[]): Promise<void> {
    await this.#sql.run(entries.map(queueStatement))
  }

  /** The oldest undelivered rows, in the order in which they must be delivered. */
  async rows(limit: number): Promise<OutboxRow[]> {
    return await this.#sql.all<OutboxRow>(nextRows, limit)
  }

  /** How much there is, and which rows were given up, `parkedMax` of them at most. */
  async state(parkedMax: number): Promise<OutboxState> {
    const [counts] = await this.#sql.all<OutboxCounts>(countRows)
    const parked = await this.#sql.all<ParkedRow>(selectParked, parkedMax)
    return outboxState({ counts, oldest: (await this.rows(1))[0], parked })
  }

  /** Undefined while nothing was ever used. */
  async budget(): Promise<Budget | undefined> {
    type Row = { readonly points: number; readonly pointsAtMs: number }
    const [row] = await this.#sql.all<Row>(selectBudget)
    return row === undefined ? undefined : { points: row.points, atMs: row.pointsAtMs }
  }

  async setBudget(budget: Budget): Promise<void> {
    await this.#sql.run(spent(budget))
  }

  /**
   * Says that a row was delivered: `pdsCid` is what now stands on the PDS, null when nothing does.
   * A row that was queued anew meanwhile stays pending and only learns what stands there.
   */
  async settle(row: OutboxKey, pdsCid: string | null, budget?: Budget): Promise<void> {
    const key = keyOf(row)
    const done: Statement =
      pdsCid === null
        ? { sql: settleDelete, args: key }
        : { sql: settlePut, args: [...key, pdsCid] }
    const remembered = { sql: rememberPut, args: [...key, pdsCid] }
    await this.#sql.run([done, remembered, ...spent(budget)])
  }

  async postpone(row: OutboxKey, nextAttemptAtMs: number, budget?: Budget): Promise<void> {
    const args = [...keyOf(row), nextAttemptAtMs]
    await this.#sql.run([{ sql: postpone, args }, ...spent(budget)])
  }

  async park(row: OutboxKey, reason: string, budget?: Budget): Promise<void> {
    await this.#sql.run([{ sql: park, args: [...keyOf(row), reason] }, ...spent(budget)])
  }

  /** Gives rows that were given up another try. */
  async unpark(): Promise<void> {
    await this.#sql.run([{ sql: unpark, args: [] }])
  }

  /** Every key on the PDS at which something of ours stands or may stand. */
  async places(): Promise<OutboxPlace[]> {
    return await this.#sql.all<OutboxPlace>(selectPlaces)
  }

  /** Whether each of these keys, none of them twice, is public by a stub or is about to be. */
  async areStubbed(
    keys: readonly { readonly collection: string; readonly rkey: string }[],
  ): Promise<boolean> {
    if (keys.length === 0) return true
    const pairs = keys.map(({ collection, rkey }) => [collection, rkey] as const)
    const { places, args } = pairsFor(pairs, 1)
    const sql = countStubbed(places.join(', '))
    const [row] = await this.#sql.all<{ stubbed: number }>(sql, ...args)
    return row?.stubbed === keys.length
  }

  /** Keys after `after`, but those in `except`, to be cleared when stubs are no longer wanted. */
  async standing(
    after: { readonly collection: string; readonly rkey: string },
    except: Nsid,
    limit: number,
  ): Promise<{ collection: Nsid; rkey: Rkey }[]> {
    return await this.#sql.all(selectStanding, except, after.collection, after.rkey, limit)
  }

  /** Records after the URI `after`, below `end`, that have no stub and will get none. */
  async unannounced(range: {
    readonly after: string
    readonly end: string
    readonly limit: number
  }): Promise<UnannouncedRow[]> {
    return await this.#sql.all(selectUnannounced, range.after, range.end, range.limit)
  }
}

export type OutboxCounts = Pick<OutboxState, 'pending' | 'parkedCount'>

export function outboxState(found: {
  readonly counts: OutboxCounts | undefined
  readonly oldest: OutboxRow | undefined
  readonly parked: readonly ParkedRow[]
}): OutboxState {
  const { counts, oldest, parked } = found
  assert(counts !== undefined, 'a query of two numbers has one row')
  const failed = oldest !== undefined && oldest.attempts > 0
  return { ...counts, ...(failed ? { nextAttemptAtMs: oldest.nextAttemptAtMs } : {}), parked }
}

function keyOf(row: OutboxKey): (string | number)[] {
  return [row.collection, row.rkey, row.position]
}

function spent(budget: Budget | undefined): Statement[] {
  return budget === undefined ? [] : [{ sql: setBudget, args: [budget.points, budget.atMs] }]
}
