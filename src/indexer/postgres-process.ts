import { freePort } from '../lib/free-port.ts'
import type { Log } from '../lib/log.ts'
import { unlessAborted } from '../lib/pause.ts'
import type { PostgresData } from './postgres-data.ts'
import type { PostgresPrograms, ServerProcess } from './postgres-programs.ts'
import { PostgresOutput } from './postgres-output.ts'
import { ServerFailed } from './server-failed.ts'

export interface ProcessOptions {
  readonly programs: PostgresPrograms
  readonly data: PostgresData
  readonly log: Log
  /** Of `postgresql.conf`, as `name=value`. */
  readonly settings: readonly string[]
  /** A free one where none is named. */
  readonly port?: number
  /** Ends the start, and what was started, in order. */
  readonly signal?: AbortSignal
}

/** A server on a port of loopback. Disposing of it ends it in order. */
export class PostgresProcess implements AsyncDisposable {
  readonly port: number
  /** What it said last, when it has ended, however that was. */
  readonly ended: Promise<string>
  readonly #server: ServerProcess

  private constructor(server: ServerProcess, port: number, ended: Promise<string>) {
    this.#server = server
    this.port = port
    this.ended = ended
  }

  /**
   * Gives one that accepts connections.
   * @throws ServerFailed, or the reason of an aborted `signal` once nothing is left of it
   */
  static async start(options: ProcessOptions): Promise<PostgresProcess> {
    const deadline = performance.now() + retryMsMax
    for (;;) {
      await using starting = new AsyncDisposableStack()
      const port = options.port ?? (await freePort())
      options.signal?.throwIfAborted()
      const server = run(options, port)
      const output = new PostgresOutput(server.stderr, options.log)
      const ended = Promise.all([server.exited, output.ended]).then(() => output.last)
      const started = starting.use(new PostgresProcess(server, port, ended))
      const late = setTimeout(() => server.kill('SIGQUIT'), startMsMax)
      const isReady = await unlessAborted(output.ready, options.signal).finally(() =>
        clearTimeout(late),
      )
      if (isReady) {
        starting.move()
        return started
      }
      const last = await ended
      if (!passing.test(last) || performance.now() > deadline) throw refused(options, last)
      await Bun.sleep(retryMs)
    }
  }

  get pid(): number {
    return this.#server.pid
  }

  /**
   * Tells it to end, and does not wait for it: for one's own last moment.
   * @param how `SIGINT` in order, `SIGQUIT` at once, so that its next start takes longer
   */
  abandon(how: 'SIGINT' | 'SIGQUIT'): void {
    this.#server.kill(how)
  }

  /** Without waiting for those who are still connected. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
      this.#server.kill(signal)
      const late = Promise.withResolvers<'late'>()
      const timer = setTimeout(() => late.resolve('late'), stopMs[signal])
      const first = await Promise.race([this.#server.exited, late.promise])
      clearTimeout(timer)
      if (first !== 'late') return
    }
  }
}

function run({ programs, data, settings }: ProcessOptions, port: number): ServerProcess {
  return programs.run({
    program: 'postgres',
    user: data.user,
    given: [data.folder],
    args: (folder) => [
      '-D',
      folder,
      ...[...address, `port=${port}`, ...discreet, ...settings].flatMap((each) => ['-c', each]),
    ],
  })
}

/** Nobody else reaches it by a socket in a folder for all. */
const address = ['listen_addresses=127.0.0.1', 'unix_socket_directories=']
/** Its log is ours: it has no statement and nothing of what people write, errors of one included. */
const discreet = [
  'log_destination=stderr',
  'logging_collector=off',
  'log_line_prefix=',
  'log_timezone=UTC',
  'timezone=UTC',
  // Those of a statement are less than these.
  'log_min_messages=log',
  'log_min_error_statement=panic',
  // Else they have what was found in the rows.
  'log_error_verbosity=terse',
  'log_statement=none',
  'log_min_duration_statement=-1',
  'log_checkpoints=off',
  'log_autovacuum_min_duration=-1',
]

/**
 * The port was taken by somebody else since it was free, or processes of the server before this one are
 * not at their end yet.
 */
const passing = /could not create any TCP\/IP sockets|shared memory block .* is still in use/
const retryMs = 100
const retryMsMax = 15_000
/** After a crash it goes through what was written since the last checkpoint. */
const startMsMax = 180_000
/** The last of them cannot be kept waiting for. */
const stopMs = { SIGINT: 30_000, SIGQUIT: 10_000, SIGKILL: 10_000 }

function refused({ data }: ProcessOptions, last: string): ServerFailed {
  return new ServerFailed(
    `PostgreSQL does not start in ${data.folder}: put right what it says, and start again\n${last}`,
  )
}
