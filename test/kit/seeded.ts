import { Secp256k1Keypair } from '@atproto/crypto'
import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import type { Did } from '../../src/atproto/syntax.ts'
import { Directory } from '../remote/directory.ts'
import { Child, endWithUs } from './child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { seed } from './seed.ts'
import { eventually } from './wait.ts'
import { type Answer, type Call, listOf, textOf, xrpc, xrpcResponse } from './xrpc.ts'

/** Somebody with a DID in the test's PLC directory, and its key in the test's hands. */
export interface Person {
  readonly did: Did
  readonly handle: string
  readonly key: Secp256k1Keypair
  /** The development bearer. */
  readonly bearer: string
}

export interface SeededOptions {
  /** Names of people who are enrolled, each with the bare names of their boundaries. */
  readonly people: Readonly<Record<string, readonly string[]>>
  /** Names of more people who are enrolled nowhere. */
  readonly strangers?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Makes the command that runs the service's own one. */
  readonly around?: (command: readonly string[]) => readonly string[]
}

export const projectFolder = fileURLToPath(new URL('../../', import.meta.url))
const startMs = 30_000

/**
 * A real service process in development mode, with people put into its data folder instead of
 * enrolled through a PDS: it starts in half a second. Its boundaries are a, b and c.
 */
export class SeededStratos implements AsyncDisposable {
  readonly port: number
  readonly dataFolder: string
  readonly adminPassword = randomBytes(24).toString('base64url')
  readonly directory = new Directory()
  readonly #people = new Map<string, Person>()
  readonly #handles: Bun.Server<undefined>
  readonly #forget: () => void
  readonly #options: SeededOptions
  #child: Child | undefined

