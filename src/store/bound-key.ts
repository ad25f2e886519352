import type { Did } from '../atproto/syntax.ts'
import type { Sql, Statement } from './sql.ts'

/** How long a key acts for a person before they have to bind it anew. */
export const boundKeyMs = 12 * 60 * 60_000
/** More apps than a person uses in half a day; with one more, the one bound first goes. */
const boundKeysMax = 10

export interface BoundKey {
  /** SHA-256 thumbprint of a public key. */
  readonly jkt: string
  readonly boundAtMs: number
  readonly expiresAtMs: number
}

/**
 * Keys of apps that act for a person, each of whom said so by a token of their own PDS. Nothing is
 * remembered beside the table: whatever takes a row takes the key's power with it.
 */
export class BoundKeys {
  readonly #sql: Sql
  #writes = 0

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Anew, or for the first time. @returns undefined for somebody who is not a member */
  async bind(did: Did, jkt: string, nowMs: number): Promise<BoundKey | undefined> {
    const expiresAtMs = nowMs + boundKeyMs
    await this.#sql.run([
      { sql: deleteExpired, args: [nowMs] },
      { sql: upsert, args: [did, jkt, nowMs, expiresAtMs] },
      { sql: deleteOldest, args: [did, jkt, boundKeysMax - 1] },
    ])
    const keys = await this.all(did, nowMs)
    // As many as there may be: one of before may have had to go.
    if (keys.length === boundKeysMax) this.#writes += 1
    return keys.find((key) => key.jkt === jkt)
  }

  async isBound(did: Did, jkt: string, nowMs: number): Promise<boolean> {
    return (await this.#sql.all(select, did, jkt, nowMs)).length > 0
  }

  /** Those that count now, the latest first. */
  async all(did: Did, nowMs: number): Promise<BoundKey[]> {
    const sql = `select jkt, "boundAtMs", "expiresAtMs" from bound_key
      where did = $1 and "expiresAtMs" > $2 order by "boundAtMs" desc, jkt`
    return await this.#sql.all<BoundKey>(sql, did, nowMs)
  }

  /** Grows whenever a key may have lost its power here before its time. */
  get writes(): number {
    return this.#writes
  }

  /** Succeeds where there is none. */
  async unbind(did: Did, jkt: string): Promise<void> {
    try {
      await this.#sql.run([
        { sql: 'delete from bound_key where did = $1 and jkt = $2', args: [did, jkt] },
      ])
    } finally {
      // After it, and also when it failed: who knows what of it was stored.
      this.#writes += 1
    }
  }
}

/** Ends what all keys of somebody may do, as part of a larger change. */
export function dropBoundKeys(did: Did): Statement {
  return { sql: 'delete from bound_key where did = $1', args: [did] }
}

/** The same for everybody, or the one, whose membership is not active at that point of a change. */
export function dropIdleBoundKeys(did: Did | undefined): Statement {
  const idle = `delete from bound_key where not exists (
    select 1 from enrollment e where e.did = bound_key.did and e.active = 1)`
  return did === undefined ? { sql: idle, args: [] } : { sql: `${idle} and did = $1`, args: [did] }
}

// Only of an active member, as the table knows it at that moment: who is leaving binds nothing.
const upsert = `insert into bound_key (did, jkt, "boundAtMs", "expiresAtMs")
  select $1, $2, $3, $4 from enrollment where did = $1 and active = 1
  on conflict (did, jkt) do update
    set "boundAtMs" = excluded."boundAtMs", "expiresAtMs" = excluded."expiresAtMs"`
const select = `select jkt, "boundAtMs", "expiresAtMs" from bound_key
  where did = $1 and jkt = $2 and "expiresAtMs" > $3`
const deleteExpired = 'delete from bound_key where "expiresAtMs" <= $1'
const deleteOldest = `delete from bound_key where did = $1 and jkt <> $2 and jkt not in (
  select jkt from bound_key where did = $1 and jkt <> $2 order by "boundAtMs" desc, jkt limit $3)`
