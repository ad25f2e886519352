import { faultOf, internalFault, refusalFrom, XrpcError } from '../atproto/errors.ts'
import { Schemas } from '../atproto/lexicon.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import { Exports } from './exports.ts'
import { Flow } from './flow.ts'
import { importRepo } from './import.ts'
import type {
  BulkBoot,
  BulkOrder,
  BulkSign,
  ExportAsk,
  ImportAsk,
  Question,
  QuestionAnswers,
} from './messages.ts'

export type Send = (sign: BulkSign) => void

interface Running {
  readonly ended: AbortController
  /** Of an export. */
  readonly flow?: Flow
  /** Of an import that asked something. */
  waiting?: { resolve(answer: unknown): void; readonly reject: (error: Error) => void }
}

type Asked = Extract<BulkOrder, { readonly ask: unknown }>

interface Parts {
  readonly log: Log
  readonly send: Send
  /** Collects garbage: only of a thread for which nobody else waits meanwhile. */
  readonly collect?: () => void
}

/** The long jobs of one thread, side by side: each lets the others go on between its steps. */
export class Jobs {
  readonly #boot: BulkBoot
  readonly #exports: Exports
  readonly #log: Log
  readonly #send: Send
  readonly #running = new Map<number, Running>()
  #schemas: Schemas | undefined
  #timer: ReturnType<typeof setInterval> | undefined
  #closing = false

  constructor(boot: BulkBoot, parts: Parts) {
    this.#boot = boot
    this.#log = parts.log
    this.#send = parts.send
    this.#exports = new Exports(boot, parts.collect ?? (() => undefined))
  }

  receive(order: BulkOrder): void {
    if ('close' in order) this.#close()
    else if ('ask' in order) void this.#run(order)
    else if ('taken' in order) this.#running.get(order.id)?.flow?.taken(order.taken)
    else if ('answer' in order) this.#answered(order.id)?.resolve(order.answer)
    else if ('refusal' in order) this.#answered(order.id)?.reject(refusalFrom(order.refusal))
    else this.#end(order.id, new Cancelled())
  }

  async #run({ id, ask }: Asked): Promise<void> {
    this.#timer ??= setInterval(() => this.#look(), this.#boot.pace.lookEveryMs)
    try {
      if (ask.kind === 'export') await this.#export(id, ask)
      else await this.#import(id, ask)
    } catch (error) {
      this.#fail(id, error, { kind: ask.kind, did: ask.did })
    } finally {
      this.#running.delete(id)
      if (this.#running.size === 0) this.#rest()
    }
  }

  async #export(id: number, ask: ExportAsk): Promise<void> {
    const flow = new Flow(this.#boot.pace, performance.now())
    const ended = new AbortController()
    this.#running.set(id, { flow, ended })
    for await (const piece of this.#exports.pieces(ask, ended.signal)) {
      await flow.room(piece.length, ended.signal)
      this.#send({ id, piece })
    }
    this.#send({ id, end: true })
  }

  async #import(id: number, ask: ImportAsk): Promise<void> {
    const ended = new AbortController()
    this.#running.set(id, { ended })
    this.#schemas ??= new Schemas(JSON.parse(this.#boot.schemas))
    const around = {
      ...this.#boot,
      schemas: this.#schemas,
      log: this.#log,
      lend: () => this.#ask(id, { kind: 'lend' }),
      targets: async (uris: readonly string[]) =>
        (await this.#ask(id, { kind: 'targets', uris })).boundaries,
    }
    const end = await importRepo(ask, around, ended.signal)
    this.#send({ id, end })
  }

  async #ask<Kind extends Question['kind']>(
    id: number,
    question: Extract<Question, { readonly kind: Kind }>,
  ): Promise<QuestionAnswers[Kind]> {
    const running = this.#running.get(id)
    assert(running !== undefined, 'a job that asks is running')
    running.ended.signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<QuestionAnswers[Kind]>()
    running.waiting = { resolve, reject }
    this.#send({ id, question })
    return await promise
  }

  #answered(id: number) {
    const running = this.#running.get(id)
    const waiting = running?.waiting
    if (running !== undefined) delete running.waiting
    return waiting
  }

  #fail(id: number, error: unknown, what: object): void {
    if (error instanceof Cancelled) this.#send({ id, cancelled: true })
    else if (error instanceof XrpcError) {
      // Of its message only the name: that may say what stands in a record.
      this.#log.info('bulk.refused', { ...what, reason: error.error })
      this.#send({ id, fault: faultOf(error) })
    } else {
      this.#log.error('bulk.failed', { ...what, error })
      this.#send({ id, fault: internalFault })
    }
  }

  /** Ends what holds up the log of a database for too long. */
  #look(): void {
    const nowMs = performance.now()
    for (const [id, { flow }] of this.#running) {
      const reason = flow?.check(nowMs)
      if (reason !== undefined) this.#end(id, new XrpcError(408, 'RequestTimeout', reason))
    }
  }

  #end(id: number, reason: Error): void {
    const running = this.#running.get(id)
    running?.ended.abort(reason)
    running?.flow?.wake()
    this.#answered(id)?.reject(reason)
  }

  #rest(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    if (this.#closing) this.#send({ closed: true })
  }

  /** The databases of what runs are closed before the thread may end. */
  #close(): void {
    this.#closing = true
    for (const id of this.#running.keys()) this.#end(id, new Cancelled())
    if (this.#running.size === 0) this.#rest()
  }
}

/** Whoever wanted it does not any more. */
class Cancelled extends Error {
  override readonly name = 'Cancelled'
}
