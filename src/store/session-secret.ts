import type { Sql } from './sql.ts'

/** A secret that session tokens are, or were, signed with. */
export interface StoredSecret {
  readonly kid: string
  readonly secret: Uint8Array
  /** Null for the one in use. */
  readonly retiredAtMs: number | null
}

const insert = `insert into session_secret (kid, secret, "createdAtMs", "retiredAtMs")
  values ($1, $2, $3, null)`
// The one in use first, then former ones, the latest first.
const select = `select kid, secret, "retiredAtMs" from session_secret
  order by "retiredAtMs" is not null, "retiredAtMs" desc, kid`
const retire = `update session_secret set "retiredAtMs" = $1 where "retiredAtMs" is null`
const erase = `delete from session_secret where "retiredAtMs" <= $1 returning kid`

type NewSecret = Omit<StoredSecret, 'retiredAtMs'>

/** The secrets of sessions in service.sqlite. */
export class SessionSecretStore {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** The one in use first, then former ones, the latest first; none before `begin`. */
  async all(): Promise<StoredSecret[]> {
    return await this.#sql.all<StoredSecret>(select)
  }

  /** @throws Error where there is one in use */
  async begin({ kid, secret }: NewSecret, nowMs: number): Promise<void> {
    await this.#sql.run([{ sql: insert, args: [kid, secret, nowMs] }])
  }

  /** The next one comes into use, and the one before signs nothing any more. */
  async rotate({ kid, secret }: NewSecret, nowMs: number): Promise<void> {
    await this.#sql.run([
      { sql: retire, args: [nowMs], rows: 1 },
      { sql: insert, args: [kid, secret, nowMs] },
    ])
  }

  /** Takes those that were retired until then out of the files, too. @returns their kids */
  async erase(untilMs: number): Promise<string[]> {
    const rows = await this.#sql.all<{ readonly kid: string }>(erase, untilMs)
    if (rows.length > 0) await this.#sql.scrub()
    return rows.map(({ kid }) => kid)
  }
}
