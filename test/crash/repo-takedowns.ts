import { expect } from 'bun:test'
import type { SeededStratos } from '../kit/seeded.ts'
import type { Subscriber } from '../kit/subscriber.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import type { StreamReader } from './stream-reader.ts'

/** Whole repos that are taken down for a while, and who may be sent away meanwhile. */
export class RepoTakedowns {
  /** Whether the service is being ended: nobody waits for a repo to be back then. */
  isOver = false
  readonly #stratos: SeededStratos
  /** How often it began, or ended, that a repo is down: odd while it is, or may be. */
  readonly #changes = new Map<string, number>()

  constructor(stratos: SeededStratos) {
    this.#stratos = stratos
  }

  /** A stream of somebody's repo, be it only once that is back. @throws where it is not down */
  async opened(name: string, open: () => Promise<Subscriber>): Promise<Subscriber> {
    for (;;) {
      const before = this.#changesOf(name)
      try {
        return await open()
      } catch (error) {
        const wasDown = before % 2 === 1 || this.#changesOf(name) !== before
        if (!wasDown || this.isOver) throw error
      }
      await Bun.sleep(againMs)
    }
  }

  /** Takes a repo down, until these readers of it were sent away, and lets it up again. */
  async aWhile(name: string, readers: readonly StreamReader[]): Promise<void> {
    // One that the end of the service has left down is down already.
    if (this.isOver) return
    this.#changed(name)
    await this.#set(name, true)
    const ends = await Promise.all(readers.map((reader) => reader.sentAway()))
    if (this.isOver) return
    for (const end of ends) expect(end ?? notEntitled).toEqual(notEntitled)
    await this.#set(name, false)
    this.#changed(name)
  }

  /** What an end of the service has left down. */
  async liftAll(): Promise<void> {
    for (const [name, changes] of this.#changes) {
      if (changes % 2 === 0) continue
      await this.#set(name, false)
      this.#changed(name)
    }
  }

  async #set(name: string, applied: boolean): Promise<void> {
    await setTakedown(this.#stratos, repoSubject(this.#stratos.person(name).did), { applied })
  }

  #changesOf(name: string): number {
    return this.#changes.get(name) ?? 0
  }

  #changed(name: string): void {
    this.#changes.set(name, this.#changesOf(name) + 1)
  }
}

const notEntitled = [1008, 'not entitled any more'] as const
const againMs = 20
