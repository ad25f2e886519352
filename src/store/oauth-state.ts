import type { Sql } from './sql.ts'

export interface OauthState {
  readonly key: string
  readonly value: string
  /** Of whoever began, for limits. */
  readonly address: string
  readonly nowMs: number
}

/** A sign-in must come back within this time. */
export const oauthStateMaxMs = 10 * 60_000

/** Sign-ins that were started and have not come back. */
export class OauthStates {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Keeps the state of a sign-in that was started, and forgets those that are too old. */
  async save(state: OauthState): Promise<void> {
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
  async count(
    address: string,
    nowMs: number,
  ): Promise<{ readonly all: number; readonly ofAddress: number }> {
    const sql = `select (select count(*) from oauth_state where "createdAtMs" >= $1) as "all",
      (select count(*) from oauth_state where address = $2 and "createdAtMs" >= $1) as "ofAddress"`
    type Row = { readonly all: number; readonly ofAddress: number }
    const [row] = await this.#sql.all<Row>(sql, nowMs - oauthStateMaxMs, address)
    return row ?? { all: 0, ofAddress: 0 }
  }

  async find(key: string, nowMs: number): Promise<string | undefined> {
    const sql = 'select value from oauth_state where key = $1 and "createdAtMs" >= $2'
    return (await this.#sql.all<{ value: string }>(sql, key, nowMs - oauthStateMaxMs))[0]?.value
  }

  /** Takes a state for good: of two callbacks with the same state only one gets `true`. */
  async take(key: string): Promise<boolean> {
    const sql = 'delete from oauth_state where key = $1 returning key'
    return (await this.#sql.all(sql, key)).length === 1
  }
}
