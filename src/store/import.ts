import type { Did } from '../atproto/syntax.ts'
import type { Sql } from './sql.ts'

/** When people last imported a repo. */
export class ImportStore {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  async lastAtMs(did: Did): Promise<number | undefined> {
    const sql = 'select "importedAtMs" from import where did = $1'
    return (await this.#sql.all<{ importedAtMs: number }>(sql, did))[0]?.importedAtMs
  }

  /** Forgets what is older than `sinceMs`, which nobody asks for any more. */
  async imported(
    did: Did,
    { nowMs, sinceMs }: { readonly nowMs: number; readonly sinceMs: number },
  ): Promise<void> {
    const insert = `insert into import (did, "importedAtMs") values ($1, $2)
      on conflict (did) do update set "importedAtMs" = excluded."importedAtMs"`
    await this.#sql.run([
      { sql: 'delete from import where "importedAtMs" < $1', args: [sinceMs] },
      { sql: insert, args: [did, nowMs], rows: 1 },
    ])
  }
}
