import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { OAuthUnavailable, SessionLost } from '../remote/oauth-errors.ts'
import type { DepartureStore } from '../store/departure.ts'

interface Parts {
  readonly store: DepartureStore
  /** Ends somebody's OAuth session, here and at the PDS, if `isDue` when its turn has come. */
  readonly revoke: (did: Did, isDue: () => Promise<boolean>) => Promise<void>
  readonly log: Log
}

/** How the departures of people end: with nothing left of them, or after a time limit. */
export class Departures {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /**
   * Ends a departure of which every key on the PDS was dealt with; `waiting` where data are still
   * to be erased, or where keys could not be deleted and only time or a sign-in may help.
   */
  async finish(did: Did): Promise<'finished' | 'unerased' | 'waiting'> {
    const { store, log } = this.#parts
    if ((await store.departure(did))?.erased !== true) return 'unerased'
    if ((await store.keys(did)).length > 0) return 'waiting'
    await this.#revoke(did)
    await store.finish(did, [])
    log.info('departure.finished', { did })
    return 'finished'
  }

  /** Ends the departures that began too long ago; what is left of them the operator is told. */
  async giveUp(nowMs: number): Promise<void> {
    const { store, log } = this.#parts
    for (const did of await store.beganBefore(nowMs - departureMaxMs)) {
      if ((await store.departure(did))?.erased !== true) continue
      const keys = await store.keys(did)
      const left = keys.map(({ collection, rkey }) => `${collection}/${rkey}`)
      await this.#revoke(did)
      await store.finish(did, left)
      log.error('departure.unfinished', {
        did,
        left: left.length,
        first: left.slice(0, shownMax),
        advice: 'these keys are still in the public repo of the account; its owner may delete them',
      })
    }
  }

  async #revoke(did: Did): Promise<void> {
    try {
      // Whoever comes back meanwhile does so with a new session, which is not the departure's.
      const isDue = async () => (await this.#parts.store.departure(did)) !== undefined
      await this.#parts.revoke(did, isDue)
    } catch (error) {
      // Lost already, or gone from here and not reachable there: there is nothing more to do.
      if (error instanceof SessionLost) return
      if (!(error instanceof OAuthUnavailable)) throw error
      this.#parts.log.warn('departure.session.not-revoked', { did, error })
    }
  }
}

/** So long the service tries to clean somebody's public repo. @see protocol.md, section 4.5 */
const departureMaxMs = 30 * 24 * 3_600_000
const shownMax = 50
