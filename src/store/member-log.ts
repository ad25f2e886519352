import type { ServiceEvent } from './service.ts'
import type { Sql } from './sql.ts'

/**
 * Changes of membership in their order, for whoever follows and must miss nobody's leaving: of those
 * of whom nothing else is kept, the last change is that they left.
 */
export class MemberLog {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Where it ends; 0 where there was no change yet. */
  async last(): Promise<number> {
    const sql = `select max(coalesce((select max(seq) from service_event), 0),
      coalesce((select max("eventSeq") from departed), 0)) as seq`
    return (await this.#sql.all<{ seq: number }>(sql))[0]?.seq ?? 0
  }

  /** Those after `seq`, oldest first. */
  async after(seq: number, limit: number): Promise<ServiceEvent[]> {
    return await this.#sql.all<ServiceEvent>(selectChanges, seq, limit)
  }
}

const selectChanges = `select seq, did, action, time from service_event where seq > $1
  union all select d."eventSeq", d.did, 'unenroll', d."departedAt" from departed d
    where d."eventSeq" > $1
    and not exists (select 1 from service_event e where e.seq = d."eventSeq")
  order by 1 limit $2`
