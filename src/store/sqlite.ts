import { Database, type Statement as Prepared } from 'bun:sqlite'
import { RowsMismatch, type Sql, type SqlValue, type Statement } from './sql.ts'

export type Synchronous = 'full' | 'normal'

export interface SqliteOptions {
  readonly synchronous: Synchronous
  /** Page cache of this handle in KiB. What it does not hold the kernel mostly does. */
  readonly cacheKib: number
  /** Keeps every other process out for as long as this handle is open. */
  readonly exclusive: boolean
  /** Overwrites deleted rows always, or (the default) where that costs no further write. */
  readonly overwrite?: 'always'
}

/** Pages in the WAL before they are copied back: steadiest latency of the sizes that were tried. */
const walPagesMax = 200
/**
 * Whoever closes a file as the last one has it alone until the log is copied back, which takes longer
 * the longer the log is. Another thread that opens it meanwhile waits.
 */
const closingMsMax = 2_000

export function openSqlite(path: string, options: SqliteOptions): Sqlite {
  return new Sqlite(path, options)
}

/** One SQLite file in WAL mode. Calls are answered before they return; the promises are for peers. */
export class Sqlite implements Sql {
  readonly #database: Database
  readonly #synchronous: Synchronous
  #level: Synchronous
  readonly #prepared = new Map<string, Prepared<unknown, SqlValue[]>>()

  constructor(path: string, options: SqliteOptions) {
    this.#database = new Database(path, { create: true, readwrite: true, strict: true })
    this.#synchronous = options.synchronous
    this.#level = options.synchronous
    try {
      if (options.exclusive) this.#database.run('pragma locking_mode = exclusive')
      else this.#database.run(`pragma busy_timeout = ${closingMsMax}`)
      this.#database.run('pragma journal_mode = wal')
      this.#database.run(`pragma synchronous = ${options.synchronous}`)
      this.#database.run(`pragma wal_autocheckpoint = ${walPagesMax}`)
      this.#database.run(`pragma cache_size = -${options.cacheKib}`)
      this.#database.run('pragma temp_store = memory')
      this.#database.run(`pragma secure_delete = ${options.overwrite === 'always' ? 'on' : 'fast'}`)
      // The lock of exclusive mode is taken by the first write, not by the pragma.
      if (options.exclusive) this.#database.run('begin immediate; commit')
    } catch (error) {
      this.#database.close()
      throw error
    }
  }

  async all<Row>(sql: string, ...args: readonly SqlValue[]): Promise<Row[]> {
    return this.query(sql, ...args)
  }

  /** As `all`, at once. */
  query<Row>(sql: string, ...args: readonly SqlValue[]): Row[] {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- see `Sql`
    return this.#prepare(sql).all(...args) as Row[]
  }

  /** As `query`, a row at a time: for what is too much to be held at once. */
  each<Row>(sql: string, ...args: readonly SqlValue[]): IterableIterator<Row> {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- see `Sql`
    return this.#prepare(sql).iterate(...args) as IterableIterator<Row>
  }

  async run(batch: readonly Statement[]): Promise<void> {
    this.store(batch, this.#synchronous)
  }

  /** As `run`, at once: with `full` it is on disk when this returns, with `normal` some time later. */
  store(batch: readonly Statement[], synchronous: Synchronous): void {
    if (synchronous !== this.#level) {
      this.#database.run(`pragma synchronous = ${synchronous}`)
      this.#level = synchronous
    }
    this.begin()
    try {
      this.execute(batch)
      this.commit()
    } catch (error) {
      this.undo()
      throw error
    }
  }

  /** Opens a transaction, for what is too much for one batch: to be ended by `commit` or `undo`. */
  begin(): void {
    this.#prepare('begin immediate').run()
  }

  /** Within a transaction. @throws RowsMismatch as `run` does */
  execute(batch: readonly Statement[]): void {
    for (const [index, { sql, args, rows }] of batch.entries()) {
      const { changes } = this.#prepare(sql).run(...args)
      if (rows !== undefined && changes !== rows) throw new RowsMismatch(index, rows, changes)
    }
  }

  commit(): void {
    this.#prepare('commit').run()
  }

  async scrub(): Promise<void> {
    // Deleted rows are overwritten in the database, but pages of before still stand in the WAL.
    this.#database.run('pragma wal_checkpoint(truncate)')
  }

  /** Several statements in one text, without parameters: for migrations. */
  script(sql: string): void {
    this.#database.run(sql)
  }

  /** Rolls back; a failed commit (disk full, for one) may already have ended the transaction. */
  undo(): void {
    if (this.#database.inTransaction) this.#database.run('rollback')
  }

  async close(): Promise<void> {
    for (const statement of this.#prepared.values()) statement.finalize()
    this.#prepared.clear()
    this.#database.close()
  }

  /** The number of different statements is bounded by the source, so all of them are kept. */
  #prepare(sql: string): Prepared<unknown, SqlValue[]> {
    let statement = this.#prepared.get(sql)
    if (statement === undefined) {
      // bun:sqlite binds $2 by order of first appearance; ?2 is bound by its number.
      statement = this.#database.prepare<unknown, SqlValue[]>(sql.replaceAll(/\$(\d+)/g, '?$1'))
      this.#prepared.set(sql, statement)
    }
    return statement
  }
}
