import { enrollmentRkey } from '../atproto/enrollment.ts'
import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { sleep, unlessAborted } from '../lib/pause.ts'
import { FetchFailed, FetchRefused } from '../remote/fetch.ts'
import type { IndexSql } from './database.ts'
import { firehoseCursor, keepFirehoseCursor } from './firehose-cursor.ts'
import { decodeFirehoseFrame, type EnrollmentOp } from './firehose-frame.ts'
import { readSocket, type SocketEnd, type SocketOptions } from './firehose-socket.ts'
import type { FirehoseUrl } from './firehose-url.ts'
import { FrameError } from './frame-reader.ts'
import { type Hint, HintQueue } from './hint-queue.ts'
import { failureKind, reasonOf } from './refusal.ts'

export interface FirehoseParts {
  /** Of the operator's choice. */
  readonly at: FirehoseUrl
  /** All that hints may name; nobody else is asked because of what a stream says. */
  readonly services: ReadonlySet<Did>
  /** Where the cursor is kept. */
  readonly sql: IndexSql
  readonly log: Log
  /** Done when the hint is with somebody who will not lose it; a refused one is told again. */
  readonly tell: (hint: Hint, signal: AbortSignal) => Promise<void>
  readonly allowPrivateNetwork: boolean
  readonly lookup?: SocketOptions['lookup']
  readonly now?: () => number
  readonly timing?: Partial<FirehoseTiming>
}

export interface FirehoseTiming {
  readonly saveMs: number
  /** In which an account gives one hint of a service. */
  readonly windowMs: number
  readonly silenceMs: number
  readonly answerMs: number
  readonly againMs: number
  readonly againMsMax: number
}

/** What came so far, for the operator. */
export interface FirehoseCounts {
  readonly connections: number
  readonly events: number
  /** Frames that could not be read, and were passed over. */
  readonly broken: number
  readonly hints: number
}

/**
 * Follows `com.atproto.sync.subscribeRepos` of a PDS or relay for accounts that enroll with one of
 * some services, or leave it. It tells of each that comes after the cursor at least once, however
 * connections, this process and the index end. Invariants:
 *
 * - A cursor is kept only of an event whose hints were told, and so were those of all before it.
 * - The stream goes on from the last event that was seen, unless there was no room for its hints:
 *   then it is read again from before that event, once all others were told.
 *
 * For example: events 7 and 9 have hints, 7 was told and 9 is under way. The cursor is 8; killed now,
 * the next process begins after 8 and tells 9 once more.
 * @see protocol.md, sections 4.3 and 10
 */
export class Firehose {
  readonly #parts: FirehoseParts
  readonly #timing: FirehoseTiming
  readonly #byRkey: ReadonlyMap<string, Did>
  readonly #queue: HintQueue
  readonly #counts = { connections: 0, events: 0, broken: 0, hints: 0 }
  /** The last event whose hints are in the queue, or were told. */
  #seen: number | undefined
  #saved: number | undefined
  #isRead = false

