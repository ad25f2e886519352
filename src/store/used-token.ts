import type { Sql } from './sql.ts'

/** Tokens that were used up, for as long as they would still count. */
export class UsedTokenStore {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /**
   * Takes a token for good: of two that come with the same digest only one gets `true`.
   * @param token.digest of what makes the token the same one
   */
  async take(token: {
    readonly digest: string
    readonly expiresAtMs: number
    readonly nowMs: number
  }): Promise<boolean> {
    await this.#sql.run([
      { sql: 'delete from used_token where "expiresAtMs" < $1', args: [token.nowMs] },
    ])
    const sql = `insert into used_token (digest, "expiresAtMs") values ($1, $2)
      on conflict (digest) do nothing returning digest`
    return (await this.#sql.all(sql, token.digest, token.expiresAtMs)).length === 1
  }
}
