/** A value that every backend binds and returns alike. */
export type SqlValue = string | number | Uint8Array | null

export interface Statement {
  /** Lower case, parameters as `$1`, `$2`, ... */
  readonly sql: string
  readonly args: readonly SqlValue[]
  /** How many rows it must touch; another number undoes the whole batch. */
  readonly rows?: number
}

/** A database with one way to read and one way to write, over SQLite and PostgreSQL alike. */
export interface Sql {
  /** Rows of a query. The caller names their shape, which is what its own SQL selects. */
  all<Row>(sql: string, ...args: readonly SqlValue[]): Promise<Row[]>
  /**
   * Runs all statements in one transaction, or none of them.
   * @throws {@link RowsMismatch} where a statement touched another number of rows than it must
   */
  run(batch: readonly Statement[]): Promise<void>
  /** Takes what deleted rows were out of the files, as far as the backend keeps such files. */
  scrub(): Promise<void>
  close(): Promise<void>
}

/** A statement touched too few or too many rows: what it relied on has changed meanwhile. */
export class RowsMismatch extends Error {
  override readonly name = 'RowsMismatch'
  readonly index: number

  constructor(index: number, expected: number, touched: number) {
    super(`statement ${index} must touch ${expected} rows and touched ${touched}`)
    this.index = index
  }
}
