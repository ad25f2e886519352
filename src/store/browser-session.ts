import { createHash, randomBytes } from 'node:crypto'
import type { Did } from '../atproto/syntax.ts'
import type { Sql, Statement } from './sql.ts'

/** How long somebody stays signed in on our own pages. */
export const browserSessionMs = 24 * 60 * 60_000
/** More browsers than a person has; with one more, the one that signed in first is signed out. */
export const browserSessionsMax = 10

/**
 * Who signed in on our own pages. A token is in the hands of one browser alone: here stands its
 * hash, from which nobody who reads the table gets in.
 */
export class BrowserSessions {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** @returns the token: 43 characters that fit into a cookie */
  async create(did: Did, nowMs: number): Promise<string> {
    const token = randomBytes(32).toString('base64url')
    await this.#sql.run([
      { sql: deleteExpired, args: [nowMs] },
      // Before the new one comes: it is never the one that has to go.
      { sql: deleteOldest, args: [did, browserSessionsMax - 1] },
      { sql: insert, args: [digestOf(token), did, nowMs + browserSessionMs] },
    ])
    return token
  }

  async find(token: string, nowMs: number): Promise<Did | undefined> {
    const sql = 'select did from browser_session where digest = $1 and "expiresAtMs" > $2'
    return (await this.#sql.all<{ did: Did }>(sql, digestOf(token), nowMs))[0]?.did
  }

  async drop(token: string): Promise<void> {
    const sql = 'delete from browser_session where digest = $1'
    await this.#sql.run([{ sql, args: [digestOf(token)] }])
  }

  async dropAll(did: Did): Promise<void> {
    await this.#sql.run([dropBrowserSessions(did)])
  }
}

/** Signs somebody out everywhere, as part of a larger change. */
export function dropBrowserSessions(did: Did): Statement {
  return { sql: 'delete from browser_session where did = $1', args: [did] }
}

const insert = 'insert into browser_session (digest, did, "expiresAtMs") values ($1, $2, $3)'
const deleteExpired = 'delete from browser_session where "expiresAtMs" <= $1'
const deleteOldest = `delete from browser_session where did = $1 and digest not in (
  select digest from browser_session where did = $1 order by "expiresAtMs" desc limit $2)`

function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}
