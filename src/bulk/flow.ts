import { unackedBytesMax } from './messages.ts'

interface Pace {
  /** Whole milliseconds that all of it may take. */
  readonly msMax: number
  /** A reader who holds things up takes at least this much in `windowMs`. */
  readonly windowBytesMin: number
  readonly windowMs: number
}

/**
 * How far ahead of its reader a stream of bytes may be, and how slow that reader may be. Whoever
 * sends asks for room before each piece; the time is looked at from outside, by `check`.
 */
export class Flow {
  readonly #pace: Pace
  readonly #startMs: number
  #unacked = 0
  #waiting: (() => void) | undefined
  #windowStartMs: number
  #windowBytes = 0

  constructor(pace: Pace, nowMs: number) {
    this.#pace = pace
    this.#startMs = nowMs
    this.#windowStartMs = nowMs
  }

  /** Resolves when `bytes` more may be sent, and counts them. One piece may always be on its way. */
  async room(bytes: number): Promise<void> {
    while (this.#unacked > 0 && this.#unacked + bytes > unackedBytesMax) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting = resolve
      await promise
    }
    this.#unacked += bytes
  }

  taken(bytes: number): void {
    this.#unacked -= bytes
    this.#windowBytes += bytes
    this.wake()
  }

  /** Lets whoever waits look again, for room or for why there will be none. */
  wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }

  /** Why this has to end, if it has. */
  check(nowMs: number): string | undefined {
    if (nowMs - this.#startMs > this.#pace.msMax) return 'it took too long'
    if (nowMs - this.#windowStartMs < this.#pace.windowMs) return undefined
    const isSlow = this.#windowBytes < this.#pace.windowBytesMin
    this.#windowStartMs = nowMs
    this.#windowBytes = 0
    return isSlow && this.#waiting !== undefined ? 'its reader was too slow' : undefined
  }
}
