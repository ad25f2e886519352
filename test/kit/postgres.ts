import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { type Durability, prepareData } from '../../src/indexer/postgres-data.ts'
import { PostgresProcess, type ProcessOptions } from '../../src/indexer/postgres-process.ts'
import { PostgresPrograms } from '../../src/indexer/postgres-programs.ts'
import { failedWith } from '../../src/lib/file-error.ts'
import { createLog } from '../../src/lib/log.ts'
import { endWithUs } from './child.ts'

/** A real server on loopback, in a folder of its own that goes with it. */
export class PostgresServer implements AsyncDisposable {
  #process: PostgresProcess
  readonly #options: ProcessOptions
  readonly #held: AsyncDisposableStack
  #databases = 0

  private constructor(
    process: PostgresProcess,
    options: ProcessOptions,
    held: AsyncDisposableStack,
  ) {
    this.#process = process
    this.#options = options
    this.#held = held
  }

  /** @param durability `synced` for measurements: else a power cut could cost what was stored */
  static async start(durability: Durability = 'unsynced'): Promise<PostgresServer> {
    await using starting = new AsyncDisposableStack()
    const folder = mkdtempSync(join(tmpdir(), 'stratos-postgres-'))
    starting.defer(() => rmSync(folder, { recursive: true, force: true }))
    const programs = starting.use(PostgresPrograms.prepare(folder, endWithUs))
    const data = await prepareData(folder, { programs, durability })
    const settings = durability === 'unsynced' ? ['fsync=off', 'full_page_writes=off'] : []
    const log = createLog('silent', () => undefined)
    const options = { programs, data, log, settings }
    const process = await PostgresProcess.start(options)
    const release = endWithUs(() => {
      running.abandon()
      programs[Symbol.dispose]()
      removeAtLast(folder)
    })
    starting.defer(release)
    const running = new PostgresServer(process, options, starting.move())
    return running
  }

  /** `kill -9`; what was stored is there again after `restart`. */
  async kill(): Promise<void> {
    process.kill(this.#process.pid, 'SIGKILL')
    await this.#process.ended
  }

  /** On the same data and port as before. */
  async restart(): Promise<void> {
    this.#process = await PostgresProcess.start({ ...this.#options, port: this.#process.port })
  }

  /** A new, empty database. @returns its URL */
  async database(): Promise<string> {
    const name = `test_${++this.#databases}`
    const sql = postgres(this.#url('postgres'), { max: 1 })
    try {
      await sql.unsafe(`create database ${name}`)
    } finally {
      await sql.end()
    }
    return this.#url(name)
  }

  abandon(): void {
    this.#process.abandon('SIGQUIT')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]()
    await this.#held.disposeAsync()
  }

  #url(name: string): string {
    return `postgres://postgres:${this.#options.data.password}@127.0.0.1:${this.#process.port}/${name}`
  }
}

/** Of a server that is about to end: until it has, it goes on writing. */
function removeAtLast(folder: string): void {
  for (let tries = 0; tries < 50 && existsSync(folder); tries++) {
    try {
      rmSync(folder, { recursive: true, force: true })
    } catch (error) {
      if (!failedWith(error, 'ENOTEMPTY', 'ENOENT')) throw error
    }
    Bun.sleepSync(20)
  }
}
