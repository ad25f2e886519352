import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { OAuthUnavailable, SessionLost } from '../remote/oauth-errors.ts'
import type { DepartureStore } from '../store/departure.ts'

interface Parts {
  readonly store: DepartureStore
  /**
   * Runs a task that may end somebody's OAuth session, here and at the PDS. Nobody comes back
   * meanwhile: that session would be ended, and what belongs to it forgotten.
   */
  readonly ending: <Result>(
    did: Did,
    task: (revoke: () => Promise<void>) => Promise<Result>,
  ) => Promise<Result>
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
    const { store, ending, log } = this.#parts
    return await ending(did, async (revoke) => {
      if ((await store.departure(did))?.erased !== true) return 'unerased'
      if ((await store.keys(did)).length > 0) return 'waiting'
      await this.#revoke(did, revoke)
      await store.finish(did, [])
      log.info('departure.finished', { did })
      return 'finished'
    })
  }

  /**
   * Ends some of the departures that began too long ago; what is left of them the operator is told.
   * A PDS that does not answer takes its time for each, and other work waits for this.
   */
  async giveUp(nowMs: number, stopped = () => false): Promise<void> {
    const { store, ending } = this.#parts
    for (const did of await store.erasedBefore(nowMs - departureMaxMs, givenUpMax)) {
      if (stopped()) return
      await ending(did, (revoke) => this.#giveUp(did, revoke))
    }
  }

  async #giveUp(did: Did, revoke: () => Promise<void>): Promise<void> {
    const { store, log } = this.#parts
    if ((await store.departure(did))?.erased !== true) return
    const keys = await store.keys(did)
    const left = keys.map(({ collection, rkey }) => `${collection}/${rkey}`)
    await this.#revoke(did, revoke)
    await store.finish(did, left)
    log.error('departure.unfinished', {
      did,
      left: left.length,
      first: left.slice(0, shownMax),
      advice: 'these keys are still in the public repo of the account; its owner may delete them',
    })
  }

  async #revoke(did: Did, revoke: () => Promise<void>): Promise<void> {
    try {
      await revoke()
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
/** Of one round; there is another soon. */
const givenUpMax = 10
