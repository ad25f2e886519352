import { Database } from 'bun:sqlite'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { BoundKeys } from '../../src/store/bound-key.ts'
import { BrowserSessions } from '../../src/store/browser-session.ts'
import { SessionSecretStore, type StoredSecret } from '../../src/store/session-secret.ts'
import { openSqlite } from '../../src/store/sqlite.ts'

/** What lies in the folder of a service that is stopped. */
export class Stored {
  /** Tokens of the cookie of our own pages, by whose they are or what is wrong with them. */
  readonly cookies = new Map<string, string>()
  readonly #folder: string
  #secret: StoredSecret | undefined

  constructor(folder: string) {
    this.#folder = folder
  }

  /** What sessions are signed with, as somebody would know it who has read the database. */
  get sessionSecret(): StoredSecret {
    if (this.#secret === undefined) throw new Error('the secret was not read yet')
    return this.#secret
  }

  /** The key of the service itself. */
  get serviceKeyHex(): string {
    return readFileSync(join(this.#folder, 'signing_key'), 'utf8').trim()
  }

  /** The text of every row, by file and table. */
  rows(): Record<string, string> {
    const found: Record<string, string> = {}
    const names = readdirSync(this.#folder, { recursive: true, encoding: 'utf8' })
    for (const file of names.filter((name) => name.endsWith('.sqlite')).toSorted()) {
      using database = new Database(join(this.#folder, file))
      const sql = "select name from sqlite_schema where type = 'table'"
      for (const { name } of database.query<{ name: string }, []>(sql).all()) {
        const rows = database.query(`select * from "${name}"`).values()
        const lines = rows.map((row) => row.map(shown).join('|')).toSorted()
        found[`${file} ${name}`] = lines.join('\n')
      }
    }
    return found
  }

  async seedCookies({ cora, cleo }: Readonly<Record<'cora' | 'cleo', Did>>): Promise<void> {
    await this.#open(async (sqlite) => {
      const sessions = new BrowserSessions(sqlite)
      const nowMs = Date.now()
      const ended = await sessions.create(cora, nowMs)
      await sessions.drop(ended)
      this.cookies.set('ended', ended)
      this.cookies.set('cora', await sessions.create(cora, nowMs))
      this.cookies.set('cora who signs out', await sessions.create(cora, nowMs))
      this.cookies.set('cleo', await sessions.create(cleo, nowMs))
      // Made last: each new one sweeps what is over.
      const dayMs = 24 * 60 * 60_000
      this.cookies.set('expired', await sessions.create(cora, nowMs - dayMs - 1))
    })
  }

  /** A key that was bound, and whose time is over. */
  async seedOverdueKey(did: Did, thumbprint: string): Promise<void> {
    await this.#open(async (sqlite) => {
      await new BoundKeys(sqlite).bind(did, thumbprint, Date.now() - 13 * 60 * 60_000)
    })
  }

  async readSessionSecret(): Promise<void> {
    await this.#open(async (sqlite) => {
      ;[this.#secret] = await new SessionSecretStore(sqlite).all()
    })
  }

  async #open(use: (sqlite: ReturnType<typeof openSqlite>) => Promise<void>): Promise<void> {
    const path = join(this.#folder, 'service.sqlite')
    const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
    try {
      await use(sqlite)
    } finally {
      await sqlite.close()
    }
  }
}

function shown(value: unknown): string {
  return value instanceof Uint8Array ? value.toHex() : String(value)
}
