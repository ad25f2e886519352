import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../test/kit/port.ts'

const root = fileURLToPath(new URL('../', import.meta.url))
/** Of Linux, as `getconf CLK_TCK` says. */
const ticksPerSecond = 100
const readyMs = 30_000

/** A data folder, and the service process that a bench measures on it, from source or built. */
export class Service implements AsyncDisposable {
  readonly port: number
  readonly dataDir: string
  #process: Bun.Subprocess | undefined

  private constructor(port: number, dataDir: string) {
    this.port = port
    this.dataDir = dataDir
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

  /** @returns milliseconds from the start of the process to its first answer */
  async start(env: Readonly<Record<string, string>>, binary?: string): Promise<number> {
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
  }

  /** User and system time so far. */
  cpuSeconds(): number {
    const fields = this.#proc('stat').split(') ')[1]?.split(' ') ?? []
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
  }

  residentMb(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(this.#proc('status'))?.[1]) / 1024
  }

  async diskMb(): Promise<number> {
    let bytes = 0
    for (const name of await readdir(this.dataDir, { recursive: true })) {
      bytes += (await stat(join(this.dataDir, name))).size
    }
    return bytes / 1024 / 1024
  }

  #proc(file: string): string {
    return readFileSync(`/proc/${this.#process?.pid}/${file}`, 'utf8')
  }
}
