import { appendFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { serviceToken as ownToken } from '../../src/remote/service-token.ts'
import { endWithUs } from '../kit/child.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, fieldsOf, isFields, listOf, textOf } from '../kit/xrpc.ts'

type Env = Readonly<Record<string, string>>

const getTimeline = 'zone.stratos.feed.getTimeline'

const fromSources: readonly string[] = [process.execPath, 'src/main.ts', 'all']

/** A process that is service, indexer and AppView, and leaves no PostgreSQL when it was killed. */
export class WholeStratos implements AsyncDisposable {
  readonly stratos: SeededStratos
  readonly #forget: () => void

  private constructor(stratos: SeededStratos) {
    this.stratos = stratos
    this.#forget = endWithUs(() => this.#endPostgres())
  }

  /** Of Ann and Ben in a, and Zoe in b. */
  static async start(env: Env = {}, command = fromSources): Promise<WholeStratos> {
    const stratos = await SeededStratos.start({
      people: { ann: ['a'], ben: ['a'], zoe: ['b'] },
      env,
      around: () => command,
    })
    return new WholeStratos(stratos)
  }

  /** Of the server in the data folder, where there is one. */
  get postgresPid(): number | undefined {
    const data = join(this.stratos.dataFolder, 'index', 'data')
    const notes = join(data, 'postmaster.pid')
    if (!existsSync(notes)) return undefined
    const pid = Number(readFileSync(notes, 'utf8').split('\n')[0])
    if (!(pid > 1)) return undefined
    const [at, folder] = [`/proc/${pid}/cwd`, data].map((path) =>
      statSync(path, { throwIfNoEntry: false }),
    )
    return at !== undefined && at.ino === folder?.ino && at.dev === folder.dev ? pid : undefined
  }

  /** Once there is one, other than `before`. */
  async nextPostgres(before?: number): Promise<number> {
    return await eventually('PostgreSQL', () => {
      const pid = this.postgresPid
      return pid === before ? undefined : pid
    })
  }

  /**
   * Starts the process with a server that waits in its recovery, for an archive that gives nothing.
   * @returns the pid of the server, and what lets the next one start as ever
   */
  async runRecovering(): Promise<{ readonly pid: number; readonly release: () => void }> {
    const data = join(this.stratos.dataFolder, 'index', 'data')
    const mark = join(data, 'recovery.signal')
    const archive = `restore_command = 'touch asked; exec sleep 60'\n`
    appendFileSync(join(data, 'postgresql.auto.conf'), archive)
    writeFileSync(mark, '')
    await this.stratos.run()
    await eventually('recovery', () => (existsSync(join(data, 'asked')) ? true : undefined))
    return { pid: await this.nextPostgres(), release: () => rmSync(mark) }
  }

  async write(name: string, text: string): Promise<void> {
    const { stratos } = this
    const boundary = name === 'zoe' ? 'b' : 'a'
    const record = privatePost(text, [stratos.boundary(boundary)])
    const input = { repo: stratos.person(name).did, collection: postCollection, record }
    const { status } = await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
    if (status !== 200) throw new Error(`createRecord answered ${status}`)
  }

  async timeline(name: string, aud = this.stratos.did): Promise<Answer> {
    const person = this.stratos.person(name)
    const token = await serviceToken(person, { aud, lxm: getTimeline })
    return await this.stratos.call(getTimeline, { authorization: `Bearer ${token}` })
  }

  /** Until a timeline has these texts, newest first. */
  async shows(name: string, texts: readonly string[]): Promise<void> {
    let last: unknown
    try {
      await eventually('posts', async () => {
        const { status, body } = await this.timeline(name)
        last = body
        if (status !== 200) return undefined
        return Bun.deepEquals(textsIn(body), [...texts]) ? true : undefined
      })
    } catch (cause) {
      throw new Error(`the timeline is ${JSON.stringify(last)}\n${this.stratos.log}`, { cause })
    }
  }

  /** What /health says of the index. */
  async index(): Promise<Readonly<Record<string, unknown>>> {
    const health: unknown = await (await fetch(`${this.stratos.url}/health`)).json()
    return fieldsOf(isFields(health) ? health : {}, 'index')
  }

  /** The header of a token of the service itself, or of somebody who says to be it. */
  asItself(lxm: string, key?: ServiceKey): string {
    return tokenOf(this.stratos, lxm, key)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stratos.terminate()
    } finally {
      this.#forget()
      this.#endPostgres()
      await this.stratos.stop()
    }
  }

  #endPostgres(): void {
    const pid = this.postgresPid
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  }
}

/** The header of a token that a service signs for itself, by its key unless another is given. */
export function tokenOf(
  { did, dataFolder }: SeededStratos,
  lxm: string,
  key = ServiceKey.import(readFileSync(join(dataFolder, 'signing_key'), 'utf8').trim()),
): string {
  const iss = parseDid(did)
  return `Bearer ${ownToken(key, { iss, aud: iss, lxm, nowMs: Date.now() })}`
}

function textsIn(body: Answer['body']): string[] {
  return listOf(body, 'feed').map((item) => {
    return textOf(fieldsOf(fieldsOf(item, 'post'), 'record'), 'text')
  })
}
