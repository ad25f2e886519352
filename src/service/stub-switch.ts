import type { Did, Nsid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { ServiceStore } from '../store/service.ts'
import type { ActorAnswers, ActorCall, CallActor } from './calls.ts'
import type { Outbox } from './outbox.ts'

interface Parts {
  readonly mode: 'full' | 'off'
  /** Collections in which a person's PDS takes stubs from us. */
  readonly stubCollections: (scope: string) => readonly Nsid[]
  readonly store: ServiceStore
  readonly call: CallActor
  readonly outbox: Outbox
  readonly log: Log
}

/** How far the stubs of everybody were brought to what is wanted. */
interface Progress {
  readonly mode: 'full' | 'off'
  /** The last person who was dealt with; null when all were. */
  readonly after: string | null
}

/**
 * Brings the stubs that are on PDSes to what the configuration wants, when that was changed: person
 * by person, each a durable step, delivered by the outbox like all others. Writes made meanwhile go
 * by the new mode already.
 */
export class StubSwitch {
  readonly #parts: Parts
  #state: { done: number; readonly all: number } | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Undefined unless it is at work. */
  progress(): { readonly to: string; readonly done: number; readonly all: number } | undefined {
    return this.#state === undefined ? undefined : { to: this.#parts.mode, ...this.#state }
  }

  async run(stopped: () => boolean): Promise<void> {
    const { mode, store, log } = this.#parts
    const all = await store.countEnrolled()
    const before = progressOf(await store.remembered(name))
    if (all === 0) return await this.#note(null)
    if (before.mode === mode && before.after === null) return
    let after = before.mode === mode ? (before.after ?? '') : ''
    let failed = 0
    this.#state = { done: 0, all }
    log.info('stubs.switch.started', { to: mode, after, all })
    await this.#note(after)
    for (;;) {
      const page = await store.enrolledDids(after, pageMax)
      for (const did of page) {
        if (stopped()) return
        if (!(await this.#tryRestub(did))) failed += 1
        this.#state.done += 1
      }
      const last = page.at(-1)
      if (last === undefined) break
      after = last
      await this.#note(after)
      log.info('stubs.switch.progress', { to: mode, done: this.#state.done, all })
    }
    // Whoever could not be dealt with is tried again at the next start, with everybody else.
    await this.#note(failed === 0 ? null : '')
    this.#state = undefined
    log.info('stubs.switch.done', { to: mode, all, failed })
  }

  /** One broken actor must not keep the stubs of the others. */
  async #tryRestub(did: Did): Promise<boolean> {
    try {
      await this.#restub(did)
      return true
    } catch (error) {
      this.#parts.log.error('stubs.switch.failed', { did, error })
      return false
    }
  }

  async #restub(did: Did): Promise<void> {
    const { mode: wanted, store, call, outbox } = this.#parts
    const enrollment = await store.enrollment(did)
    if (enrollment === undefined) return
    // What was put there has to go, also where nothing more may be put.
    const { scope } = enrollment
    const steps =
      wanted === 'off'
        ? [{ wanted }]
        : this.#parts.stubCollections(scope).map((collection) => ({ wanted, collection }))
    const release = await outbox.hold(did)
    try {
      for (const step of steps) {
        let after: string | undefined = ''
        while (after !== undefined) {
          const ask: ActorCall & { kind: 'restub' } = { kind: 'restub', ...step, after }
          const page: ActorAnswers['restub'] = await call(did, 'stubs', ask)
          after = page.next
        }
      }
    } finally {
      release()
    }
  }

  async #note(after: string | null): Promise<void> {
    const progress: Progress = { mode: this.#parts.mode, after }
    await this.#parts.store.remember({ name, value: JSON.stringify(progress) })
  }
}

const name = 'stubs'
/** People between two notes of how far it got; what comes after the last one is done again. */
const pageMax = 100

/** Before anything was noted, stubs were always on. */
function progressOf(text: string | undefined): Progress {
  if (text === undefined) return { mode: 'full', after: null }
  const progress: Progress = JSON.parse(text)
  return progress
}
