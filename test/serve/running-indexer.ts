import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { Child, endWithUs } from '../kit/child.ts'
import { projectFolder } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, isFields, listOf } from '../kit/xrpc.ts'

type Fields = Readonly<Record<string, unknown>>

/** An AppView by its document alone: as whom indexers of a test read. */
export class Reader implements AsyncDisposable {
  readonly key = ServiceKey.generate()
  readonly #server: Bun.Server<undefined>

  constructor() {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () => Response.json(this.#document()),
    })
  }

  get did(): string {
    return `did:web:localhost%3A${this.#server.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  #document() {
    const { did } = this
    const publicKeyMultibase = this.key.did.slice('did:key:'.length)
    const method = { id: `${did}#atproto`, type: 'Multikey', controller: did, publicKeyMultibase }
    return { id: did, verificationMethod: [method] }
  }
}

interface Wanted {
  readonly reader: Reader
  readonly indexUrl: string
  /** As `STRATOS_INDEX_SERVICES` has them. */
  readonly services: string
  readonly env?: Readonly<Record<string, string>>
}

/** A real process that fills an index. */
export class RunningIndexer implements AsyncDisposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'stratos-indexer-'))
  readonly #child: Child
  readonly #port: number
  readonly #forget: () => void

  private constructor(port: number, { reader, indexUrl, services, env }: Wanted) {
    this.#port = port
    this.#forget = endWithUs(() => rmSync(this.#folder, { recursive: true, force: true }))
    this.#child = new Child({
      command: [process.execPath, 'src/main.ts', 'index'],
      cwd: projectFolder,
      env: {
        STRATOS_PORT: String(port),
        STRATOS_DATA_DIR: this.#folder,
        STRATOS_SERVICE_DID: reader.did,
        STRATOS_SIGNING_KEY_HEX: reader.key.exportHex(),
        STRATOS_ALLOW_PRIVATE_NETWORK: 'true',
        STRATOS_INDEX_POSTGRES_URL: indexUrl,
        STRATOS_INDEX_SERVICES: services,
        LOG_LEVEL: 'debug',
        ...env,
      },
    })
  }

  /** Answers, be it that it is not ready. */
  static async start(wanted: Wanted): Promise<RunningIndexer> {
    const indexer = new RunningIndexer(await freePort(), wanted)
    try {
      await eventually('answer', async () => await indexer.#answers())
    } catch (error) {
      await indexer[Symbol.asyncDispose]()
      throw error
    }
    return indexer
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  get log(): string {
    return this.#child.output
  }

  /** What /health says of the index. */
  async state(): Promise<Fields> {
    return fieldsOf((await this.#get('health')).body, 'index')
  }

  /** Once the index plays this part. */
  async plays(role: string): Promise<void> {
    await eventually(`index that is ${role}`, async () =>
      (await this.state())['role'] === role ? true : undefined,
    )
  }

  /** What /ready says, once its status is this. */
  async ready(status: 200 | 503): Promise<{ readonly role: unknown; readonly services: Fields[] }> {
    return await eventually(`readiness ${status}`, async () => {
      const answer = await this.#get('ready')
      if (answer.status !== status) return undefined
      const index = fieldsOf(answer.body, 'index')
      return { role: index['role'], services: 'services' in index ? listOf(index, 'services') : [] }
    })
  }

  async kill(): Promise<void> {
    await this.#child.kill()
  }

  async terminate(): Promise<number> {
    return await this.#child.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.terminate()
    } finally {
      this.#forget()
      rmSync(this.#folder, { recursive: true, force: true })
    }
  }

  async #answers(): Promise<true | undefined> {
    if (!this.#child.running) throw new Error(`it ended\n${this.log}`)
    return await this.#get('health').then(
      () => true as const,
      () => undefined,
    )
  }

  async #get(path: string): Promise<{ readonly status: number; readonly body: Fields }> {
    const response = await fetch(`${this.url}/${path}`)
    const body: unknown = await response.json()
    return { status: response.status, body: isFields(body) ? body : {} }
  }
}
