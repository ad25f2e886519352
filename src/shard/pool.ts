import { overloaded, refusalFrom } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { ActorAnswers, ActorCall } from '../service/calls.ts'
import { Engine } from './engine.ts'
import type { EventPush, ShardBoot, ShardMessage, WorkerOrder, WorkerSign } from './messages.ts'
import { splitReplies } from './replies.ts'

/** Where one shard runs: in a worker thread, or inline on the thread of the caller. */
interface Lane {
  /** @param batch JSON array of numbered requests */
  post(batch: string): void
  follow(following: boolean): void
  close(): Promise<void>
}

interface Waiting {
  /** What it is counted under. */
  readonly counter: string
  readonly bytes: number
  /** The shard answers each kind of call in its own shape. */
  resolve(answer: unknown): void
  readonly reject: (error: Error) => void
}

/** The main side of the shards: routes each call to the owner of its actor, within limits. */
export class ShardPool {
  readonly #shards: readonly Shard[]

  private constructor(shards: readonly Shard[]) {
    this.#shards = shards
  }

  /**
   * Starts one worker thread for each boot. A worker that ends by itself calls `died`, and the
   * process must end: a second owner of its actors could not know what the first one did.
   */
  static async inWorkers(
    boots: readonly ShardBoot[],
    threads: { readonly start: () => Worker; readonly died: Died },
  ): Promise<ShardPool> {
    const ready: Promise<void>[] = []
    const shards = boots.map(
      (boot) =>
        new Shard((receive) => {
          const lane = new WorkerLane(boot, threads.start(), { receive, died: threads.died })
          ready.push(lane.ready)
          return lane
        }),
    )
    await Promise.all(ready)
    return new ShardPool(shards)
  }

  /** Runs the same engine on this thread. */
  static inline(boot: ShardBoot, parts: { schemas: Schemas; log: Log }): ShardPool {
    return new ShardPool([new Shard((receive) => new InlineLane(boot, { ...parts, receive }))])
  }

  /** @throws XrpcError of the shard, or 503 Overloaded when too much is in flight */
  async call<Call extends ActorCall>(
    did: Did,
    requestId: string,
    call: Call,
  ): Promise<ActorAnswers[Call['kind']]> {
    return await this.#owner(did).call(did, requestId, call)
  }

