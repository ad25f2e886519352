import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import { sleep } from '../lib/pause.ts'
import type { StreamSocket, Taken } from './stream-socket.ts'

interface Parts {
  /** The stream of one account, from where the index is with it. */
  readonly open: (did: Did) => Promise<StreamSocket>
  /** Resolves when there is room for more. A refusal ends all. */
  readonly take: (did: Did, taken: Taken) => Promise<void>
  readonly socketsMax?: number
  readonly turnMs?: number
  /** Before the second try to open a stream; twice as long before each one after it. */
  readonly againMs?: number
}

/**
 * A socket for each account, of services that have no stream for all of them. So many at once: of
 * more accounts each has a turn, which ends when nothing came for a while.
 */
export class ActorSockets implements AsyncDisposable {
  readonly #parts: Parts
  readonly #ended = new AbortController()
  readonly #failed = Promise.withResolvers<never>()
  /** Everybody, and what ends the turn of those who have one. */
  readonly #turns = new Map<Did, AbortController | undefined>()
  readonly #waiting = new Set<Did>()
  readonly #open = new Map<Did, StreamSocket>()
  readonly #running = new Set<Promise<void>>()

  constructor(parts: Parts) {
    this.#parts = parts
    this.#failed.promise.catch(() => undefined)
  }

  add(did: Did): void {
    if (this.#turns.has(did)) return
    this.#turns.set(did, undefined)
    this.#waiting.add(did)
    this.#next()
  }

  remove(did: Did): void {
    this.#waiting.delete(did)
    this.#turns.get(did)?.abort()
    this.#turns.delete(did)
  }

  /**
   * Until when everybody's stream is known to have brought what was sent: each answers a ping after
   * all that was sent before it. Asks them again. @returns -Infinity where that is not known
   */
  prove(nowMs: number): number {
    let provenMs = this.#open.size === this.#turns.size ? nowMs : -Infinity
    for (const socket of this.#open.values()) {
      provenMs = Math.min(provenMs, socket.provenMs)
      socket.prove(nowMs)
    }
    return provenMs
  }

  /** Never resolves. @throws what a batch was refused with */
  async failure(): Promise<never> {
    return await this.#failed.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    this.#waiting.clear()
    await Promise.all(this.#running)
  }

  #next(): void {
    const { socketsMax = socketsMaxDefault } = this.#parts
    for (const did of this.#waiting) {
      if (this.#running.size >= socketsMax || this.#ended.signal.aborted) return
      this.#waiting.delete(did)
      const left = new AbortController()
      this.#turns.set(did, left)
      const turn = this.#turn(did, AbortSignal.any([left.signal, this.#ended.signal]))
        .catch((error: unknown) => this.#failed.reject(error))
        .finally(() => {
          this.#running.delete(turn)
          if (this.#turns.get(did) === left) this.#waiting.add(did)
          this.#next()
        })
      this.#running.add(turn)
    }
  }

  /** Until they leave or others wait; a stream that ends is opened again. */
  async #turn(did: Did, signal: AbortSignal): Promise<void> {
    const { againMs = againMsDefault } = this.#parts
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        const end = await this.#read(did, signal)
        if (end === 'over') return
        if (end === 'proven') failures = 0
      } catch (error) {
        if (!(error instanceof NotOpened)) throw error
      } finally {
        this.#open.delete(did)
      }
      const wait = { attempt: failures, firstMs: againMs, mostMs: againMsMax }
      await sleep(backoffMs({ ...wait, random: Math.random() }), signal).catch(() => undefined)
    }
  }

  /**
   * @returns `over` where the turn is; `proven` where the stream answered before it ended. What it
   * brought proves nothing: that may be the error with which it ends each time.
   */
  async #read(did: Did, signal: AbortSignal): Promise<'over' | 'proven' | 'unproven'> {
    using socket = await this.#opened(did)
    const leave = () => socket[Symbol.dispose]()
    signal.addEventListener('abort', leave, { once: true })
    if (signal.aborted) leave()
    let quietFromMs = performance.now()
    const { turnMs = turnMsDefault } = this.#parts
    const look = setInterval(() => {
      const isQuiet = performance.now() - quietFromMs >= turnMs
      if (isQuiet && this.#waiting.size > 0) leave()
    }, turnMs)
    try {
      for (;;) {
        const taken = await socket.take()
        if (taken.frames.length === 0) {
          if (socket.end?.kind === 'left') return 'over'
          return socket.provenMs === -Infinity ? 'unproven' : 'proven'
        }
        quietFromMs = performance.now()
        await this.#parts.take(did, taken)
      }
    } finally {
      clearInterval(look)
      signal.removeEventListener('abort', leave)
    }
  }

  async #opened(did: Did): Promise<StreamSocket> {
    let socket: StreamSocket
    try {
      socket = await this.#parts.open(did)
    } catch (cause) {
      throw new NotOpened('no stream', { cause })
    }
    if (await socket.opened()) this.#open.set(did, socket)
    return socket
  }
}

/** The service or the way to it is away. */
class NotOpened extends Error {
  override readonly name = 'NotOpened'
}

const socketsMaxDefault = 500
/** Without an event, while others wait for a turn. */
const turnMsDefault = 10_000
const againMsDefault = 1_000
const againMsMax = 60_000
