import { createHash } from 'node:crypto'
import type { Did } from '../atproto/syntax.ts'
import { revokeCredentials } from './revocation.ts'
import { RowsMismatch, type Sql } from './sql.ts'

/** How long a session lasts. @see protocol.md, section 4.4 */
export const sessionMs = 15 * 60_000
/** Apps and tabs that somebody has open at once; with one more, the oldest session ends. */
export const sessionsMax = 20

export interface Session {
  /** Of its id. */
  readonly digest: string
  readonly did: Did
  readonly expiresAtMs: number
}

/**
 * Sessions that count. A token counts only while its session stands here, and this table is asked
 * on every use: whatever takes a row away, in whichever transaction, ends the session at once.
 * Here stands the hash of an id, from which nobody who reads the table makes a token.
 */
export class Sessions {
  readonly #sql: Sql
  #writes = 0

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** @returns false, with nothing changed, where the person is no active member */
  async create({ digest, did, expiresAtMs }: Session, nowMs: number): Promise<boolean> {
    try {
      await this.#sql.run([
        { sql: deleteExpired, args: [nowMs] },
        // Before the new one comes: it is never the one that has to go.
        { sql: deleteOldest, args: [did, sessionsMax - 1] },
        { sql: insert, args: [digest, did, expiresAtMs], rows: 1 },
      ])
      const [counted] = await this.#sql.all<Revoked>(count, did, nowMs)
      // As many as there may be: one of before may have had to go.
      if (counted?.sessions === sessionsMax) this.#writes += 1
      return true
    } catch (error) {
      if (error instanceof RowsMismatch) return false
      throw error
    }
  }

  async find(digest: string, nowMs: number): Promise<Session | undefined> {
    return (await this.#sql.all<Session>(select, digest, nowMs))[0]
  }

  /** Grows whenever a session may have ended here before its time. */
  get writes(): number {
    return this.#writes
  }

  async drop(digest: string): Promise<void> {
    try {
      await this.#sql.run([{ sql: 'delete from session where digest = $1', args: [digest] }])
    } finally {
      // After it, and also when it failed: who knows what of it was stored.
      this.#writes += 1
    }
  }

  async dropExpired(nowMs: number): Promise<void> {
    await this.#sql.run([{ sql: deleteExpired, args: [nowMs] }])
  }

  /**
   * Ends everything by which somebody is signed in here.
   * @returns how many sessions and browsers that were
   */
  async revoke(did: Did, nowMs: number): Promise<Revoked> {
    const [counted] = await this.#sql.all<Revoked>(count, did, nowMs)
    try {
      await this.#sql.run(revokeCredentials(did))
    } finally {
      this.#writes += 1
    }
    return counted ?? { sessions: 0, browsers: 0 }
  }
}

interface Revoked {
  readonly sessions: number
  readonly browsers: number
}

export function sessionDigest(id: string): string {
  return createHash('sha256').update(id).digest('base64url')
}

// In one statement with the look at the membership: it may end at any moment before.
const insert = `insert into session (digest, did, "expiresAtMs")
  select $1, did, $3 from enrollment where did = $2 and active = 1`
const select = `select digest, did, "expiresAtMs" from session
  where digest = $1 and "expiresAtMs" > $2`
const deleteExpired = 'delete from session where "expiresAtMs" <= $1'
const deleteOldest = `delete from session where did = $1 and digest not in (
  select digest from session where did = $1 order by id desc limit $2)`
const count = `select
  (select count(*) from session where did = $1 and "expiresAtMs" > $2) as sessions,
  (select count(*) from browser_session where did = $1 and "expiresAtMs" > $2) as browsers`
