import { eventually, within } from './wait.ts'

export interface ChildOptions {
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly cwd: string
  /** Whether it ends in order by itself when its standard input does; others are killed. */
  readonly watchesStdin?: true
}

/** Output kept of one child: enough to see why it failed. */
const outputCharsMax = 1_000_000
const stopMs = 15_000

/**
 * A process that does not outlive this one, however this one ends: by itself, by a failed test
 * or by a signal. Its standard input is a pipe that closes with us.
 */
export class Child {
  readonly exited: Promise<number>
  readonly #process: Bun.Subprocess<'pipe', 'pipe', 'pipe'>
  readonly #firstLine = Promise.withResolvers<string>()
  #output = ''

  constructor({ command, env = {}, cwd, watchesStdin }: ChildOptions) {
    this.#process = Bun.spawn([...command], {
      cwd,
      env: { ...inherited(), ...env },
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    this.exited = this.#process.exited
    const collected = [this.#collect(this.#process.stdout), this.#collect(this.#process.stderr)]
    const release = endWithUs(() => {
      if (watchesStdin !== true) this.#process.kill('SIGKILL')
    })
    void Promise.all([this.exited, ...collected]).then(([code]) => {
      release()
      this.#firstLine.reject(new Error(`${command.join(' ')} ended with ${code}\n${this.output}`))
    })
    // Most callers never ask for the line; an ending child is no error of theirs.
    this.#firstLine.promise.catch(() => undefined)
  }

  get pid(): number {
    return this.#process.pid
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** All it wrote, both streams. */
  get output(): string {
    return this.#output
  }

  /** The first line on standard output. */
  firstLine(withinMs: number): Promise<string> {
    return within(withinMs, 'first line', this.#firstLine.promise)
  }

  /** Writes a line to its standard input and waits until it has echoed that. */
  async tell(line: string): Promise<void> {
    const before = this.#output.length
    await this.#process.stdin.write(`${line}\n`)
    await this.#process.stdin.flush()
    await eventually(`echo of ${line}`, () =>
      this.#output.slice(before).includes(`${line}\n`) ? true : undefined,
    )
  }

  /** Asks it to end by SIGTERM and gives its exit code; kills it when it does not listen. */
  async stop(): Promise<number> {
    if (this.running) this.#process.kill('SIGTERM')
    try {
      return await within(stopMs, `end of process ${this.pid}`, this.exited)
    } catch (cause) {
      await this.kill()
      throw new Error(`it had to be killed; its output:\n${this.output}`, { cause })
    }
  }

  /** `kill -9`: it runs no line more. */
  async kill(): Promise<void> {
    if (this.running) this.#process.kill('SIGKILL')
    await this.exited
  }

  async #collect(stream: ReadableStream<Uint8Array>): Promise<void> {
    const isStdout = stream === this.#process.stdout
    let line = ''
    const decoder = new TextDecoder()
    for await (const bytes of stream) {
      const text = decoder.decode(bytes, { stream: true })
      this.#output = (this.#output + text).slice(-outputCharsMax)
      if (!isStdout) continue
      line += text
      const end = line.indexOf('\n')
      if (end >= 0) this.#firstLine.resolve(line.slice(0, end))
    }
  }
}

/** Settings of whoever runs the tests must not reach the services under test. */
function inherited(): Record<string, string> {
  const kept = ['PATH', 'HOME', 'TMPDIR'].map((name) => [name, process.env[name] ?? ''] as const)
  return Object.fromEntries(kept.filter(([, value]) => value !== ''))
}

/** Runs `finish` when this process ends in any way that can be noticed. @returns how to forget it */
export function endWithUs(finish: () => void): () => void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // A signal nobody handles ends the process without its `exit` event.
    if (process.listenerCount(signal) === 0) process.once(signal, () => process.exit(130))
  }
  process.once('exit', finish)
  return () => {
    process.off('exit', finish)
  }
}
