import { createInterface } from 'node:readline/promises'
import { admin } from './cli/admin.ts'
import type { Surroundings } from './cli/surroundings.ts'
import { type Config, ConfigError, describeVariables, readConfig } from './config.ts'
import { ServerFailed } from './indexer/server-failed.ts'
import { createLog, type Log } from './lib/log.ts'
import { S3Failed } from './store/blob-s3-client.ts'
import { MigrationError } from './store/migrate.ts'
import packageJson from '../package.json' with { type: 'json' }

const { version } = packageJson

const usage = `Stratos ${version}: private, boundary-scoped records for AT Protocol accounts

  stratos serve     run the service
  stratos all       run the service, and beside it an index of it and feeds
  stratos index     follow services, and fill an index with what people write there
  stratos appview   answer feeds from an index, which STRATOS_INDEX_POSTGRES_URL names
  stratos admin     look after a running service; "stratos admin help" lists how
  stratos blobs     move blobs between the data folder and a bucket; "stratos blobs help"
  stratos verify    check an exported repo or the proof of a record; "stratos verify help"
  stratos help      this text
  stratos version   the version alone

Variables of the environment:
`

async function main([command, ...args]: readonly string[]): Promise<void> {
  switch (command) {
    case 'serve':
      return await run(startService)
    case 'all':
      return await run(async (config, around) => {
        const { serveAll } = await import('./serve/all.ts')
        return await serveAll(config, { ...around, ...threads(around.log), atExit })
      })
    case 'index':
      return await run(async (config, around) => {
        const { serveIndexer } = await import('./serve/indexer.ts')
        return await serveIndexer(config, around)
      })
    case 'appview':
      return await run(async (config, around) => {
        const { serveAppView } = await import('./serve/appview.ts')
        return await serveAppView(config, around)
      })
    case 'admin':
      return await answer(0, async (around) => {
        const isTerminal = process.stdin.isTTY && process.stderr.isTTY
        return await admin(args, isTerminal ? { ...around, ask } : around)
      })
    case 'blobs':
      return await answer(0, async (around) => {
        const { blobs } = await import('./cli/blobs.ts')
        return await blobs(args, around)
      })
    case 'verify':
      // Who reads only the beginning must not take it for the verdict.
      return await answer(1, async (around) => {
        const { verify } = await import('./cli/verify.ts')
        return await verify(args, { ...around, stdin: () => Bun.stdin.stream() })
      })
    case undefined:
    case 'help':
    case '--help':
      return print(usage + variableLines())
    case 'version':
    case '--version':
      return print(version)
    default:
      fail(`there is no command ${JSON.stringify(command)}; "stratos help" lists them`)
  }
}

/**
 * Runs a command that ends by itself, with its exit code.
 * @param unread the code when the other end of a pipe has seen enough, as `head` soon has
 */
async function answer(
  unread: 0 | 1,
  command: (around: Surroundings) => Promise<number>,
): Promise<void> {
  process.stdout.on('error', (error) => {
    if ('code' in error && error.code === 'EPIPE') process.exit(unread)
    throw error
  })
  // Not `exit`: what was printed into a pipe may still be on its way.
  process.exitCode = await command({ env: process.env, version, print, tell })
}

interface Started {
  /** Rejects when it cannot go on. */
  readonly failed?: Promise<never>
  stop(): Promise<void>
}

interface Around {
  readonly log: Log
  readonly version: string
}

/** Runs what goes on until a signal ends it. */
async function run(start: (config: Config, around: Around) => Promise<Started>): Promise<void> {
  // Databases hold sessions and private text: nobody else on this machine reads them.
  process.umask(0o077)
  const config = readConfig(process.env)
  const log = createLog(config.logLevel, (line) => process.stderr.write(`${line}\n`))
  // A fault of ours in work that nobody waits for: told like any other, with the service going on.
  process.on('unhandledRejection', (error) => log.error('unhandled', { error }))
  const running = await start(config, { log, version })
  const { promise: signal, resolve } = Promise.withResolvers<string>()
  let isAsked = false
  for (const name of ['SIGTERM', 'SIGINT']) {
    // For good: between two listeners a signal would end it at once.
    process.on(name, () => {
      // Who asks twice does not want to wait.
      if (isAsked) process.exit(1)
      isAsked = true
      resolve(name)
    })
  }
  try {
    log.info('stopping', { signal: await Promise.race([signal, running.failed ?? signal]) })
  } finally {
    // In order, also for whoever cannot go on.
    await running.stop()
    log.info('stopped')
  }
  process.exit(0)
}

async function startService(config: Config, { log, version }: Around) {
  // Not above: what a service needs would hold up every other command.
  const { serve } = await import('./serve.ts')
  return await serve(config, { log, version, ...threads(log) })
}

function atExit(task: () => void): () => void {
  process.once('exit', task)
  return () => void process.off('exit', task)
}

function threads(log: Log) {
  return {
    startWorker: () => new Worker(new URL('./worker.ts', import.meta.url).href),
    died: (name: string, error: unknown): void => {
      log.error('shard.died', { shard: name, error })
      process.exit(70)
    },
  }
}

function variableLines(): string {
  return describeVariables()
    .map(({ name, fallback, text }) => `  ${name}\n      ${text} Default: ${fallback}.`)
    .join('\n')
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

function tell(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** One line from the terminal; empty when it ends without one. */
async function ask(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  const ended = Promise.withResolvers<string>()
  lines.once('close', () => ended.resolve(''))
  try {
    return await Promise.race([lines.question(question), ended.promise])
  } finally {
    lines.close()
  }
}

function fail(message: string): never {
  tell(message)
  process.exit(1)
}

/** What the operator can put right; undefined for what is a fault of ours. */
function hintFor(error: Error): string | undefined {
  if ('code' in error && error.code === 'SQLITE_BUSY') {
    return 'another process uses the data folder; stop it, or set STRATOS_DATA_DIR to another folder'
  }
  if ('syscall' in error && (error.syscall === 'listen' || error.syscall === 'getaddrinfo')) {
    return `${error.message}: set STRATOS_HOST to an address of this machine, STRATOS_PORT to a free port`
  }
  if ('syscall' in error && 'path' in error) {
    return `${error.message}: set STRATOS_DATA_DIR to a folder that this program may write to`
  }
  return undefined
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  if (error instanceof ConfigError) fail(error.problems.join('\n'))
  const isPlain = [MigrationError, S3Failed, ServerFailed].some((kind) => error instanceof kind)
  if (isPlain && error instanceof Error) fail(error.message)
  const hint = error instanceof Error ? hintFor(error) : undefined
  if (hint !== undefined) fail(hint)
  throw error
}
