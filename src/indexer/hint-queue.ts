import type { Did } from '../atproto/syntax.ts'
import { unlessAborted } from '../lib/pause.ts'

/** An account may have enrolled with a service, or left it: the service itself is to be asked. */
export interface Hint {
  readonly did: Did
  readonly service: Did
  /** Of the record that points to the service. */
  readonly action: 'create' | 'update' | 'delete'
}

interface HintQueueParts {
  /** A hint that is refused is told again. */
  readonly tell: (hint: Hint, signal: AbortSignal) => Promise<void>
  readonly refused: (hint: Hint, error: unknown) => void
  readonly windowMs: number
  readonly hintsMax: number
}

/**
 * Hints until they were told, one at a time. Of an account and a service one is told in a window at
 * most, however often the record changes: those that come meanwhile are one in the next window, with
 * the last action.
 */
export class HintQueue {
  readonly #parts: HintQueueParts
  /** To be told now, and in the next window. */
  #due = new Map<string, Waiting>()
  #later = new Map<string, Waiting>()
  readonly #told = new Set<string>()
  #telling: Waiting | undefined
  #changed = Promise.withResolvers<void>()

  constructor(parts: HintQueueParts) {
    this.#parts = parts
  }

  get isEmpty(): boolean {
    return this.#oldest === undefined
  }

  /** False where there is no room: then it has to come again. */
  add(hint: Hint, seq: number): boolean {
    const key = `${hint.did} ${hint.service}`
    const into = this.#told.has(key) ? this.#later : this.#due
    const waiting = into.get(key)
    const isFull = this.#due.size + this.#later.size >= this.#parts.hintsMax
    if (waiting === undefined && isFull) return false
    into.set(key, { hint, seq: waiting?.seq ?? seq })
    this.#change()
    return true
  }

  /** The last event up to which all hints were told, of those up to `seen`. */
  toldUpTo(seen: number): number {
    const oldest = this.#oldest
    return oldest === undefined ? seen : Math.min(seen, oldest - 1)
  }

  async run(signal: AbortSignal): Promise<void> {
    const end = () => this.#change()
    signal.addEventListener('abort', end, { once: true })
    const windows = setInterval(() => this.#nextWindow(), this.#parts.windowMs)
    try {
      while (!signal.aborted) {
        const [next] = this.#told.size < this.#parts.hintsMax ? this.#due : []
        if (next === undefined) await this.#changed.promise
        else await this.#tell(next, signal)
      }
    } finally {
      clearInterval(windows)
      signal.removeEventListener('abort', end)
    }
  }

  /** When there is nothing left to tell, or this is to end. */
  async drained(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.isEmpty) await this.#changed.promise
  }

  get #oldest(): number | undefined {
    let oldest = this.#telling?.seq
    for (const waiting of [this.#due, this.#later]) {
      for (const { seq } of waiting.values()) oldest = Math.min(oldest ?? seq, seq)
    }
    return oldest
  }

  async #tell([key, waiting]: [string, Waiting], signal: AbortSignal): Promise<void> {
    this.#due.delete(key)
    this.#told.add(key)
    this.#telling = waiting
    try {
      await unlessAborted(this.#parts.tell(waiting.hint, signal), signal)
    } catch (error) {
      if (signal.aborted) return
      this.#parts.refused(waiting.hint, error)
      const newer = this.#later.get(key)
      this.#later.set(key, { hint: newer?.hint ?? waiting.hint, seq: waiting.seq })
    } finally {
      this.#telling = undefined
      this.#change()
    }
  }

  #nextWindow(): void {
    this.#told.clear()
    for (const [key, { hint, seq }] of this.#later) {
      const newer = this.#due.get(key)
      this.#due.set(key, { hint: newer?.hint ?? hint, seq })
    }
    this.#later.clear()
    this.#change()
  }

  #change(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

interface Waiting {
  readonly hint: Hint
  /** Of the first event that it comes from. */
  readonly seq: number
}