  private constructor(port: number, dataFolder: string, options: SeededOptions) {
    this.port = port
    this.dataFolder = dataFolder
    this.#options = options
    this.#handles = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => this.#resolveHandle(request),
    })
    this.#forget = endWithUs(() => rmSync(dataFolder, { recursive: true, force: true }))
  }

  static async start(options: SeededOptions): Promise<SeededStratos> {
    const { people, strangers = [] } = options
    const dataFolder = await mkdtemp(join(tmpdir(), 'stratos-seeded-'))
    const stratos = new SeededStratos(await freePort(), dataFolder, options)
    try {
      const enrolled = []
      for (const [name, boundaries] of Object.entries(people)) {
        const { did } = await stratos.#add(name)
        enrolled.push({ did, boundaries: boundaries.map((bare) => stratos.boundary(bare)) })
      }
      // Without people the folder is left to the service.
      if (enrolled.length > 0) await seed(dataFolder, stratos.did, enrolled)
      // Known to the directory, and enrolled nowhere.
      for (const name of ['stranger', ...strangers]) await stratos.#add(name)
      await stratos.run()
    } catch (error) {
      await stratos.stop()
      throw error
    }
    return stratos
  }

  get url(): string {
    return `http://localhost:${this.port}`
  }

  get did(): string {
    return `did:web:localhost%3A${this.port}`
  }

  /** All that the running process has logged so far. */
  get log(): string {
    return this.#child?.output ?? ''
  }

  get adminBasic(): string {
    return basic('admin', this.adminPassword)
  }

  /** Where handles are looked up. */
  get handlesUrl(): string {
    return `http://127.0.0.1:${this.#handles.port}`
  }

  boundary(bare: string): string {
    return `${this.did}/${bare}`
  }

  person(name: string): Person {
    const person = this.#people.get(name)
    if (person === undefined) throw new Error(`nobody here is called ${name}`)
    return person
  }

  /** Starts the process, on the same data and port as before, and waits until it is ready. */
  async run(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const command = [process.execPath, 'src/main.ts', 'serve']
    const child = new Child({
      command: this.#options.around?.(command) ?? command,
      cwd: projectFolder,
      env: { ...this.environment(), ...env },
    })
    this.#child = child
    await eventually('ready service', () => isReady(this.url, child), {
      withinMs: startMs,
      everyMs: 10,
    })
  }

  /** Sends a signal that ends the process, and gives its exit code; the data stay for `run`. */
  async terminate(signal: 'SIGTERM' | 'SIGINT' | 'SIGUSR2' = 'SIGTERM'): Promise<number> {
    const child = this.#child
    if (child === undefined) return 0
    if (signal === 'SIGTERM') return await child.stop()
    if (child.running) process.kill(child.pid, signal)
    return await child.exited
  }

  /** `kill -9`, also while it starts; the data stay for `run`. */
  async kill(): Promise<void> {
    await this.#child?.kill()
  }

  async stop(): Promise<void> {
    try {
      await this.terminate()
    } finally {
      this.#forget()
      await this.directory[Symbol.asyncDispose]()
      await this.#handles.stop(true)
      await rm(this.dataFolder, { recursive: true, force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  call(nsid: string, call: Call = {}): Promise<Answer> {
    return xrpc(this.url, nsid, call)
  }

  /** Calls as somebody by the development bearer. */
  callAs(name: string, nsid: string, call: Call = {}): Promise<Answer> {
    return this.call(nsid, { ...call, authorization: this.person(name).bearer })
  }

  async setBoundaries(name: string, bare: readonly string[]): Promise<void> {
    const boundaries = bare.map((one) => this.boundary(one))
    const answer = await this.call('zone.stratos.admin.setBoundaries', {
      input: { did: this.person(name).did, boundaries },
      authorization: this.adminBasic,
    })
    if (answer.status !== 200) throw new Error(`setBoundaries answered ${answer.status}`)
  }

  /** Somebody's boundaries as the operator sees them, qualified. */
  async boundariesOf(name: string): Promise<string[]> {
    const call = { params: { did: this.person(name).did }, authorization: this.adminBasic }
    const { body } = await this.call('zone.stratos.enrollment.status', call)
    return listOf(body, 'boundaries').map((boundary) => textOf(boundary, 'value'))
  }

  /** A hash of all repos, commits and records: it differs after any change to any of them. */
  async snapshot(): Promise<string> {
    const hash = new Bun.SHA256()
    for (const { did } of this.#people.values()) {
      const call = { params: { did }, authorization: this.adminBasic }
      const response = await xrpcResponse(this.url, 'zone.stratos.sync.getRepo', call)
      hash.update(await response.bytes())
    }
    return hash.digest('hex')
  }

  async #add(name: string) {
    const key = await Secp256k1Keypair.create()
    const handle = `${name}.test`
    const did = this.directory.add({ didKey: key.did(), handle })
    this.#people.set(name, { did, handle, key, bearer: `Bearer ${did}` })
    return { did }
  }

  /** The directory of handles: both directions must agree. */
  #resolveHandle(request: Request): Response {
    const handle = new URL(request.url).searchParams.get('handle')
    const person = [...this.#people.values()].find((one) => one.handle === handle)
    if (person !== undefined) return Response.json({ did: person.did })
    return Response.json({ error: 'HandleNotFound', message: 'nobody' }, { status: 400 })
  }

  /** The settings of its process. */
  environment(): Record<string, string> {
    return {
      STRATOS_PORT: String(this.port),
      STRATOS_DATA_DIR: this.dataFolder,
      STRATOS_PLC_URL: this.directory.url,
      STRATOS_HANDLE_RESOLVER_URL: this.handlesUrl,
      STRATOS_ALLOW_PRIVATE_NETWORK: 'true',
      STRATOS_ALLOWED_DOMAINS: 'a,b,c',
      STRATOS_ADMIN_PASSWORD: this.adminPassword,
      STRATOS_DEV_MODE: 'true',
      STRATOS_SHARDS: '1',
      // Tests write and are refused more than people, and all of them come from one address.
      STRATOS_AUTH_FAILURES_PER_MINUTE: '1000000',
      STRATOS_ANONYMOUS_REQUESTS_PER_MINUTE: '1000000',
      STRATOS_WRITE_RATE_MAX_WRITES: '1000000',
      ...this.#options.env,
    }
  }
}

export function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
}

/** @throws once the process has ended */
export async function isReady(url: string, child: Child): Promise<true | undefined> {
  if (!child.running) throw new Error(`it ended with ${await child.exited}\n${child.output}`)
  try {
    const response = await fetch(`${url}/ready`, { signal: AbortSignal.timeout(1000) })
    await response.body?.cancel()
    return response.status === 200 ? true : undefined
  } catch {
    // Nobody listens yet.
    return undefined
  }
}
