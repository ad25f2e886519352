// Stands in for the native better-sqlite3 module, so that the PDS installs without a compiler.
// Only what kysely's SQLite dialect and the PDS call is here.
import { DatabaseSync } from 'node:sqlite'

/** What better-sqlite3 calls the results that the PDS tells apart, by SQLite's extended code. */
const codeNames = {
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  19: 'SQLITE_CONSTRAINT',
  261: 'SQLITE_BUSY_RECOVERY',
  517: 'SQLITE_BUSY_SNAPSHOT',
  787: 'SQLITE_CONSTRAINT_FOREIGNKEY',
  1299: 'SQLITE_CONSTRAINT_NOTNULL',
  1555: 'SQLITE_CONSTRAINT_PRIMARYKEY',
  2067: 'SQLITE_CONSTRAINT_UNIQUE',
}

export default class Database {
  static SqliteError = class SqliteError extends Error {
    constructor(message, code) {
      super(message)
      this.name = 'SqliteError'
      this.code = code
    }
  }

  open = true
  #database

  constructor(path, { timeout = 5000 } = {}) {
    this.name = path
    this.#database = new DatabaseSync(path)
    this.pragma(`busy_timeout = ${timeout}`)
  }

  prepare(sql) {
    return named(() => new Statement(this.#database.prepare(sql)))
  }

  exec(sql) {
    named(() => this.#database.exec(sql))
    return this
  }

  pragma(setting) {
    return this.prepare(`pragma ${setting}`).all()
  }

  transaction(work) {
    return (...values) => {
      this.exec('begin')
      try {
        const result = work(...values)
        this.exec('commit')
        return result
      } catch (error) {
        this.exec('rollback')
        throw error
      }
    }
  }

  close() {
    if (!this.open) return
    this.open = false
    this.#database.close()
  }
}

class Statement {
  #statement

  constructor(statement) {
    this.#statement = statement
    /** Whether it gives rows; kysely asks, to choose between `all` and `run`. */
    this.reader = statement.columns().length > 0
  }

  all(...values) {
    return named(() => this.#statement.all(...bound(values)).map(withBuffers))
  }

  get(...values) {
    return named(() => withBuffers(this.#statement.get(...bound(values))))
  }

  run(...values) {
    return named(() => this.#statement.run(...bound(values)))
  }

  *iterate(...values) {
    for (const row of this.#statement.iterate(...bound(values))) yield withBuffers(row)
  }
}

/** node:sqlite binds neither booleans nor undefined; kysely gives the values as one array. */
function bound(values) {
  return values.flat().map((value) => {
    if (typeof value === 'boolean') return value ? 1 : 0
    return value === undefined ? null : value
  })
}

/** The PDS expects Buffers where node:sqlite gives Uint8Arrays. */
function withBuffers(row) {
  if (row === undefined) return row
  for (const [name, value] of Object.entries(row)) {
    if (!(value instanceof Uint8Array)) continue
    row[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  }
  return row
}

function named(work) {
  try {
    return work()
  } catch (error) {
    const code = codeNames[error.errcode]
    if (code === undefined) throw error
    throw new Database.SqliteError(error.message, code)
  }
}
