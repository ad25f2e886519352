import type { Log } from '../lib/log.ts'
import type { ServiceStore } from '../store/service.ts'
import type { CallActor } from './calls.ts'

interface Parts {
  readonly store: ServiceStore
  readonly call: CallActor
  readonly retentionDays: number
  readonly now: () => number
  readonly log: Log
}

/** Forgets events that no stream needs to begin with any more, a slice of an actor at a time. */
export class Retention {
  readonly #parts: Parts
  #lastMs = -Infinity

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Goes over everybody, unless that was done within the hour. */
  async prune(stopped: () => boolean): Promise<void> {
    const { store, now, retentionDays, log } = this.#parts
    if (now() - this.#lastMs < everyMs) return
    this.#lastMs = now()
    const time = new Date(now() - retentionDays * dayMs).toISOString()
    let pruned = 0
    for (let after = ''; ;) {
      const dids = await store.enrolledDids(after, pageMax)
      for (const did of dids) {
        if (stopped()) return
        pruned += await this.#pruneOne(did, time)
      }
      const last = dids.at(-1)
      if (last === undefined) break
      after = last
    }
    if (pruned > 0) log.info('retention.pruned', { events: pruned })
  }

  async #pruneOne(did: Parameters<CallActor>[0], time: string): Promise<number> {
    const { call, log } = this.#parts
    let all = 0
    try {
      for (;;) {
        const { pruned } = await call(did, 'background', { kind: 'prune', time })
        if (pruned === 0) return all
        all += pruned
        // Writes of the actor, and of its neighbours, go first.
        await Bun.sleep(pauseMs)
      }
    } catch (error) {
      // One broken actor must not keep the logs of the others.
      log.error('retention.failed', { did, error })
      return all
    }
  }
}

const everyMs = 3_600_000
const dayMs = 24 * 3_600_000
const pageMax = 500
const pauseMs = 10
