import postgres from 'postgres'
import { assert } from '../lib/assert.ts'
import { folder } from '../lib/embed.macro.ts' with { type: 'macro' }
import { MigrationError, type Migrations } from '../store/migrate.ts'

/**
 * Connections to the index. Times are `Date`, `bigint` is a number, `bytea` a `Buffer`, and `text[]`
 * an array of strings; other arrays are text.
 */
export type IndexSql = postgres.Sql<{ bigint: number; texts: readonly string[] }>
export interface IndexOptions {
  /** As in `postgres://user:password@host:5432/database`. */
  readonly url: string
  readonly connectionsMax?: number
  /** Of one statement. */
  readonly statementMsMax?: number
  /** `kept`: a connection ends when it is told to, however long nobody needs it. */
  readonly lifetime?: 'kept' | undefined
  /** Learns of each connection that is no more. */
  readonly closed?: () => void
}

/**
 * Opens the index and brings its tables to the newest form.
 * @throws MigrationError when it was written by a newer program
 */
export async function openIndex(options: IndexOptions): Promise<IndexSql> {
  const sql = connectIndex(options)
  try {
    await migrateIndex(sql)
    return sql
  } catch (error) {
    await sql.end({ timeout: endSeconds })
    throw error
  }
}

/** Connections to an index whose tables are there. */
export function connectIndex(options: IndexOptions): IndexSql {
  const { url, connectionsMax = connectionsMaxDefault } = options
  const { statementMsMax = statementMsMaxDefault, lifetime, closed } = options
  return postgres(url, {
    max: connectionsMax,
    connect_timeout: connectSeconds,
    ...(lifetime === 'kept' ? { max_lifetime: null } : { idle_timeout: idleSeconds }),
    backoff: () => reconnectSeconds,
    // The driver would ask each new connection for them, and of one that is lost meanwhile it says so
    // to nobody.
    fetch_types: false,
    types: { bigint: numbers, texts },
    connection: {
      application_name: 'stratos',
      // What is said to be stored is on the disk, whatever the server is told for others.
      synchronous_commit: 'on',
      statement_timeout: statementMsMax,
      idle_in_transaction_session_timeout: idleInTransactionMsMax,
      // Of a machine that is gone the server learns by these, and gives back its locks.
      tcp_keepalives_idle: 15,
      tcp_keepalives_interval: 5,
      tcp_keepalives_count: 3,
      tcp_user_timeout: 30_000,
      // To compile a statement takes longer than any of ours runs.
      jit: 'off',
      // Times that come back as text are parameters of later statements, on other connections.
      DateStyle: 'ISO',
    },
    onnotice: () => undefined,
    ...(closed === undefined ? {} : { onclose: closed }),
  })
}

/** Applies what is missing, all of it or nothing. Of several programs one does it, others wait. */
export async function migrateIndex(
  sql: IndexSql,
  migrations: Migrations = embedded,
): Promise<void> {
  const steps = Object.entries(migrations)
    .map(([name, text]) => ({ version: Number.parseInt(name, 10), name, text }))
    .sort((a, b) => a.version - b.version)
  const newest = steps.at(-1)?.version ?? 0
  await sql.begin(async (transaction) => {
    await transaction`select pg_advisory_xact_lock(${migrationLock})`
    await transaction`create table if not exists stratos_migration (
      version integer primary key, name text not null, "appliedAt" timestamptz not null)`
    const [row] = await transaction<{ present: number }[]>`
      select coalesce(max(version), 0)::integer as present from stratos_migration`
    const present = row?.present ?? 0
    if (present > newest) {
      throw new MigrationError(
        `the index is at version ${present}, this program knows versions up to ${newest}: ` +
          'start the newer program that wrote it',
      )
    }
    for (const { version, name, text } of steps) {
      if (version <= present) continue
      try {
        await transaction.unsafe(text)
      } catch (error) {
        throw new MigrationError(`migration ${name} failed`, { cause: error })
      }
      await transaction`insert into stratos_migration (version, name, "appliedAt")
        values (${version}, ${name}, now())`
    }
  })
}

const embedded = folder('migrations/index')
/** Of the tables that this program writes and reads. */
export const indexVersion = Math.max(
  ...Object.keys(embedded).map((name) => Number.parseInt(name, 10)),
)
/** Any number that nobody else takes. */
const migrationLock = 7_245_117_301
const connectionsMaxDefault = 8
const connectSeconds = 10
/** The driver's own waits grow to 20 s, in which nobody is answered though the server is back. */
const reconnectSeconds = 0.25
/** A connection that nobody needs goes, and with it the memory that the server keeps for it. */
const idleSeconds = 300
const statementMsMaxDefault = 30_000
/** Whoever goes away within a transaction must not hold its locks. */
const idleInTransactionMsMax = 60_000
/** Until statements that still run are cut off. */
const endSeconds = 5

/** Sequence numbers are microseconds, far below 2^53. */
const numbers = {
  to: 20,
  from: [20],
  serialize: (value: number) => String(value),
  parse: (text: string) => {
    const value = Number(text)
    assert(Number.isSafeInteger(value), 'a number of the index is within 2^53')
    return value
  },
}

/**
 * Arrays of text, in which nothing is null.
 * @see https://www.postgresql.org/docs/18/arrays.html#ARRAYS-IO
 */
const texts = {
  to: 1009,
  from: [1009],
  serialize: (values: readonly string[]) =>
    `{${values.map((value) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`,
  parse: (text: string): readonly string[] => {
    const inner = text.slice(1, -1)
    const elements = [...inner.matchAll(/"((?:[^"\\]+|\\.)*)"|[^,]+/gs)]
    const chars = elements.reduce((sum, [whole]) => sum + whole.length + 1, 0)
    assert(chars === (inner === '' ? 0 : inner.length + 1), 'an array is read to its end')
    return elements.map(([whole, quoted]) => {
      assert(whole !== 'NULL', 'no element of an array is null')
      return quoted === undefined ? whole : quoted.replaceAll(/\\(.)/gs, '$1')
    })
  },
}
