import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import postgres from 'postgres'
import { failedWith } from '../lib/file-error.ts'
import { makeFolder } from '../lib/files.ts'
import type { Log } from '../lib/log.ts'
import { unlessAborted } from '../lib/pause.ts'
import { openSqlite, type Sqlite } from '../store/sqlite.ts'
import { type PostgresData, prepareData, startAnew } from './postgres-data.ts'
import { endOrphan } from './postgres-orphan.ts'
import { PostgresProcess } from './postgres-process.ts'
import { type AtExit, PostgresPrograms } from './postgres-programs.ts'
import { ServerFailed } from './server-failed.ts'

export interface EmbeddedOptions {
  /** For this server alone, as `index` in the data folder. */
  readonly folder: string
  readonly log: Log
  /** Ends a start that takes long, as after a crash. What has started is for whoever has it. */
  readonly signal: AbortSignal
  readonly atExit: AtExit
}

/**
 * A PostgreSQL for the index that runs beside this process and ends with it, for communities that are
 * small. It is reached by whoever is on this machine, and lets in whoever knows a password:
 * - that of the superuser lies in the folder. It goes to no port before the process behind that is
 *   known to be the server;
 * - that of the index is made at each start. Connections come back by themselves, and after a crash
 *   somebody else may have the port: what they tell there is worth nothing to the next server.
 * So whoever sees it end gives up the connections, and starts another one with another URL.
 */
export class EmbeddedPostgres implements AsyncDisposable {
  /** Of the index, with its password. */
  readonly url: string
  /** Resolves when it ends without having been told to; the error says what it said last. */
  readonly died: Promise<ServerFailed>
  readonly #process: PostgresProcess
  readonly #held: AsyncDisposableStack
  #isStopped = false

  private constructor(process: PostgresProcess, url: string, held: AsyncDisposableStack) {
    this.url = url
    this.#process = process
    this.#held = held
    const died = Promise.withResolvers<ServerFailed>()
    this.died = died.promise
    void process.ended.then((last) => {
      if (this.#isStopped) return
      died.resolve(new ServerFailed(`the PostgreSQL of the index has ended: start again\n${last}`))
    })
  }

  /**
   * Gives one that is ready, with an empty database the first time. One that a killed process of
   * ours has left behind is ended before.
   *
   * @throws ServerFailed, or the reason of an aborted `signal` once nothing is left of it
   */
  static async start(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
    const { folder, log, signal, atExit } = options
    await using starting = new AsyncDisposableStack()
    makeFolder(folder)
    const lock = lockFolder(folder)
    starting.defer(() => lock.close())
    const programs = starting.use(PostgresPrograms.prepare(folder, atExit))
    const data = await prepareData(folder, { programs, durability: 'synced', signal })
    await endOrphan(data, { log, signal })
    const process = starting.use(
      await PostgresProcess.start({ programs, data, log, settings, signal }),
    )
    const url = await unlessAborted(setUp(data, { port: process.port, folder }), signal)
    return new EmbeddedPostgres(process, url, starting.move())
  }

  get pid(): number {
    return this.#process.pid
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true
    await this.#held.disposeAsync()
  }
}

/** For some million posts and some dozen connections; the defaults are for a machine of its own. */
const settings = [
  'shared_buffers=64MB',
  'maintenance_work_mem=32MB',
  'max_connections=50',
  'max_parallel_workers_per_gather=0',
  'max_wal_size=256MB',
  // Nobody copies it.
  'wal_level=minimal',
  'max_wal_senders=0',
  'io_method=sync',
  'huge_pages=off',
  'jit=off',
]

/** Held until this process ends, however it does. */
function lockFolder(folder: string): Sqlite {
  try {
    const options = { synchronous: 'normal', cacheKib: 64, exclusive: true } as const
    return openSqlite(join(folder, 'lock.sqlite'), options)
  } catch (error) {
    if (!failedWith(error, 'SQLITE_BUSY')) throw error
    throw new ServerFailed(
      `another process uses ${folder}: stop it, or set STRATOS_DATA_DIR to another folder`,
      { cause: error },
    )
  }
}

/** @returns the URL of the index, by which everything in it may be done and nothing beside it */
async function setUp(
  data: PostgresData,
  { port, folder }: { readonly port: number; readonly folder: string },
): Promise<string> {
  const sql = postgres({
    host: '127.0.0.1',
    port,
    user: 'postgres',
    database: 'postgres',
    password: data.password,
    max: 1,
    fetch_types: false,
    onnotice: () => undefined,
  })
  const password = randomBytes(32).toString('hex')
  try {
    const [role] = await sql`select from pg_roles where rolname = ${indexName}`
    const verb = role === undefined ? 'create' : 'alter'
    await sql.unsafe(`${verb} role ${indexName} login password '${password}'`)
    const [database] = await sql`select from pg_database where datname = ${indexName}`
    if (database === undefined) {
      await sql.unsafe(`create database ${indexName} owner ${indexName}`)
    }
  } catch (error) {
    if (!failedWith(error, '28P01')) throw error
    throw new ServerFailed(
      `the password in ${folder} is not that of the PostgreSQL beside it: bring both back from one ` +
        `backup, or ${startAnew(folder)}`,
      { cause: error },
    )
  } finally {
    await sql.end()
  }
  return `postgres://${indexName}:${password}@127.0.0.1:${port}/${indexName}`
}

const indexName = 'stratos'
