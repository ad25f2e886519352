import postgres, { type MaybeRow, type PendingQuery } from 'postgres'
import { assert } from '../lib/assert.ts'
import { connectIndex, type IndexOptions, type IndexSql } from './database.ts'

export interface SessionOptions extends IndexOptions {
  /**
   * Number of a lock that is held as long as the connection: nobody else with it writes meanwhile.
   * It is taken once: where it was lost, what was read under it may have changed.
   */
  readonly lock?: number
}

/**
 * One connection for transactions, one after the other. The driver opens a connection anew when it
 * breaks, and what was still to be sent goes to the new one, outside of any transaction: rows without
 * their cursor, or a cursor without its rows. So here
 *
 * - one statement is under way at a time, and nothing waits within the driver;
 * - a connection that was lost is never used again, not even to undo what was done on it;
 * - with the connection the lock is lost, and for good. Another process may have written since, and a
 *   server that fell may have lost what it had said was stored: whoever goes on reads anew first.
 *
 * For example: the connection breaks between two statements. The driver says so, the second one is
 * refused before it is sent, and the next transaction begins on a connection of its own.
 */
export class IndexSession implements AsyncDisposable {
  readonly #options: SessionOptions
  #connection: Connection | undefined
  #isBusy = false
  #hasHeldLock = false

  constructor(options: SessionOptions) {
    this.#options = options
  }

  /**
   * Commits when `work` is done; all of it is undone when it throws.
   * @throws LockTaken where another session holds the lock, LockLost where this one held it
   */
  async begin<Result>(work: (transaction: IndexTransaction) => Promise<Result>): Promise<Result> {
    assert(!this.#isBusy, 'one transaction at a time')
    this.#isBusy = true
    try {
      return await this.#begin(work)
    } finally {
      this.#isBusy = false
    }
  }

  async #begin<Result>(work: (transaction: IndexTransaction) => Promise<Result>): Promise<Result> {
    if (this.#connection?.isLost === true) await this.#leave()
    const { lock } = this.#options
    const connection = (this.#connection ??= this.#connect())
    try {
      if (lock !== undefined) {
        await connection.take(lock)
        this.#hasHeldLock = true
      }
      return await new IndexTransaction(connection).begin(work)
    } catch (error) {
      // What the server refuses, and was undone, leaves the connection as it was.
      if (connection.isLost || !(error instanceof postgres.PostgresError)) await this.#leave()
      throw error
    }
  }

  #connect(): Connection {
    if (this.#hasHeldLock) throw new LockLost()
    return new Connection(this.#options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#leave()
  }

  async #leave(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    await connection?.end()
  }
}

/** What may be done within a transaction. */
export class IndexTransaction {
  readonly #connection: Connection
  #savepoints = 0

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Makes statements, and parts of them, which `run` runs. */
  get sql(): IndexSql {
    return this.#connection.sql
  }

  async run<Rows extends readonly MaybeRow[]>(query: PendingQuery<Rows>): Promise<Rows> {
    return await this.#connection.run(query)
  }

  async begin<Result>(work: (transaction: this) => Promise<Result>): Promise<Result> {
    await this.run(this.sql`begin`)
    return await this.#within(work, { commit: 'commit', undo: 'rollback' })
  }

  /** What fails in it is undone, and the rest of the transaction is not. */
  async savepoint<Result>(work: (transaction: this) => Promise<Result>): Promise<Result> {
    const name = `s${++this.#savepoints}`
    await this.run(this.sql`savepoint ${this.sql(name)}`)
    const undo = `rollback to ${name}`
    return await this.#within(work, { commit: `release ${name}`, undo })
  }

  async #within<Result>(
    work: (transaction: this) => Promise<Result>,
    { commit, undo }: { readonly commit: string; readonly undo: string },
  ): Promise<Result> {
    let result: Result
    try {
      result = await work(this)
    } catch (error) {
      if (!this.#connection.isLost) await this.run(this.sql.unsafe(undo))
      throw error
    }
    await this.run(this.sql.unsafe(commit))
    return result
  }
}

class Connection {
  readonly sql: IndexSql
  readonly #lost = Promise.withResolvers<never>()
  #state: 'well' | 'lost' = 'well'
  #hasLock = false

  constructor(options: IndexOptions) {
    this.#lost.promise.catch(() => undefined)
    this.sql = connectIndex({
      ...options,
      connectionsMax: 1,
      lifetime: 'kept',
      closed: () => this.#lose(),
    })
  }

  get isLost(): boolean {
    return this.#state === 'lost'
  }

  /** It is the server that gives it back when the connection ends, however it ends. */
  async take(lock: number): Promise<void> {
    if (this.#hasLock) return
    const [row] = await this.run(
      this.sql<{ isOurs: boolean }[]>`select pg_try_advisory_lock(${lock}) as "isOurs"`,
    )
    if (row?.isOurs !== true) throw new LockTaken()
    this.#hasLock = true
  }

  async run<Rows extends readonly MaybeRow[]>(query: PendingQuery<Rows>): Promise<Rows> {
    if (this.isLost) throw new LostConnectionError()
    // The server gives a statement up before: one that says nothing is gone.
    const silent = setTimeout(() => this.#lose(), silentMsMax)
    try {
      return await Promise.race([query, this.#lost.promise])
    } finally {
      clearTimeout(silent)
    }
  }

  async end(): Promise<void> {
    this.#lose()
    await this.sql.end({ timeout: 0 })
  }

  #lose(): void {
    this.#state = 'lost'
    this.#lost.reject(new LostConnectionError())
  }
}

const silentMsMax = 60_000

/** Another process writes the index. */
export class LockTaken extends Error {
  override readonly name = 'LockTaken'

  constructor() {
    super('another indexer leads')
  }
}

/** It was held, until its connection was lost. */
export class LockLost extends Error {
  override readonly name = 'LockLost'

  constructor() {
    super('the connection with which this indexer led was lost')
  }
}

class LostConnectionError extends Error {
  override readonly name = 'LostConnectionError'
  /** As the driver says it. */
  readonly code = 'CONNECTION_CLOSED'

  constructor() {
    super('the connection to the index was lost')
  }
}
