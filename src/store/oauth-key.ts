import { assert } from '../lib/assert.ts'
import type { Sql } from './sql.ts'

/** A key of the OAuth client, with its private half. */
export interface StoredKey {
  readonly kid: string
  /** A private JWK. */
  readonly jwk: string
}

const insertKey = `insert into oauth_key (kid, jwk, "createdAtMs", "usedFromMs", "usedUntilMs")
  values ($1, $2, $3, $4, null)`
// The one in use, then the one that is next, then former ones.
const selectKeys = `select kid, jwk from oauth_key
  order by case when "usedUntilMs" is not null then 2 when "usedFromMs" is null then 1 else 0 end,
    "usedUntilMs" desc, kid`
const countFormer = 'select count(*) as former from oauth_key where "usedUntilMs" is not null'
const selectNext = `select "createdAtMs" from oauth_key
  where "usedFromMs" is null and "usedUntilMs" is null`
const endUse = `update oauth_key set "usedUntilMs" = $1
  where "usedFromMs" is not null and "usedUntilMs" is null`
const beginUse = `update oauth_key set "usedFromMs" = $1 where "usedFromMs" is null`
// A kid is random enough to be found in a text without looking at its structure.
const deleteUnused = `delete from oauth_key where "usedUntilMs" < $1
  and not exists (select 1 from oauth_session s where s.value like '%' || kid || '%')
  and not exists (select 1 from oauth_state s where s.value like '%' || kid || '%')
  returning kid`

/** Keys of the OAuth client in service.sqlite: one in use, one that is next, and former ones. */
export class OauthKeyStore {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** The one in use first, then the next one; none before `begin`. */
  async all(): Promise<StoredKey[]> {
    return await this.#sql.all<StoredKey>(selectKeys)
  }

  /** How many are kept for what was signed in with them. */
  async former(): Promise<number> {
    const [row] = await this.#sql.all<{ readonly former: number }>(countFormer)
    return row?.former ?? 0
  }

  /** Since when the next key is published. */
  async nextSinceMs(): Promise<number> {
    const [row] = await this.#sql.all<{ readonly createdAtMs: number }>(selectNext)
    assert(row !== undefined, 'there is always a key that is next')
    return row.createdAtMs
  }

  async begin(keys: { readonly used: StoredKey; readonly next: StoredKey }, nowMs: number) {
    const { used, next } = keys
    await this.#sql.run([
      { sql: insertKey, args: [used.kid, used.jwk, nowMs, nowMs] },
      { sql: insertKey, args: [next.kid, next.jwk, nowMs, null] },
    ])
  }

  /** The next key comes into use, and `next` is the next one from now on. */
  async rotate(next: StoredKey, nowMs: number): Promise<void> {
    await this.#sql.run([
      { sql: endUse, args: [nowMs], rows: 1 },
      { sql: beginUse, args: [nowMs], rows: 1 },
      { sql: insertKey, args: [next.kid, next.jwk, nowMs, null] },
    ])
  }

  /** Forgets keys out of use since before then that no session and no sign-in under way needs. */
  async dropUnused(beforeMs: number): Promise<string[]> {
    const rows = await this.#sql.all<{ readonly kid: string }>(deleteUnused, beforeMs)
    return rows.map(({ kid }) => kid)
  }
}
