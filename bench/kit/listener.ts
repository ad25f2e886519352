import { fileURLToPath } from 'node:url'
import { endWithUs } from '../../test/kit/child.ts'
import { linesOf } from './lines.ts'
import type { Heard, ListenPlan } from './listen-plan.ts'

const script = fileURLToPath(new URL('listen.ts', import.meta.url))

/** A process that reads streams. It does not outlive the bench. */
export class Listener implements AsyncDisposable {
  readonly #process: Bun.Subprocess<'pipe', 'pipe', 'pipe'>
  readonly #failure: Promise<string>
  readonly #forget: () => void
  readonly #lines: AsyncIterator<string>

  private constructor() {
    this.#process = Bun.spawn([process.execPath, script], {
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    this.#failure = new Response(this.#process.stderr).text()
    this.#forget = endWithUs(() => this.#process.kill('SIGKILL'))
    this.#lines = linesOf(this.#process.stdout)[Symbol.asyncIterator]()
  }

  /** Resolves when all its sockets are open, and were told who is enrolled. */
  static async start(plan: ListenPlan): Promise<Listener> {
    const listener = new Listener()
    await using starting = new AsyncDisposableStack()
    starting.use(listener)
    await listener.#process.stdin.write(`${JSON.stringify(plan)}\n`)
    await listener.#process.stdin.flush()
    await listener.#expect('ready')
    starting.move()
    return listener
  }

  get pid(): number {
    return this.#process.pid
  }

  /** Resolves when all commits are there. @throws with what it said, when anything was wrong */
  async heard(): Promise<Heard> {
    await this.#expect('done')
    await this.#process.stdin.end()
    return JSON.parse(await this.#line())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#process.exited
    this.#forget()
  }

  async #expect(word: string): Promise<void> {
    const line = await this.#line()
    if (line !== word) throw new Error(`the readers said ${line}, not ${word}`)
  }

  async #line(): Promise<string> {
    const { done, value } = await this.#lines.next()
    if (done !== true) return value
    throw new Error(`the readers ended: ${await this.#failure}`)
  }
}
