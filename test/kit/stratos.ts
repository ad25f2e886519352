import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { Child, endWithUs } from './child.ts'
import type { Account, Network } from './network.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { eventually } from './wait.ts'
import { type Answer, type Call, textOf, xrpc } from './xrpc.ts'

export interface StratosOptions {
  readonly network: Network
  /** Bare names of `STRATOS_ALLOWED_DOMAINS`. */
  readonly domains: readonly string[]
  /** Further environment variables; by default enrollment is open. */
  readonly env?: Readonly<Record<string, string>>
  /** What to run; the sources by default, or the built binary with its `serve`. */
  readonly command?: readonly string[]
  /** Where it runs; the project's folder by default. */
  readonly cwd?: string
}

const projectFolder = fileURLToPath(new URL('../../', import.meta.url))
const startMs = 30_000

/** A real Stratos on loopback, with a data folder of its own that outlives restarts. */
export class Stratos implements AsyncDisposable {
  readonly port: number
  readonly adminPassword: string
  readonly dataFolder: string
  /** The service's DID, as its did.json says. */
  did = ''
  readonly #options: StratosOptions
  readonly #forget: () => void
  #child: Child | undefined

  private constructor(options: StratosOptions, port: number, dataFolder: string) {
    this.#options = options
    this.port = port
    this.dataFolder = dataFolder
    this.adminPassword = randomBytes(24).toString('base64url')
    this.#forget = endWithUs(() => {
      rmSync(dataFolder, { recursive: true, force: true })
    })
  }

  static async start(options: StratosOptions): Promise<Stratos> {
    const dataFolder = await mkdtemp(join(tmpdir(), 'stratos-data-'))
    const stratos = new Stratos(options, await freePort(), dataFolder)
    try {
      await stratos.run()
    } catch (error) {
      await stratos.stop()
      throw error
    }
    return stratos
  }

  /** Where people and programs reach it. */
  get url(): string {
    return `http://localhost:${this.port}`
  }

  /** Where browsers reach it. */
  get publicUrl(): string {
    return this.#options.env?.['STRATOS_PUBLIC_URL'] ?? this.url
  }

  /** Its names for browsers, both of the loopback address among them, as hosts with their port. */
  get hosts(): readonly string[] {
    return [new URL(this.publicUrl).host, `localhost:${this.port}`, `127.0.0.1:${this.port}`]
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** All that the running process has logged so far. */
  get log(): string {
    return this.#child?.output ?? ''
  }

  boundary(name: string): string {
    return `${this.did}/${name}`
  }

  /** Starts the process, on the same data and port as before, and waits until it is ready. */
  async run(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const child = new Child({
      command: this.#options.command ?? [process.execPath, 'src/main.ts', 'serve'],
      cwd: this.#options.cwd ?? projectFolder,
      env: { ...this.#environment(), ...env },
    })
    this.#child = child
    await eventually('ready service', () => this.#isReady(child), { withinMs: startMs })
    this.did = textOf(await this.#didDocument(), 'id')
  }

  /** `kill -9`. */
  async kill(): Promise<void> {
    await this.#child?.kill()
  }

  /** Ends the process in order and gives its exit code; the data stay for `run`. */
  async terminate(): Promise<number> {
    return (await this.#child?.stop()) ?? 0
  }

  async stop(): Promise<void> {
    try {
      await this.terminate()
    } finally {
      this.#forget()
      await rm(this.dataFolder, { recursive: true, force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** Calls a method as an account, with a service-auth token fetched from its PDS for this call. */
  async callAs(account: Account, nsid: string, call: Call = {}): Promise<Answer> {
    const { network } = this.#options
    const token = await network.serviceAuth(account, { aud: this.did, lxm: nsid })
    return xrpc(this.url, nsid, { ...call, authorization: `Bearer ${token}` })
  }

  /** Calls a method without credentials, or with those in `call`. */
  call(nsid: string, call: Call = {}): Promise<Answer> {
    return xrpc(this.url, nsid, call)
  }

  callAsAdmin(nsid: string, call: Call = {}): Promise<Answer> {
    const credentials = Buffer.from(`admin:${this.adminPassword}`).toString('base64')
    return xrpc(this.url, nsid, { ...call, authorization: `Basic ${credentials}` })
  }

  async setBoundaries(did: string, names: readonly string[]): Promise<void> {
    const boundaries = names.map((name) => this.boundary(name))
    const answer = await this.callAsAdmin('zone.stratos.admin.setBoundaries', {
      input: { did, boundaries },
    })
    if (answer.status === 200) return
    throw new Error(`setBoundaries answered ${answer.status} ${JSON.stringify(answer.body)}`)
  }

  #environment(): Record<string, string> {
    const { network, domains, env } = this.#options
    return {
      STRATOS_HOST: '127.0.0.1',
      STRATOS_PORT: String(this.port),
      STRATOS_DATA_DIR: this.dataFolder,
      STRATOS_PLC_URL: network.plcUrl,
      STRATOS_HANDLE_RESOLVER_URL: network.pdsUrl,
      STRATOS_ALLOW_PRIVATE_NETWORK: 'true',
      STRATOS_ALLOWED_DOMAINS: domains.join(','),
      STRATOS_ENROLLMENT_MODE: 'open',
      STRATOS_ADMIN_PASSWORD: this.adminPassword,
      STRATOS_DEV_MODE: 'false',
      STRATOS_ANONYMOUS_REQUESTS_PER_MINUTE: '1000000',
      STRATOS_WRITE_RATE_MAX_WRITES: '1000000',
      ...env,
    }
  }

  async #isReady(child: Child): Promise<true | undefined> {
    if (!child.running) throw new Error(`Stratos ended with ${await child.exited}\n${child.output}`)
    try {
      const response = await fetch(`${this.url}/ready`, { signal: AbortSignal.timeout(1000) })
      await response.body?.cancel()
      return response.status === 200 ? true : undefined
    } catch {
      // Nobody listens yet.
      return undefined
    }
  }

  async #didDocument(): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.url}/.well-known/did.json`)
    const document: unknown = await response.json()
    return Object.fromEntries(Object.entries(document ?? {}))
  }
}
