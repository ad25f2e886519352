import type { Log } from '../lib/log.ts'
import type { JobSign } from './job.ts'
import { Jobs } from './jobs.ts'
import type { BulkBoot, BulkOrder, BulkSign } from './messages.ts'

/** Where jobs run: in a thread of their own, or on the one of the caller. */
interface Place {
  post(order: BulkOrder): void
  end(): void
}

type Receive = (sign: BulkSign) => void
export type OpenPlace = (receive: Receive) => Place

export interface Threads {
  readonly startWorker: () => Worker
  /** The thread ended by itself: the process must end. */
  readonly died: (name: string, error: unknown) => void
}

/** One such place, from its opening to its end. */
export class Lane {
  readonly #place: Place
  readonly #closed = Promise.withResolvers<void>()

  constructor(open: OpenPlace, receive: (id: number, sign: JobSign) => void) {
    this.#place = open((sign) => {
      if ('closed' in sign) this.#closed.resolve()
      else receive(sign.id, sign)
    })
  }

  post(order: BulkOrder): void {
    this.#place.post(order)
  }

  /** Ends what runs, and then the place. */
  async close(): Promise<void> {
    this.#place.post({ close: true })
    await this.#closed.promise
    this.#place.end()
  }
}

export function inWorker(boot: BulkBoot, { startWorker, died }: Threads): OpenPlace {
  return (receive) => {
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
}

export function inline(boot: BulkBoot, log: Log): OpenPlace {
  return (send) => {
    const jobs = new Jobs(boot, { log, send })
    return { post: (order) => jobs.receive(order), end: () => undefined }
  }
}