  constructor(parts: FirehoseParts) {
    const { services, tell, log, at } = parts
    this.#parts = parts
    this.#timing = { ...timingDefaults, ...parts.timing }
    this.#byRkey = new Map([...services].map((did) => [enrollmentRkey(did), did]))
    this.#queue = new HintQueue({
      tell,
      refused: ({ did, service }, error) =>
        log.warn('firehose.hint.refused', { firehose: at.name, did, service, error }),
      windowMs: this.#timing.windowMs,
      hintsMax,
    })
  }

  get counts(): FirehoseCounts {
    return { ...this.#counts }
  }

  /** Ends when `signal` is aborted, at once. @throws where the index is not as it should be */
  async run(signal: AbortSignal): Promise<void> {
    const stopping = new AbortController()
    const all = AbortSignal.any([signal, stopping.signal])
    let failure: { readonly error: unknown } | undefined
    const tasks = [this.#queue.run(all), this.#follow(all), this.#keep(all)].map((task) =>
      task.catch((error: unknown) => {
        if (!all.aborted) failure = { error }
        // None of them goes on without the others.
        stopping.abort()
      }),
    )
    await Promise.all(tasks)
    if (failure !== undefined) throw failure.error
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { log, at } = this.#parts
    let failures = 0
    while (!signal.aborted) {
      const { events } = this.#counts
      const end = await this.#connection(signal)
      if (signal.aborted) return
      failures = this.#counts.events > events ? 0 : failures + 1
      log.warn('firehose.ended', { firehose: at.name, why: end.text, ...this.#counts })
      const { againMs: firstMs, againMsMax: mostMs } = this.#timing
      const wait = { attempt: failures, firstMs, mostMs, random: Math.random() }
      await sleep(backoffMs(wait), signal)
      if (end === noRoom || end === begunAnew) await this.#queue.drained(signal)
      // Numbers of before say nothing of the new ones.
      if (end === begunAnew) this.#seen = undefined
    }
  }

  async #connection(signal: AbortSignal): Promise<SocketEnd> {
    const { at, sql, allowPrivateNetwork, lookup } = this.#parts
    const { silenceMs, answerMs } = this.#timing
    const common = { allowPrivateNetwork, silenceMs, answerMs }
    const options = lookup === undefined ? common : { ...common, lookup }
    try {
      if (!this.#isRead) this.#seen = await unlessAborted(firehoseCursor(sql, at.name), signal)
      this.#isRead = true
      const from = { url: at.url, cursor: this.#seen }
      this.#counts.connections += 1
      return await readSocket(from, (frame) => this.#take(frame), { options, signal })
    } catch (error) {
      if (!isPassing(error)) throw error
      return { text: whyOf(error) }
    }
  }

  async #keep(signal: AbortSignal): Promise<void> {
    const { sql, at, log, now = Date.now } = this.#parts
    for (;;) {
      await sleep(this.#timing.saveMs, signal)
      if (this.#seen === undefined) continue
      const seq = this.#queue.toldUpTo(this.#seen)
      if (seq === this.#saved) continue
      const cursor = { url: at.name, seq, nowMs: now() }
      try {
        await unlessAborted(keepFirehoseCursor(sql, cursor), signal)
        this.#saved = seq
      } catch (error) {
        if (failureKind(error) !== 'passing') throw error
        log.warn('firehose.cursor.failed', { firehose: at.name, why: whyOf(error) })
      }
    }
  }

  /** What ends the connection; undefined for the usual frame. */
  #take(frame: Uint8Array | undefined): SocketEnd | undefined {
    const { log, at } = this.#parts
    try {
      if (frame === undefined) throw new FrameError('a frame is no bytes')
      const message = decodeFirehoseFrame(frame)
      switch (message.kind) {
        case 'event':
          return this.#event(message.seq, message.enrollments)
        case 'info':
          // What lies between is lost here; the streams of the services tell who is enrolled.
          log.warn('firehose.info', { firehose: at.name, info: message.name })
          return undefined
        case 'error':
          return message.error === 'FutureCursor' ? begunAnew : { text: `error ${message.error}` }
        default:
          return unreachable(message)
      }
    } catch (error) {
      if (!(error instanceof FrameError)) throw error
      this.#counts.broken += 1
      // Of many the first ones tell enough.
      if (this.#counts.broken <= brokenToldMax) {
        log.warn('firehose.broken', { firehose: at.name, why: error.message })
      }
      return undefined
    }
  }

  #event(seq: number, enrollments: readonly EnrollmentOp[]): SocketEnd | undefined {
    this.#counts.events += 1
    for (const { did, action, rkey } of enrollments) {
      const service = this.#byRkey.get(rkey)
      if (service === undefined) continue
      if (!this.#queue.add({ did, service, action }, seq)) return noRoom
      this.#counts.hints += 1
    }
    this.#seen = Math.max(this.#seen ?? seq, seq)
    return undefined
  }
}

const timingDefaults: FirehoseTiming = {
  saveMs: 5_000,
  windowMs: 10_000,
  silenceMs: 3 * 60_000,
  answerMs: 30_000,
  againMs: 1_000,
  againMsMax: 60_000,
}
/** Accounts with a hint that waits: some MB, and what is told in a window at most. */
const hintsMax = 10_000
const brokenToldMax = 10
/** There are more hints than are told. */
const noRoom: SocketEnd = { text: 'too many hints' }
/** Where the stream is now is as good as any other place. */
const begunAnew: SocketEnd = { text: 'error FutureCursor' }

function isPassing(error: unknown): boolean {
  const isNetwork = error instanceof FetchRefused || error instanceof FetchFailed
  return isNetwork || failureKind(error) === 'passing'
}

/** Without anything that may be secret. */
function whyOf(error: unknown): string {
  const isNetwork = error instanceof FetchRefused || error instanceof FetchFailed
  return isNetwork ? error.message : reasonOf(error)
}
