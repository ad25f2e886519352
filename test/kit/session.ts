import { Database } from 'bun:sqlite'
import { join } from 'node:path'

import { isFields } from './xrpc.ts'

/** The OAuth sessions in the database of a service that is stopped. */
export class SavedSessions implements Disposable {
  readonly #database: Database

  constructor(dataFolder: string) {
    this.#database = new Database(join(dataFolder, 'service.sqlite'))
  }

  has(did: string): boolean {
    return this.#value(did) !== undefined
  }

  /** The key that the client proved itself with when the session began. */
  kid(did: string): unknown {
    return this.#read(did).authMethod['kid']
  }

  accessToken(did: string): unknown {
    return this.#read(did).tokenSet['access_token']
  }

  /** Makes the next use refresh it. */
  expire(did: string): void {
    const { tokenSet, ...session } = this.#read(did)
    const expired = { ...tokenSet, expires_at: new Date(0).toISOString() }
    const value = JSON.stringify({ ...session, tokenSet: expired })
    this.#database.run('update oauth_session set value = ?2 where did = ?1', [did, value])
  }

  pdsEndpoint(did: string): unknown {
    const sql = 'select "pdsEndpoint" as place from enrollment where did = ?1'
    return this.#database.query<{ place: string }, [string]>(sql).get(did)?.place
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }

  #read(did: string) {
    const session: unknown = JSON.parse(this.#value(did) ?? 'null')
    if (isFields(session)) {
      const { authMethod, tokenSet } = session
      if (isFields(authMethod) && isFields(tokenSet)) return { ...session, authMethod, tokenSet }
    }
    throw new Error(`${did} has no session`)
  }

  #value(did: string): string | undefined {
    const sql = 'select value from oauth_session where did = ?1'
    return this.#database.query<{ value: string }, [string]>(sql).get(did)?.value
  }
}
