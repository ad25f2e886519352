import { Secp256k1Keypair } from '@atproto/crypto'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Child, endWithUs } from '../kit/child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { isReady, type Person, projectFolder } from '../kit/seeded.ts'
import { serviceToken, type TokenOptions } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, type Call, xrpc } from '../kit/xrpc.ts'
import { Directory } from '../remote/directory.ts'

export interface RunningOptions {
  readonly indexUrl: string
  readonly env?: Readonly<Record<string, string>>
}

/** A real AppView process on loopback, and people whose keys are in the test's hands. */
export class RunningAppView implements AsyncDisposable {
  readonly port: number
  readonly dataFolder: string
  readonly directory = new Directory()
  readonly #options: RunningOptions
  readonly #people = new Map<string, Person>()
  readonly #forget: () => void
  #child: Child | undefined

  private constructor(options: RunningOptions, port: number, dataFolder: string) {
    this.#options = options
    this.port = port
    this.dataFolder = dataFolder
    this.#forget = endWithUs(() => rmSync(dataFolder, { recursive: true, force: true }))
  }

  /** Answers requests, be it that the index is not there. */
  static async start(options: RunningOptions): Promise<RunningAppView> {
    const dataFolder = await mkdtemp(join(tmpdir(), 'stratos-appview-'))
    const appView = new RunningAppView(options, await freePort(), dataFolder)
    try {
      for (const name of ['ann', 'ben', 'zoe']) await appView.add(name)
      await appView.run()
    } catch (error) {
      await appView[Symbol.asyncDispose]()
      throw error
    }
    return appView
  }

  get url(): string {
    return `http://localhost:${this.port}`
  }

  get did(): string {
    return `did:web:localhost%3A${this.port}`
  }

  get log(): string {
    return this.#child?.output ?? ''
  }

  get isRunning(): boolean {
    return this.#child?.running === true
  }

  async run(): Promise<void> {
    const child = new Child({
      command: [process.execPath, 'src/main.ts', 'appview'],
      cwd: projectFolder,
      env: {
        STRATOS_PORT: String(this.port),
        STRATOS_DATA_DIR: this.dataFolder,
        STRATOS_PLC_URL: this.directory.url,
        STRATOS_ALLOW_PRIVATE_NETWORK: 'true',
        STRATOS_INDEX_POSTGRES_URL: this.#options.indexUrl,
        STRATOS_AUTH_FAILURES_PER_MINUTE: '1000000',
        LOG_LEVEL: 'debug',
        ...this.#options.env,
      },
    })
    this.#child = child
    await eventually('answer', async () => {
      if (!child.running) throw new Error(`it ended with ${await child.exited}\n${child.output}`)
      return await fetch(`${this.url}/health`).then(
        () => true as const,
        () => undefined,
      )
    })
  }

  async ready(): Promise<void> {
    const child = this.#child
    if (child === undefined) throw new Error('it does not run')
    await eventually('ready AppView', () => isReady(this.url, child))
  }

  /** Gives its exit code; the data stay for `run`. */
  async terminate(): Promise<number> {
    return (await this.#child?.stop()) ?? 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.terminate()
    } finally {
      this.#forget()
      await this.directory[Symbol.asyncDispose]()
      await rm(this.dataFolder, { recursive: true, force: true })
    }
  }

  person(name: string): Person {
    const person = this.#people.get(name)
    if (person === undefined) throw new Error(`nobody here is called ${name}`)
    return person
  }

  async add(name: string): Promise<Person> {
    const key = await Secp256k1Keypair.create()
    const did = this.directory.add({ didKey: key.did() })
    const person = { did, handle: '', key, bearer: `Bearer ${did}` }
    this.#people.set(name, person)
    return person
  }

  /** The header of a token of `name` for a method behind `zone.stratos.feed.`. */
  async token(name: string, method: string, options: TokenOptions = {}): Promise<string> {
    const claims = { aud: this.did, lxm: `zone.stratos.feed.${method}` }
    return `Bearer ${await serviceToken(this.person(name), claims, options)}`
  }

  async callAs(name: string, method: string, params: Call['params'] = {}): Promise<Answer> {
    return await this.call(method, { params, authorization: await this.token(name, method) })
  }

  async call(method: string, call: Call = {}): Promise<Answer> {
    return await xrpc(this.url, `zone.stratos.feed.${method}`, call)
  }
}
