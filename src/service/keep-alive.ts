import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { OAuthUnavailable, SessionLost } from '../remote/oauth-errors.ts'
import type { IdleSession, ServiceStore } from '../store/service.ts'

interface Parts {
  readonly store: ServiceStore
  readonly refresh: (did: Did) => Promise<void>
  /** Hears of people whose PDS could not be used. */
  readonly troubled: (did: Did) => void
  readonly now: () => number
  readonly log: Log
  /** Until the first round after a start. */
  readonly firstMs?: number
}

/**
 * Refreshes sessions of people for whom nothing was written for long. The refresh token of a client
 * without keys ends after two weeks at the official PDS, that of one with keys after three months.
 */
export class KeepAlive {
  readonly #parts: Parts
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Where the next round goes on, so that sessions that fail do not hold up the others. */
  #after: IdleSession | undefined
  #stopped = false

  constructor(parts: Parts) {
    this.#parts = parts
  }

  start(): void {
    this.#schedule(this.#parts.firstMs ?? soonMs)
  }

  /** Begins nothing new; what is under way is waited for where the sessions are. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  /** @returns whether more of them are due */
  async round(): Promise<'more' | 'done'> {
    const { store, now, log } = this.#parts
    const before = new Date(now() - idleMs).toISOString()
    const page = await store.idleSessions({ before, after: this.#after, limit: roundMax })
    const counts = { refreshed: 0, lost: 0, failed: 0 }
    for (const session of page) {
      if (this.#stopped) break
      counts[await this.#refresh(session.did)] += 1
      this.#after = session
    }
    if (page.length > 0) log.info('oauth-session.kept-alive', counts)
    if (page.length === roundMax) return 'more'
    this.#after = undefined
    return 'done'
  }

  async #refresh(did: Did): Promise<'refreshed' | 'lost' | 'failed'> {
    const { refresh, troubled, log } = this.#parts
    try {
      await refresh(did)
      return 'refreshed'
    } catch (error) {
      if (error instanceof SessionLost) {
        log.info('oauth-session.lost', { did })
        return 'lost'
      }
      const known = error instanceof OAuthUnavailable
      log[known ? 'info' : 'error']('oauth-session.not-refreshed', { did, error })
      troubled(did)
      return 'failed'
    }
  }

  #schedule(waitMs: number): void {
    if (this.#stopped) return
    const jittered = backoffMs({
      attempt: 0,
      firstMs: waitMs,
      mostMs: waitMs,
      random: Math.random(),
    })
    this.#timer = setTimeout(() => void this.#run(), jittered)
  }

  async #run(): Promise<void> {
    try {
      this.#schedule((await this.round()) === 'more' ? soonMs : usuallyMs)
    } catch (error) {
      this.#parts.log.error('oauth-session.keep-alive.failed', { error })
      this.#schedule(usuallyMs)
    }
  }
}

/** Half of the shortest life, so that a PDS may be down for a week. */
const idleMs = 7 * 24 * 60 * 60_000
/** One after the other: a minute or so of one connection. */
const roundMax = 50
const usuallyMs = 60 * 60_000
/** While there is a backlog, and after a start. */
const soonMs = 60_000
