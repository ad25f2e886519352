import { randomBytes } from 'node:crypto'
import { chownSync, readFileSync, rmSync, statSync } from 'node:fs'
import { platform } from 'node:os'
import { join } from 'node:path'
import { kill } from 'node:process'
import postgres from 'postgres'
import { failedWith, isAbsent } from '../lib/file-error.ts'
import { writeDurably } from '../lib/files.ts'
import type { Log } from '../lib/log.ts'
import type { PostgresData } from './postgres-data.ts'
import { isRoot } from './postgres-programs.ts'
import { ServerFailed } from './server-failed.ts'

/**
 * Ends the server that a process of ours has left behind when it was killed.
 *
 * `postmaster.pid` in the data says which process that was, on which port. By now the number may be
 * of another process, and the port in the hands of somebody who waits for our password. So
 * - the password goes to that port only while the process works in this very folder;
 * - the process gets a signal only after the server at that port has read out a word that we have just
 *   written into this very folder.
 *
 * @throws ServerFailed for a process that works there and does not prove to be our server, or the
 * reason of an aborted `signal`
 */
export async function endOrphan(
  data: PostgresData,
  { log, signal, waitMs = waitMsDefault }: OrphanOptions,
): Promise<void> {
  const wait = { data, signal, deadline: performance.now() + waitMs }
  const left = readLeft(data.folder)
  if (left !== undefined && isAt(left, data.folder)) {
    if (await isProvenSoon(left, wait)) {
      log.warn('index.postgres.left', { pid: left.pid })
      // Whoever is connected is cut off.
      interrupt(left)
    }
    while (isAt(left, data.folder)) await lookLater(left, wait)
  }
  // Of a server that is no more. It would keep the next one from starting where it is cut off, or where
  // a process of another kind has that number now. Should a server be there all the same, the next one
  // finds the memory that it shares with its processes, and ends.
  rmSync(join(data.folder, pidFile), { force: true })
}

interface OrphanOptions {
  readonly log: Log
  readonly signal?: AbortSignal
  readonly waitMs?: number
}

/** As the server has written it down. */
interface Left {
  readonly pid: number
  readonly port: number
}

const pidFile = 'postmaster.pid'
/** For a server that comes up after a crash, or writes down what it has in memory. */
const waitMsDefault = 60_000
const lookMs = 50

function readLeft(folder: string): Left | undefined {
  let lines: string[]
  try {
    lines = readFileSync(join(folder, pidFile), 'utf8').split('\n')
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
  const [pid, port] = [Number(lines[0]), Number(lines[3])]
  return pid > 1 && port > 0 ? { pid, port } : undefined
}

/**
 * Whether the process is there and works in the folder, as the server always does. Systems other than
 * Linux tell the first alone.
 */
function isAt({ pid }: Left, folder: string): boolean {
  if (platform() !== 'linux') return isThere(pid)
  try {
    const at = statSync(`/proc/${pid}/cwd`)
    const data = statSync(folder)
    return at.dev === data.dev && at.ino === data.ino
  } catch (error) {
    // A process that we may not look into is none of ours.
    if (isAbsent(error) || failedWith(error, 'EACCES', 'EPERM', 'ESRCH')) return false
    throw error
  }
}

function isThere(pid: number): boolean {
  try {
    return kill(pid, 0)
  } catch (error) {
    if (failedWith(error, 'ESRCH', 'EPERM')) return false
    throw error
  }
}

interface Wait {
  readonly data: PostgresData
  readonly deadline: number
  readonly signal: AbortSignal | undefined
}

/** False when it has ended by itself meanwhile. */
async function isProvenSoon(left: Left, wait: Wait): Promise<boolean> {
  while (isAt(left, wait.data.folder)) {
    if (await isProven(left, wait.data)) return true
    await lookLater(left, wait)
  }
  return false
}

async function lookLater({ pid }: Left, { data, deadline, signal }: Wait): Promise<void> {
  signal?.throwIfAborted()
  if (performance.now() < deadline) return await Bun.sleep(lookMs)
  throw new ServerFailed(
    `process ${pid} works in ${data.folder} and does not end: stop it, and start again`,
  )
}

function interrupt({ pid }: Left): void {
  try {
    kill(pid, 'SIGINT')
  } catch (error) {
    if (!failedWith(error, 'ESRCH')) throw error
  }
}

/** False while it does not answer, as when it comes up or goes down. */
async function isProven(left: Left, { folder, password, user }: PostgresData): Promise<boolean> {
  const file = join(folder, wordFile)
  const word = randomBytes(16).toString('hex')
  rmSync(file, { force: true })
  writeDurably(file, word, 0o600)
  if (isRoot()) chownSync(file, user.uid, user.gid)
  const sql = postgres({
    host: '127.0.0.1',
    port: left.port,
    user: 'postgres',
    database: 'postgres',
    password,
    max: 1,
    fetch_types: false,
    connect_timeout: connectSeconds,
    onnotice: () => undefined,
  })
  try {
    const [said] = await sql<{ word: string | null; pid: string | null }[]>`
      select pg_read_file(${wordFile}, 0, 100, true) as word,
        split_part(pg_read_file(${pidFile}), e'\n', 1) as pid`
    return said?.word === word && Number(said.pid) === left.pid
  } catch (error) {
    if (isNotYet(error)) return false
    throw new ServerFailed(
      `process ${left.pid} works in ${folder} and does not prove to be the PostgreSQL of this ` +
        'program: stop it, and start again',
      { cause: error },
    )
  } finally {
    await sql.end({ timeout: 0 })
    rmSync(file, { force: true })
  }
}

const wordFile = 'stratos.word'
const connectSeconds = 5

/** Nobody listens, or the server comes up or goes down. */
function isNotYet(error: unknown): boolean {
  const codes = ['ECONNREFUSED', 'ECONNRESET', 'CONNECTION_CLOSED', 'CONNECT_TIMEOUT']
  return failedWith(error, ...codes, 'CONNECTION_ENDED', 'CONNECTION_DESTROYED', '57P03', '57P01')
}
