/**
 * Counts by key in fixed windows of time. Memory is bounded: when too many keys are counted in one
 * window, further new keys share one counter, so that a flood of keys is itself counted.
 */
export class Tally {
  readonly #windowMs: number
  readonly #keysMax: number
  #counts = new Map<string, number>()
  #windowStart = 0

  constructor(options: { readonly windowMs: number; readonly keysMax: number }) {
    this.#windowMs = options.windowMs
    this.#keysMax = options.keysMax
  }

  add(key: string, nowMs: number): void {
    this.#turn(nowMs)
    const at = this.#slot(key)
    this.#counts.set(at, (this.#counts.get(at) ?? 0) + 1)
  }

  count(key: string, nowMs: number): number {
    this.#turn(nowMs)
    return this.#counts.get(this.#slot(key)) ?? 0
  }

  /** Whether a key is counted by itself, or would be. */
  isApart(key: string, nowMs: number): boolean {
    this.#turn(nowMs)
    return this.#slot(key) === key
  }

  /** Milliseconds until the present window ends. */
  remainingMs(nowMs: number): number {
    return Math.max(0, this.#windowStart + this.#windowMs - nowMs)
  }

  #slot(key: string): string {
    return this.#counts.has(key) || this.#counts.size < this.#keysMax ? key : ''
  }

  #turn(nowMs: number): void {
    if (nowMs >= this.#windowStart && nowMs < this.#windowStart + this.#windowMs) return
    this.#windowStart = nowMs
    this.#counts = new Map()
  }
}
