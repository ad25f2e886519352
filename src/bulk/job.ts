import { refusalFrom } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { BulkOrder, BulkSign, Imported, JobAsk, Question } from './messages.ts'

type WithoutId<Message> = Message extends { readonly id: number } ? Omit<Message, 'id'> : never
export type JobOrder = WithoutId<BulkOrder>
export type JobSign = Extract<BulkSign, { readonly id: number }>

/** What a job has to say before it is over. */
type Said =
  | { readonly piece: Uint8Array<ArrayBuffer> }
  | { readonly question: Question }
  | { readonly end: Imported | true }

interface Parts {
  readonly post: (order: JobOrder) => void
  /** The thread has nothing more to do with it. */
  readonly over: () => void
}

/** One job, as its caller sees it. */
export class Job {
  readonly did: Did
  readonly #parts: Parts
  readonly #over = Promise.withResolvers<void>()
  #state: 'new' | 'running' | 'over' = 'new'
  #said: Said[] = []
  #error: Error | undefined
  #waiting: (() => void) | undefined

  constructor(did: Did, parts: Parts) {
    this.did = did
    this.#parts = parts
  }

  /** @throws what it was failed with before */
  start(ask: JobAsk): void {
    if (this.#error !== undefined) throw this.#error
    this.#state = 'running'
    this.#parts.post({ ask })
  }

  post(order: JobOrder): void {
    if (this.#state === 'running') this.#parts.post(order)
  }

  receive(sign: JobSign): void {
    if ('piece' in sign || 'question' in sign) this.#said.push(sign)
    else {
      if ('end' in sign) this.#said.push(sign)
      if ('fault' in sign) this.#error ??= refusalFrom(sign.fault)
      this.#finish()
    }
    this.#wake()
  }

  /** What comes next. @throws XrpcError where the job failed, or was made to */
  async next(): Promise<Said> {
    for (;;) {
      const said = this.#said.shift()
      if (said !== undefined) return said
      if (this.#error !== undefined) throw this.#error
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting = resolve
      await promise
    }
  }

  /** Ends it for a reason that its caller is to be told. What it said is forgotten. */
  fail(error: Error): void {
    this.#error ??= error
    this.#said = []
    if (this.#state === 'running') this.#parts.post({ cancel: true })
    if (this.#state === 'new') this.#finish()
    this.#wake()
  }

  /** When the thread has finished with it, well or badly. */
  async over(): Promise<void> {
    await this.#over.promise
  }

  #finish(): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.#over.resolve()
    this.#parts.over()
  }

  #wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }
}
