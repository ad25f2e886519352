import type { Log } from '../lib/log.ts'

/**
 * What a server says, on its way to our log: lines that begin as its messages do. The rest may have
 * statements in it, as what it says of its memory when that runs out.
 */
export class PostgresOutput {
  /** Whether it came to accept connections, or to its end. */
  readonly ready: Promise<boolean>
  /** When nothing more can come. */
  readonly ended: Promise<void>
  readonly #log: Log
  readonly #ready = Promise.withResolvers<boolean>()
  #last: string[] = []
  #minute = 0
  #lines = 0

  constructor(stream: ReadableStream<Uint8Array>, log: Log) {
    this.#log = log
    this.ready = this.#ready.promise
    this.ended = this.#read(stream)
  }

  /** The last lines, for whoever has to find out why it ended. */
  get last(): string {
    return this.#last.join('\n')
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder()
    let rest = ''
    for await (const bytes of stream) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
      rest = (lines.pop() ?? '').slice(0, lineCharsMax)
      for (const line of lines) this.#see(line.slice(0, lineCharsMax))
    }
    if (rest !== '') this.#see(rest)
    this.#ready.resolve(false)
  }

  #see(line: string): void {
    const [, severity, message = ''] = /^([A-Z]+):\s+(.*)$/.exec(line) ?? []
    if (severity === undefined) {
      // As `postgres: could not access directory`, which it says before it knows where to write.
      if (line.startsWith('postgres: ')) this.#keep(line)
      return
    }
    this.#keep(line)
    if (message.endsWith('ready to accept connections')) this.#ready.resolve(true)
    this.#tell(severity, message)
  }

  #keep(line: string): void {
    this.#last = [...this.#last, line].slice(-lastMax)
  }

  /** Whoever can reach the port can make it say something, as that a password was wrong. */
  #tell(severity: string, message: string): void {
    const minute = Math.floor(performance.now() / 60_000)
    if (minute !== this.#minute) [this.#minute, this.#lines] = [minute, 0]
    this.#lines += 1
    if (this.#lines > linesPerMinuteMax) return
    if (this.#lines === linesPerMinuteMax) this.#log.warn('index.postgres.silenced')
    else if (severity === 'LOG') this.#log.info('index.postgres', { message })
    else this.#log.warn('index.postgres', { severity, message })
  }
}

const linesPerMinuteMax = 60
const lastMax = 20
const lineCharsMax = 500
