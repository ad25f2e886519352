import { refusalFrom } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
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
  /** Its thread has finished with it, and its caller has heard all, or is to hear nothing more. */
  readonly over: () => void
}

/** One job, as its caller sees it. */
export class Job {
  readonly did: Did
  readonly #parts: Parts
  readonly #over = Promise.withResolvers<void>()
  #state: 'new' | 'running' | 'over' = 'new'
  #said: Said[] = []
  #hasLeft = false
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
    if ('fault' in sign) this.#forget(refusalFrom(sign.fault))
    else if (!('cancelled' in sign) && this.#error === undefined) this.#said.push(sign)
    if (!('piece' in sign || 'question' in sign)) this.#finish()
    this.#wake()
  }

  /** Until there is something to hear. @throws XrpcError where the job failed, or was made to */
  async ready(): Promise<void> {
    while (this.#said.length === 0 && this.#error === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting = resolve
      await promise
    }
    if (this.#error !== undefined) throw this.#error
  }

  /** What comes next. @throws XrpcError as `ready` does */
  async next(): Promise<Said> {
    await this.ready()
    const said = this.#said.shift()
    assert(said !== undefined, 'what is ready was said')
    this.#leave()
    return said
  }

  /** Ends it for a reason that its caller is to be told, instead of all that was not heard yet. */
  fail(error: Error): void {
    this.#forget(error)
    if (this.#state === 'running') this.#parts.post({ cancel: true })
    if (this.#state === 'new') this.#finish()
    this.#leave()
    this.#wake()
  }

  /** When the thread has finished with it, well or badly. */
  async over(): Promise<void> {
    await this.#over.promise
  }

  #forget(error: Error): void {
    this.#error ??= error
    this.#said = []
  }

  #finish(): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.#over.resolve()
    this.#leave()
  }

  #leave(): void {
    if (this.#state !== 'over' || this.#said.length > 0 || this.#hasLeft) return
    this.#hasLeft = true
    this.#parts.over()
  }

  #wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }
}
