import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Tid } from '../atproto/syntax.ts'
import { type EventOp, type Head, insertEvent } from './actor-change.ts'
import { parametersFor } from './parameters.ts'
import type { Sql, Statement } from './sql.ts'

/** What one row of the log tells: a commit, or that something was taken down or is back. */
export type LogEvent =
  | { readonly ops: readonly EventOp[] }
  | {
      readonly status: { readonly path?: string; readonly takendown: boolean }
      /** Of the record, where it is one that is there. */
      readonly boundaries: readonly string[]
    }

export interface LoggedEvent {
  readonly seq: number
  /** ISO 8601, UTC. */
  readonly time: string
  readonly rev: Tid
  readonly event: LogEvent
}

/** By path. */
export type Contents = ReadonlyMap<string, { readonly cid: Cid; readonly content: Uint8Array }>

interface EventRow {
  readonly seq: number
  readonly time: string
  readonly rev: Tid
  readonly event: string
}

const selectEvents =
  'select seq, time, rev, event from stratos_seq where seq > $1 order by seq limit $2'
const moveSeq = 'update stratos_repo_root set seq = $4 where did = $1 and rev = $2 and seq = $3'
// Up to the first that is to stay: under a clock that was put right times are in no order.
const selectOld = `select seq from stratos_seq where seq < coalesce(
    (select seq from stratos_seq where time >= $1 order by seq limit 1),
    (select max(seq) from stratos_seq))
  order by seq limit $2`
const selectPruned = 'select seq from stratos_pruned'
const upsertPruned = `insert into stratos_pruned (id, seq) values (1, $1)
  on conflict (id) do update set seq = max(seq, excluded.seq)`

/** The log of one actor, from which streams are read. */
export class ActorEvents {
  readonly #sql: Sql
  readonly #did: Did

  constructor(sql: Sql, did: Did) {
    this.#sql = sql
    this.#did = did
  }

  /** Those after `seq`, oldest first. */
  async after(seq: number, limit: number): Promise<LoggedEvent[]> {
    const rows = await this.#sql.all<EventRow>(selectEvents, seq, limit)
    return rows.map(({ seq, time, rev, event: text }) => {
      const event: LogEvent = JSON.parse(text)
      return { seq, time, rev, event }
    })
  }

  /** Of the newest event up to `rev`; 0 where all that is kept is newer. */
  async seqOf(rev: Tid): Promise<number> {
    const sql = 'select seq from stratos_seq where rev <= $1 order by seq desc limit 1'
    return (await this.#sql.all<{ seq: number }>(sql, rev))[0]?.seq ?? 0
  }

  /** CID and content of the records that are there now, of these paths, each named any times. */
  async contents(paths: readonly string[]): Promise<Contents> {
    if (paths.length === 0) return new Map()
    const prefix = `at://${this.#did}/`
    const { places, args } = parametersFor(
      paths.map((path) => prefix + path),
      1,
    )
    const sql = `select r.uri, r.cid, b.content from stratos_record r
      join stratos_repo_block b on b.id = r."blockId" where r.uri in (${places.join(', ')})`
    const rows = await this.#sql.all<{ uri: AtUri; cid: Cid; content: Uint8Array }>(sql, ...args)
    return new Map(
      rows.map(({ uri, cid, content }) => [uri.slice(prefix.length), { cid, content }]),
    )
  }

  /** Writes an event that is no commit. @throws RowsMismatch where the head is not `before` */
  async add(
    event: LogEvent,
    at: { readonly before: Head; readonly seq: number; readonly time: string },
  ): Promise<void> {
    const { before, seq, time } = at
    const { rev } = before
    await this.#sql.run([
      { sql: moveSeq, args: [this.#did, rev, before.seq, seq], rows: 1 },
      { sql: insertEvent, args: [seq, this.#did, time, rev, JSON.stringify(event)], rows: 1 },
    ])
  }

  /** The last seq that is no longer kept; 0 while all are. */
  async pruned(): Promise<number> {
    return (await this.#sql.all<{ seq: number }>(selectPruned))[0]?.seq ?? 0
  }

  /**
   * Forgets events of before `time`, `limit` at most, and tells how many they were. The newest
   * stays: what came before it is told by nothing else.
   */
  async prune(time: string, limit: number): Promise<number> {
    const rows = await this.#sql.all<{ seq: number }>(selectOld, time, limit)
    const last = rows.at(-1)
    if (last === undefined) return 0
    await this.#sql.run([
      prunedStatement(last.seq),
      { sql: 'delete from stratos_seq where seq <= $1', args: [last.seq], rows: rows.length },
    ])
    return rows.length
  }
}

/** Nothing up to `seq` is in the log any more. */
export function prunedStatement(seq: number): Statement {
  return { sql: upsertPruned, args: [seq] }
}
