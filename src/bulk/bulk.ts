import { faultOf, internalFault, overloaded, XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert, unreachable } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { Targets } from '../service/targets.ts'
import type { Head } from '../store/actor-change.ts'
import { Job } from './job.ts'
import { inline, inWorker, Lane, type OpenPlace, type Threads } from './lane.ts'
import type {
  BulkBoot,
  BulkOrder,
  ExportAsk,
  ImportAsk,
  Imported,
  Question,
  QuestionAnswers,
} from './messages.ts'

/** What an import needs of others while it runs. */
export interface Lenders {
  /** Leaves the repo to the import, whose owner writes nothing until it is given back. */
  readonly lend: () => Promise<{ readonly head: Head; readonly vouched: number }>
  readonly giveBack: () => Promise<void>
  readonly targets: (uris: readonly string[]) => Promise<Targets>
}

/**
 * The main side of long jobs. Their thread starts with the first of them, and ends when there was
 * none for a while: its memory is of no use then.
 */
export class Bulk {
  readonly #open: OpenPlace
  readonly #idleMs: number
  readonly #jobs = new Map<number, Job>()
  /** Each until what it borrowed is given back. */
  readonly #imports = new Map<Did, { readonly job: Job; readonly end: Promise<Imported> }>()
  #lane: Lane | undefined
  #nextId = 1
  #idle: ReturnType<typeof setTimeout> | undefined
  #closed = false

  private constructor({ idleMs }: BulkBoot, open: OpenPlace) {
    this.#idleMs = idleMs
    this.#open = open
  }

  static inWorker(boot: BulkBoot, threads: Threads): Bulk {
    return new Bulk(boot, inWorker(boot, threads))
  }

  /** Runs jobs on this thread. */
  static inline(boot: BulkBoot, log: Log): Bulk {
    return new Bulk(boot, inline(boot, log))
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
      await job.ready()
      return streamOf(job)
    } catch (error) {
      job.fail(left())
      throw error
    }
  }

  /** Fills an empty repo. @throws XrpcError with nothing changed */
  async import(ask: Omit<ImportAsk, 'kind'>, lenders: Lenders): Promise<Imported> {
    const { did } = ask
    assert(!this.#imports.has(did), 'a repo is filled by one import at a time')
    const job = this.#begin(did)
    const end = this.#import(job, ask, lenders)
    this.#imports.set(did, { job, end })
    try {
      return await end
    } finally {
      this.#imports.delete(did)
    }
  }

  async #import(job: Job, ask: Omit<ImportAsk, 'kind'>, lenders: Lenders): Promise<Imported> {
    let lent = false
    const lend = async () => {
      const head = await lenders.lend()
      lent = true
      return head
    }
    try {
      job.start({ kind: 'import', ...ask })
      return await answering(job, { ...lenders, lend })
    } catch (error) {
      job.fail(left())
      throw error
    } finally {
      // What it wrote is undone, or for good, before anybody else writes there.
      await job.over()
      if (lent) await lenders.giveBack()
    }
  }

  /** Ends the jobs of a repo whose owner leaves: nothing more of it is given away. */
  stop(did: Did): void {
    for (const job of this.#jobs.values()) if (job.did === did) job.fail(gone())
  }

  /** Ends an import of somebody about whom it knows what no longer holds. */
  interrupt(did: Did): void {
    this.#imports.get(did)?.job.fail(overloaded('your membership changed meanwhile, try again'))
  }

  /** Ends all jobs, and waits until their databases are closed. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#idle)
    const jobs = [...this.#jobs.values()]
    for (const job of jobs) job.fail(stopping())
    await Promise.all(jobs.map((job) => job.over()))
    await Promise.allSettled([...this.#imports.values()].map(({ end }) => end))
    await this.#lane?.close()
  }

  #begin(did: Did): Job {
    if (this.#closed) throw stopping()
    const id = this.#nextId++
    const job = new Job(did, {
      post: (order) => this.#post({ id, ...order }),
      over: () => {
        this.#jobs.delete(id)
        if (this.#jobs.size > 0) return
        this.#idle = setTimeout(() => this.#rest(), this.#idleMs)
        this.#idle.unref()
      },
    })
    clearTimeout(this.#idle)
    this.#jobs.set(id, job)
    return job
  }

  #post(order: BulkOrder): void {
    this.#lane ??= new Lane(this.#open, (id, sign) => this.#jobs.get(id)?.receive(sign))
    this.#lane.post(order)
  }

  #rest(): void {
    const lane = this.#lane
    this.#lane = undefined
    void lane?.close()
  }
}

function streamOf(job: Job): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const said = await job.next()
        if (!('piece' in said)) return controller.close()
        job.post({ taken: said.piece.length })
        controller.enqueue(said.piece)
      },
      cancel: () => job.fail(left()),
    },
    { highWaterMark: 0 },
  )
}

/** Answers what an import asks, until it has ended. */
async function answering(job: Job, lenders: Lenders): Promise<Imported> {
  for (;;) {
    const said = await job.next()
    if ('question' in said) {
      try {
        job.post({ answer: await answerTo(said.question, lenders) })
      } catch (error) {
        job.post({ refusal: error instanceof XrpcError ? faultOf(error) : internalFault })
        if (!(error instanceof XrpcError)) throw error
      }
    } else {
      assert('end' in said && said.end !== true, 'an import has a result')
      return said.end
    }
  }
}

async function answerTo(
  question: Question,
  { lend, targets }: Lenders,
): Promise<QuestionAnswers[Question['kind']]> {
  switch (question.kind) {
    case 'lend':
      return await lend()
    case 'targets':
      return { boundaries: await targets(question.uris) }
    default:
      return unreachable(question)
  }
}

function left(): XrpcError {
  return new XrpcError(400, 'InvalidRequest', 'nobody waits for this any more')
}

function gone(): XrpcError {
  return new XrpcError(404, 'RepoNotFound', 'the owner of this repo leaves')
}

function stopping(): XrpcError {
  const headers = { 'retry-after': '5' }
  return new XrpcError(503, 'Overloaded', 'the service is stopping', { headers })
}
