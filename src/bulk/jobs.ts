import { faultOf, internalFault, XrpcError } from '../atproto/errors.ts'
import type { Log } from '../lib/log.ts'
import { Exports } from './exports.ts'
import type { BulkBoot, BulkOrder, BulkSign } from './messages.ts'
import { Flow } from './flow.ts'

export type Send = (sign: BulkSign) => void

interface Running {
  readonly flow: Flow
  readonly ended: AbortController
}

/** The long jobs of one thread, side by side: each lets the others go on between its steps. */
export class Jobs {
  readonly #exports: Exports
  readonly #log: Log
  readonly #send: Send
  readonly #running = new Map<number, Running>()
  #timer: ReturnType<typeof setInterval> | undefined
  #closing = false

  constructor(boot: BulkBoot, parts: { readonly log: Log; readonly send: Send }) {
    this.#log = parts.log
    this.#send = parts.send
    this.#exports = new Exports(boot.dataDir)
  }

  receive(order: BulkOrder): void {
    if ('close' in order) this.#close()
    else if ('ask' in order) void this.#run(order)
    else if ('taken' in order) this.#running.get(order.id)?.flow.taken(order.taken)
    else this.#end(order.id, new Cancelled())
  }

  async #run({ id, ask }: Extract<BulkOrder, { readonly ask: unknown }>): Promise<void> {
    const flow = new Flow(pace, performance.now())
    const ended = new AbortController()
    this.#running.set(id, { flow, ended })
    this.#timer ??= setInterval(() => this.#look(), lookEveryMs)
    try {
      for await (const piece of this.#exports.pieces(ask, ended.signal)) {
        await flow.room(piece.length)
        ended.signal.throwIfAborted()
        this.#send({ id, piece })
      }
      this.#send({ id, end: true })
    } catch (error) {
      this.#fail(id, error, { kind: ask.kind, did: ask.did })
    } finally {
      this.#running.delete(id)
      if (this.#running.size === 0) this.#rest()
    }
  }

  #fail(id: number, error: unknown, what: object): void {
    if (error instanceof Cancelled) return
    if (error instanceof XrpcError) {
      this.#log.info('bulk.refused', { ...what, reason: error.message })
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
      const reason = flow.check(nowMs)
      if (reason !== undefined) this.#end(id, new XrpcError(408, 'RequestTimeout', reason))
    }
  }

  #end(id: number, reason: Error): void {
    const running = this.#running.get(id)
    running?.ended.abort(reason)
    running?.flow.wake()
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

/** A reader that pins a database's log makes it grow with each write. @see architecture.md, Threads */
const pace = { msMax: 60_000, windowBytesMin: 10 * 256 * 1024, windowMs: 10_000 }
const lookEveryMs = 1_000
