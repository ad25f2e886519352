import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'

/** Where sessions outlive the process, one a DID. They hold secrets. */
export interface SessionStore {
  get(did: Did): Promise<string | undefined>
  set(did: Did, saved: string): Promise<void>
  delete(did: Did): Promise<void>
}

/**
 * Sessions on their way to the store. Refresh tokens work once, so that a new one is never given
 * up because the store failed. Invariants:
 * - What could not be stored stays in memory, is what `get` gives, and is tried again until it is
 *   stored, replaced or deleted.
 * - Writes for one DID happen one after the other: an older session never comes after a newer one.
 * - While too many wait, no other session is given, so that none is refreshed.
 */
export class Sessions {
  readonly #store: SessionStore
  readonly #log: Log | undefined
  readonly #unsaved = new Map<Did, Unsaved>()
  readonly #writes = new Turns<Did>()
  #stopped = false

  constructor(store: SessionStore, log?: Log) {
    this.#store = store
    this.#log = log
  }

  /** @throws whatever the store throws */
  async get(did: Did): Promise<string | undefined> {
    const unsaved = this.#unsaved.get(did)
    if (unsaved !== undefined) return unsaved.saved
    if (this.#unsaved.size >= unsavedMax) {
      throw new Error('too many OAuth sessions wait to be stored: look at the disk of the service')
    }
    return this.#store.get(did)
  }

  /** Never fails; the session counts from now on. */
  async set(did: Did, saved: string): Promise<void> {
    await this.#writes.run(did, async () => {
      this.#forget(did)
      this.#unsaved.set(did, { saved, attempt: 0, timer: undefined })
      await this.#write(did)
    })
  }

  async delete(did: Did): Promise<void> {
    await this.#writes.run(did, async () => {
      this.#forget(did)
      await this.#store.delete(did)
    })
  }

  /**
   * The session that `persist` replaced, by putting another into the store.
   * @throws whatever `persist` and the store throw; then the older one still counts
   */
  async replace(did: Did, persist: () => Promise<void>): Promise<string | undefined> {
    return await this.#writes.run(did, async () => {
      const before = this.#unsaved.get(did)?.saved ?? (await this.#store.get(did))
      await persist()
      this.#forget(did)
      return before
    })
  }

  /** Tries once more to store what is still in memory, and then no longer. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all([...this.#unsaved.keys()].map((did) => this.#retry(did)))
  }

  async #retry(did: Did): Promise<void> {
    await this.#writes.run(did, () => this.#write(did))
  }

  async #write(did: Did): Promise<void> {
    const unsaved = this.#unsaved.get(did)
    if (unsaved === undefined) return
    clearTimeout(unsaved.timer)
    try {
      await this.#store.set(did, unsaved.saved)
      this.#unsaved.delete(did)
    } catch (error) {
      const { attempt } = unsaved
      this.#log?.error('refreshed session not stored', { did, attempt, error })
      if (this.#stopped) return
      const waitMs = backoffMs({ attempt, ...retries, random: Math.random() })
      unsaved.attempt += 1
      unsaved.timer = setTimeout(() => void this.#retry(did), waitMs)
    }
  }

  #forget(did: Did): void {
    clearTimeout(this.#unsaved.get(did)?.timer)
    this.#unsaved.delete(did)
  }
}

interface Unsaved {
  readonly saved: string
  attempt: number
  timer: ReturnType<typeof setTimeout> | undefined
}

/** Some 3 kB each. Sessions that are in use as it is reached still come on top. */
const unsavedMax = 1_000
const retries = { firstMs: 250, mostMs: 60_000 }
