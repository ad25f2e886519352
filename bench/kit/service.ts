import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { endWithUs } from '../../test/kit/child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { diskBytes, residentMb } from './process.ts'

/** The checkout that this file belongs to. */
export const ownRoot = fileURLToPath(new URL('../../', import.meta.url))
const readyMs = 30_000

/** What a service is run from: a checkout, by default this one, or a built binary. */
export interface Build {
  readonly root?: string | undefined
  readonly binary?: string | undefined
}

/**
 * A data folder, and the service process that a bench measures on it. Neither outlives the bench,
 * however it ends.
 */
export class Service implements AsyncDisposable {
  readonly port: number
  readonly dataDir: string
  readonly #forget: () => void
  #process: Bun.Subprocess | undefined

  private constructor(port: number, dataDir: string) {
    this.port = port
    this.dataDir = dataDir
    this.#forget = endWithUs(() => {
      this.#process?.kill('SIGKILL')
      rmSync(dataDir, { recursive: true, force: true })
    })
  }

  static async prepare(): Promise<Service> {
    return new Service(await freePort(), await mkdtemp(join(tmpdir(), 'stratos-bench-')))
  }

  get url(): string {
    return `http://localhost:${this.port}`
  }

  get did(): string {
    return `did:web:localhost%3A${this.port}`
  }

  get pid(): number {
    if (this.#process === undefined) throw new Error('the service is not running')
    return this.#process.pid
  }

  /** @returns milliseconds from the start of the process to its first answer */
  async start(env: Readonly<Record<string, string>>, build: Build = {}): Promise<number> {
    const { binary, root = ownRoot } = build
    const command = binary === undefined ? [process.execPath, join(root, 'src/main.ts')] : [binary]
    const startedAt = performance.now()
    this.#process = Bun.spawn([...command, 'serve'], {
      env: {
        PATH: process.env['PATH'] ?? '',
        STRATOS_PORT: String(this.port),
        STRATOS_DATA_DIR: this.dataDir,
        STRATOS_DEV_MODE: 'true',
        LOG_LEVEL: 'error',
        // A bench does what the limits are there to prevent.
        STRATOS_ANONYMOUS_REQUESTS_PER_MINUTE: '1000000',
        STRATOS_WRITE_RATE_MAX_WRITES: '1000000',
        STRATOS_WRITE_RATE_WINDOW_MS: '1000',
        ...env,
      },
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    for (const end = startedAt + readyMs; performance.now() < end;) {
      const ready = await fetch(`${this.url}/ready`).catch(() => undefined)
      if (ready?.ok === true) return performance.now() - startedAt
      if (this.#process.exitCode !== null) throw new Error('the service ended before it was ready')
      await Bun.sleep(2)
    }
    throw new Error(`the service did not become ready within ${readyMs} ms`)
  }

  async stop(): Promise<void> {
    this.#process?.kill('SIGTERM')
    await this.#process?.exited
    this.#process = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    await rm(this.dataDir, { recursive: true, force: true })
    this.#forget()
  }

  residentMb(): number {
    return residentMb(this.pid)
  }

  async diskBytes(): Promise<number> {
    return await diskBytes(this.dataDir)
  }
}
