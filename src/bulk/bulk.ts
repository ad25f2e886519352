import { refusalFrom, XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Jobs } from './jobs.ts'
import type { BulkBoot, BulkOrder, BulkSign, ExportAsk } from './messages.ts'

/** Where jobs run: in a thread of their own, or on the one of the caller. */
interface Lane {
  post(order: BulkOrder): void
  end(): void
}

interface Threads {
  readonly startWorker: () => Worker
  /** The thread ended by itself: the process must end. */
  readonly died: (name: string, error: unknown) => void
}

/**
 * The main side of long jobs. Their thread starts with the first of them, and ends when there was
 * none for a while: its memory is of no use then.
 */
export class Bulk {
  readonly #open: (receive: (sign: BulkSign) => void) => Lane
  readonly #jobs = new Map<number, Job>()
  #lane: OpenLane | undefined
  #nextId = 1
  #idle: ReturnType<typeof setTimeout> | undefined
  #closed = false

  private constructor(open: (receive: (sign: BulkSign) => void) => Lane) {
    this.#open = open
  }

  static inWorker(boot: BulkBoot, threads: Threads): Bulk {
    return new Bulk((receive) => workerLane({ boot, ...threads }, receive))
  }

  /** Runs jobs on this thread. */
  static inline(boot: BulkBoot, log: Log): Bulk {
    return new Bulk((send) => {
      const jobs = new Jobs(boot, { log, send })
      return { post: (order) => jobs.receive(order), end: () => undefined }
    })
  }

  /**
   * The CAR of a repo, as fast as it is read.
   * @param settled brings the database up to date and tells the signing key
   * @throws XrpcError before the first piece; a stream that fails later breaks off
   */
  async export(
    ask: Omit<ExportAsk, 'kind' | 'signingKey'>,
    settled: () => Promise<{ readonly signingKey: string }>,
  ): Promise<ReadableStream<Uint8Array>> {
    const job = this.#begin(ask.did)
    try {
      const { signingKey } = await settled()
      job.start({ kind: 'export', ...ask, signingKey })
      const first = await job.next()
      return streamOf(job, first)
    } catch (error) {
      job.end()
      throw error
    }
  }

  /** Ends the jobs of a repo whose owner leaves: nothing more of it is given away. */
  stop(did: Did): void {
    for (const job of this.#jobs.values()) if (job.did === did) job.fail(gone())
  }

  /** Ends all jobs, and waits until their databases are closed. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#idle)
    for (const job of this.#jobs.values()) job.fail(closing())
    await this.#lane?.close()
  }

  #begin(did: Did): Job {
    if (this.#closed) throw closing()
    const id = this.#nextId++
    const job = new Job(did, {
      post: (order) => this.#post({ id, ...order }),
      ended: () => {
        this.#jobs.delete(id)
        if (this.#jobs.size > 0) return
        this.#idle = setTimeout(() => this.#rest(), idleMs)
        this.#idle.unref()
      },
    })
    clearTimeout(this.#idle)
    this.#jobs.set(id, job)
    return job
  }

  #post(order: BulkOrder): void {
    this.#lane ??= new OpenLane(this.#open, (id, sign) => this.#jobs.get(id)?.receive(sign))
    this.#lane.post(order)
  }

  #rest(): void {
    const lane = this.#lane
    this.#lane = undefined
    void lane?.close()
  }
}

type JobOrder = BulkOrder extends infer Order
  ? Order extends { readonly id: number }
    ? Omit<Order, 'id'>
    : never
  : never
type JobSign = Extract<BulkSign, { readonly id: number }>

/** One job, as its caller sees it. */
class Job {
  readonly did: Did
  readonly #post: (order: JobOrder) => void
  readonly #ended: () => void
  readonly #pieces: Uint8Array[] = []
  #state: 'running' | 'done' | 'over' = 'running'
  #started = false
  #error: Error | undefined
  #waiting: (() => void) | undefined

  constructor(
    did: Did,
    parts: { readonly post: (order: JobOrder) => void; readonly ended: () => void },
  ) {
    this.did = did
    this.#post = parts.post
    this.#ended = parts.ended
  }

  start(ask: ExportAsk): void {
    if (this.#error !== undefined) throw this.#error
    this.#started = true
    this.#post({ ask })
  }

  receive(sign: JobSign): void {
    if ('piece' in sign) this.#pieces.push(sign.piece)
    else {
      this.#state = 'done'
      if ('fault' in sign) this.#error = refusalFrom(sign.fault)
      this.#ended()
    }
    this.#waiting?.()
  }

  /** The next piece, and undefined after the last one. */
  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      const piece = this.#pieces.shift()
      if (piece !== undefined) {
        if (this.#state === 'running') this.#post({ taken: piece.length })
        return piece
      }
      if (this.#error !== undefined) throw this.#error
      if (this.#state !== 'running') return undefined
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting = resolve
      await promise
    }
  }

  fail(error: Error): void {
    this.#error ??= error
    this.end()
  }

  /** Nobody takes anything more of it. */
  end(): void {
    this.#pieces.length = 0
    if (this.#state === 'running') {
      this.#state = 'over'
      if (this.#started) this.#post({ cancel: true })
      this.#ended()
    }
    this.#waiting?.()
  }
}

function streamOf(job: Job, first: Uint8Array | undefined): ReadableStream<Uint8Array> {
  let next = first
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const piece = next ?? (await job.next())
        next = undefined
        if (piece === undefined) controller.close()
        else controller.enqueue(piece)
      },
      cancel: () => job.end(),
    },
    { highWaterMark: 0 },
  )
}

/** A lane from its opening to its end. */
class OpenLane {
  readonly #lane: Lane
  readonly #closed = Promise.withResolvers<void>()

  constructor(
    open: (receive: (sign: BulkSign) => void) => Lane,
    receive: (id: number, sign: JobSign) => void,
  ) {
    this.#lane = open((sign) => {
      if ('closed' in sign) this.#closed.resolve()
      else receive(sign.id, sign)
    })
  }

  post(order: BulkOrder): void {
    this.#lane.post(order)
  }

  async close(): Promise<void> {
    this.#lane.post({ close: true })
    await this.#closed.promise
    this.#lane.end()
  }
}

function workerLane(
  { boot, startWorker, died }: Threads & { readonly boot: BulkBoot },
  receive: (sign: BulkSign) => void,
): Lane {
  const worker = startWorker()
  let ending = false
  worker.addEventListener('message', ({ data }: MessageEvent<BulkSign>) => receive(data))
  worker.addEventListener('error', (event) => died('bulk', event.message))
  worker.addEventListener('close', () => {
    if (!ending) died('bulk', 'the thread ended')
  })
  worker.postMessage(boot)
  return {
    post: (order) => worker.postMessage(order),
    end: () => {
      ending = true
      worker.terminate()
    },
  }
}

function gone(): XrpcError {
  return new XrpcError(404, 'RepoNotFound', 'the owner of this repo leaves')
}

function closing(): XrpcError {
  return new XrpcError(503, 'Overloaded', 'the service is stopping', {
    headers: { 'retry-after': '5' },
  })
}

/** The thread of the next job starts in some 100 ms. */
const idleMs = 30_000
