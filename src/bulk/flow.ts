/** How slow the reader of a stream may be. */
export interface Pace {
  /** That all of it may take. */
  readonly msMax: number
  /** A reader who holds things up takes at least this much in `windowMs`. */
  readonly windowBytesMin: number
  readonly windowMs: number
  readonly lookEveryMs: number
}

/**
 * How far ahead of its reader a stream of bytes may be, and how slow that reader may be. Whoever
 * sends asks for room before each piece; the time is looked at from outside, by `check`.
 */
export class Flow {
  readonly #pace: Omit<Pace, 'lookEveryMs'>
  readonly #startMs: number
  #unacked = 0
  #waiting: (() => void) | undefined
  #windowStartMs: number
  #windowBytes = 0

  constructor(pace: Omit<Pace, 'lookEveryMs'>, nowMs: number) {
    this.#pace = pace
    this.#startMs = nowMs
    this.#windowStartMs = nowMs
  }

  /**
   * Resolves when `bytes` more may be sent, and counts them. One piece may always be on its way.
   * @throws the reason of an aborted `signal`, of which `wake` has to tell
   */
  async room(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    while (this.#unacked > 0 && this.#unacked + bytes > unackedBytesMax) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting = resolve
      await promise
      signal.throwIfAborted()
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
    const { msMax, windowBytesMin, windowMs } = this.#pace
    if (nowMs - this.#startMs > msMax) return 'it took too long'
    const isHeldUp = this.#waiting !== undefined
    if (isHeldUp && nowMs - this.#windowStartMs < windowMs) return undefined
    const isSlow = isHeldUp && this.#windowBytes < windowBytesMin
    // Time in which it was the sender who was slow is not the reader's.
    this.#windowStartMs = nowMs
    this.#windowBytes = 0
    return isSlow ? 'its reader was too slow' : undefined
  }
}

/** Bytes that were sent and not taken. @see architecture.md, Threads */
export const unackedBytesMax = 1024 * 1024
