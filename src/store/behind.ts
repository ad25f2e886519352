import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Did } from '../atproto/syntax.ts'
import { syncFile, syncFolder } from '../lib/files.ts'
import { type Change, changeStatements } from './actor-change.ts'
import { changesOf, joined } from './change-text.ts'
import type { Sql, SqlValue, Statement } from './sql.ts'
import type { Sqlite } from './sqlite.ts'
import { putAside, storeRest } from './unstored.ts'

/**
 * An actor's database that follows behind a journal. Changes that are durable there are stored here
 * a little later, many at once, but always before anything else is read or written here. While they
 * cannot be stored, every reader and writer is refused.
 */
export class Behind implements Sql {
  readonly did: Did
  readonly #path: string
  readonly #sqlite: Sqlite
  /** Texts of Changes: thousands of these wait at times, and as objects they would be many more. */
  #waiting: string[] = []
  #count = 0
  #state: 'sound' | 'failed' | 'aside' = 'sound'
  /** Settles when whoever else writes here has finished. */
  #lent: Promise<void> | undefined

  constructor(did: Did, path: string, sqlite: Sqlite) {
    this.did = did
    this.#path = path
    this.#sqlite = sqlite
  }

  /** False from the first Change on that could not be stored, until it could be. */
  get isSound(): boolean {
    return this.#state === 'sound'
  }

  /** Changes that are not stored here yet. */
  get waiting(): number {
    return this.#count
  }

  /**
   * Changes to be stored soon, which are durable elsewhere and follow those of before.
   * @param text of `changesText`
   */
  later(text: string, count: number): void {
    this.#waiting.push(text)
    this.#count += count
  }

  /** @throws when the Changes cannot be stored; they go on waiting */
  catchUp(): void {
    if (this.#state === 'aside') throw new Error(`changes of ${this.did} could not be stored`)
    if (this.#count === 0) return
    const changes = changesOf(joined(this.#waiting)).flatMap((one) => one.changes)
    // Of a transaction that failed it is not known how far it came.
    const repeats = this.#state === 'failed'
    this.#state = 'failed'
    if (repeats) this.storeRest(changes)
    else this.#sqlite.store(changeStatements(changes), 'normal')
    this.#state = 'sound'
    this.drop()
  }

  /** Stores Changes at once, on disk: for those that no journal has. */
  storeNow(changes: readonly Change[]): void {
    this.catchUp()
    this.#sqlite.store(changeStatements(changes), 'full')
  }

  /** Stores on disk what of these Changes is missing, and tells how many they were. */
  storeRest(changes: readonly Change[]): number {
    return storeRest(this.#sqlite, this.did, changes)
  }

  /** As `catchUp`; where Changes were put aside before, later ones are put there, too. */
  settle(): void {
    if (this.#state !== 'aside') this.catchUp()
    else if (this.#count > 0) this.putAside()
  }

  /** Brings to disk what is stored. */
  sync(): void {
    const log = `${this.#path}-wal`
    // A database that was closed is whole without its log, and one that was removed needs nothing.
    if (!existsSync(log)) return
    syncFile(log)
    syncFolder(dirname(log))
  }

  /** Keeps what cannot be stored in a file; nobody reads or writes here until it could be. */
  putAside(): void {
    putAside(this.#path, this.#waiting)
    this.#state = 'aside'
    this.drop()
  }

  /** Forgets what waits. */
  drop(): void {
    this.#waiting = []
    this.#count = 0
  }

  /**
   * Leaves writing to another handle until the function that this gives is called; who writes here
   * meanwhile waits, and who reads does not. Nothing must be added by `later` in between.
   */
  lend(): () => void {
    this.catchUp()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#lent = promise
    return () => {
      this.#lent = undefined
      resolve()
    }
  }

  async all<Row>(sql: string, ...args: readonly SqlValue[]): Promise<Row[]> {
    this.catchUp()
    return await this.#sqlite.all(sql, ...args)
  }

  async run(batch: readonly Statement[]): Promise<void> {
    while (this.#lent !== undefined) await this.#lent
    this.catchUp()
    await this.#sqlite.run(batch)
  }

  async scrub(): Promise<void> {
    while (this.#lent !== undefined) await this.#lent
    this.catchUp()
    await this.#sqlite.scrub()
  }

  async close(): Promise<void> {
    try {
      this.settle()
    } finally {
      await this.#sqlite.close()
    }
  }
}