  #owner(did: Did): Shard {
    // The remainder comes first: a hash of 64 bits loses its lowest ones as a number.
    const index = Number(Bun.hash(did) % BigInt(this.#shards.length))
    const shard = this.#shards[index]
    assert(shard !== undefined, 'a pool has at least one shard')
    return shard
  }

  /**
   * From now on `pushed` gets what any actor does once it is stored, until this is called without.
   * What was stored before stands in the logs for whoever asks after this.
   */
  follow(pushed: Pushed | undefined): void {
    for (const shard of this.#shards) shard.follow(pushed)
  }

  /** Waits for what is in flight, then closes the databases. */
  async close(): Promise<void> {
    await Promise.all(this.#shards.map((shard) => shard.close()))
  }
}

/** Gets what is stored, with its frames one after another. */
export type Pushed = (push: EventPush, bytes: Uint8Array<ArrayBuffer>) => void

type Died = (name: string, error: unknown) => void

/** Calls of one shard that wait for an answer; beyond this 503. */
const inFlightMax = 1_000
const inFlightBytesMax = 32 * 1024 * 1024
/** Reads and writes of one actor are counted apart: readers must not keep its owner from writing. */
const inFlightOfActorMax = 64

/** Calls that people cause; those of the service itself are bounded where they are made. */
const limited: ReadonlySet<ActorCall['kind']> = new Set([
  'write',
  'read',
  'prove',
  'head',
  'list',
  'hydrate',
  'targets',
  'collections',
  'settle',
  'events',
  'ops',
])

/** What gives a repo back to its owner is never refused: nothing else would, until the next start. */
const alwaysTaken: ReadonlySet<ActorCall['kind']> = new Set(['stay', 'return'])

function counterOf(did: Did, kind: ActorCall['kind']): string {
  if (!limited.has(kind)) return `service ${did}`
  return kind === 'write' ? `write ${did}` : `read ${did}`
}

class Shard {
  readonly #lane: Lane
  readonly #waiting = new Map<number, Waiting>()
  readonly #byActor = new Map<string, number>()
  #bytes = 0
  #nextId = 1
  #batch: string[] = []

  #pushed: Pushed = () => undefined

  constructor(start: (receive: (message: ShardMessage) => void) => Lane) {
    this.#lane = start((message) => this.#receive(message))
  }

  follow(pushed: Pushed | undefined): void {
    this.#pushed = pushed ?? (() => undefined)
    this.#lane.follow(pushed !== undefined)
  }

  async call<Call extends ActorCall>(
    did: Did,
    requestId: string,
    call: Call,
  ): Promise<ActorAnswers[Call['kind']]> {
    const counter = counterOf(did, call.kind)
    const ofActor = this.#byActor.get(counter) ?? 0
    const id = this.#nextId++
    const text = JSON.stringify({ id, did, requestId, ...call })
    const full = this.#waiting.size >= inFlightMax || this.#bytes + text.length > inFlightBytesMax
    if (full && !alwaysTaken.has(call.kind)) throw overloaded('the service is busy, try again')
    if (ofActor >= inFlightOfActorMax && limited.has(call.kind)) {
      throw overloaded('too many requests for this account at once, try again')
    }
    const { promise, resolve, reject } = Promise.withResolvers<ActorAnswers[Call['kind']]>()
    this.#waiting.set(id, { counter, bytes: text.length, resolve, reject })
    this.#byActor.set(counter, ofActor + 1)
    this.#bytes += text.length
    this.#batch.push(text)
    // Alone, a call goes at once; beside others it waits for those of its tick.
    if (this.#waiting.size === 1) this.#flush()
    else if (this.#batch.length === 1) setImmediate(() => this.#flush())
    return await promise
  }

  async close(): Promise<void> {
    this.#flush()
    await this.#lane.close()
  }

  #flush(): void {
    if (this.#batch.length === 0) return
    const batch = this.#batch
    this.#batch = []
    this.#lane.post(`[${batch.join(',')}]`)
  }

  #receive(message: ShardMessage): void {
    if (typeof message !== 'string') {
      if ('push' in message) this.#pushed(message.push, message.bytes)
      else {
        const { id, ...answer } = message
        this.#settle(id)?.resolve(answer)
      }
      return
    }
    for (const reply of splitReplies(message)) {
      const waiting = this.#settle(reply.id)
      if ('ok' in reply) waiting?.resolve(reply.ok)
      else {
        waiting?.reject(refusalFrom(reply.error))
      }
    }
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    if (waiting === undefined) return undefined
    this.#waiting.delete(id)
    this.#bytes -= waiting.bytes
    const left = (this.#byActor.get(waiting.counter) ?? 1) - 1
    if (left === 0) this.#byActor.delete(waiting.counter)
    else this.#byActor.set(waiting.counter, left)
    return waiting
  }
}

class InlineLane implements Lane {
  readonly #engine: Engine

  constructor(
    boot: ShardBoot,
    parts: { schemas: Schemas; log: Log; receive: (message: ShardMessage) => void },
  ) {
    const { schemas, log, receive } = parts
    this.#engine = new Engine(boot, { schemas, log, send: receive })
  }

  post(batch: string): void {
    this.#engine.receive(batch)
  }

  follow(following: boolean): void {
    this.#engine.follow(following)
  }

  async close(): Promise<void> {
    await this.#engine.close()
  }
}

class WorkerLane implements Lane {
  readonly ready: Promise<void>
  readonly #worker: Worker
  readonly #closed = Promise.withResolvers<void>()
  #closing = false

  constructor(
    boot: ShardBoot,
    worker: Worker,
    parts: { receive: (message: ShardMessage) => void; died: Died },
  ) {
    const ready = Promise.withResolvers<void>()
    this.ready = ready.promise
    this.#worker = worker
    this.#worker.addEventListener(
      'message',
      ({ data }: MessageEvent<ShardMessage | WorkerSign>) => {
        if (typeof data === 'string' || 'bytes' in data) parts.receive(data)
        else if (data.sign === 'ready') ready.resolve()
        else this.#closed.resolve()
      },
    )
    this.#worker.addEventListener('error', (event) => parts.died(boot.name, event.message))
    this.#worker.addEventListener('close', () => {
      if (!this.#closing) parts.died(boot.name, 'the thread ended')
      this.#closed.resolve()
    })
    this.#worker.postMessage(boot)
  }

  post(batch: string): void {
    this.#order(batch)
  }

  follow(following: boolean): void {
    this.#order({ follow: following })
  }

  async close(): Promise<void> {
    this.#closing = true
    this.#order({ close: true })
    await this.#closed.promise
    this.#worker.terminate()
  }

  #order(order: WorkerOrder): void {
    this.#worker.postMessage(order)
  }
}
