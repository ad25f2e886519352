import { statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import postgres from 'postgres'
import { EmbeddedPostgres } from '../../src/indexer/embedded-postgres.ts'
import { createLog } from '../../src/lib/log.ts'
import { Child, endWithUs } from '../kit/child.ts'
import { eventually } from '../kit/wait.ts'
import { isFields } from '../kit/xrpc.ts'

/** A folder for a server of the index, and all servers that are started in it. */
export class IndexFolder implements AsyncDisposable {
  readonly path: string
  readonly data: string
  /** What the servers of this process have logged. */
  readonly lines: string[] = []
  readonly #root: string
  readonly #running: EmbeddedPostgres[] = []
  readonly #children: { readonly child: Child; pid: number }[] = []

  private constructor(root: string) {
    this.#root = root
    this.path = join(root, 'index')
    this.data = join(this.path, 'data')
  }

  static async make(): Promise<IndexFolder> {
    return new IndexFolder(await mkdtemp(join(tmpdir(), 'stratos-index-')))
  }

  async start(signal = new AbortController().signal): Promise<EmbeddedPostgres> {
    const log = createLog('debug', (line) => this.lines.push(line))
    const options = { folder: this.path, log, signal, atExit: endWithUs }
    const server = await EmbeddedPostgres.start(options)
    this.#running.push(server)
    return server
  }

  /** In a process of its own, by `script` of `project`. */
  async startChild({ project, script, tmp }: Place = ours): Promise<StartedChild> {
    const child = new Child({
      command: [process.execPath, script, this.path],
      cwd: project,
      ...(tmp === undefined ? {} : { env: { TMPDIR: tmp } }),
    })
    const known = { child, pid: 0 }
    this.#children.push(known)
    const said: unknown = JSON.parse(await child.firstLine(60_000))
    if (!isFields(said)) throw new Error('the child said nothing')
    known.pid = Number(said['pid'])
    return { child, pid: known.pid, url: String(said['url']) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#running) await server[Symbol.asyncDispose]()
    for (const { child, pid } of this.#children) {
      await child.stop()
      if (pid > 1 && worksIn(pid, this.data)) process.kill(pid, 'SIGKILL')
    }
    await rm(this.#root, { recursive: true, force: true })
  }
}

export interface StartedChild {
  readonly child: Child
  /** Of its server. */
  readonly pid: number
  readonly url: string
}

/** Of a script that starts a server. */
export interface Place {
  readonly project: string
  readonly script: string
  /** Its folder for temporary files, where that is another one. */
  readonly tmp?: string
}

const ours: Place = {
  project: fileURLToPath(new URL('../../', import.meta.url)),
  script: fileURLToPath(import.meta.resolve('./embedded-child.ts')),
}

/** What one statement gives, by a connection of its own. */
export async function ask(url: string, statement: string): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined })
  try {
    return [...(await sql.unsafe(statement).values())].flat()
  } finally {
    // It would wait for a connection that the server has ended.
    await sql.end({ timeout: 0 })
  }
}

/** Until the process is no more. */
export async function gone(pid: number): Promise<void> {
  await eventually(`end of process ${pid}`, () => (isThere(pid) ? undefined : true))
}

export function isThere(pid: number): boolean {
  return statSync(`/proc/${pid}/cwd/.`, { throwIfNoEntry: false }) !== undefined
}

function worksIn(pid: number, folder: string): boolean {
  const at = statSync(`/proc/${pid}/cwd`, { throwIfNoEntry: false })
  const found = statSync(folder, { throwIfNoEntry: false })
  return at !== undefined && at.ino === found?.ino && at.dev === found.dev
}
