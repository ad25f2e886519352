import { Tally } from '../lib/tally.ts'
import { rateLimitExceeded } from './rate-limit.ts'

/** Requests without credentials, counted by the address that they come from. */
export class AnonymousTraffic {
  readonly #requestsPerMinute: number
  readonly #now: () => number
  readonly #requests = new Tally({ windowMs: minuteMs, keysMax: addressesMax })

  constructor(options: { readonly requestsPerMinute: number; readonly now: () => number }) {
    this.#requestsPerMinute = options.requestsPerMinute
    this.#now = options.now
  }

  /**
   * @param address as `clientNetwork` gives it
   * @throws XrpcError 429 RateLimitExceeded
   */
  check({ headers }: Request, address: string): void {
    // A credential that does not count is counted where it is refused.
    if (headers.has('authorization')) return
    const nowMs = this.#now()
    if (this.#requests.count(address, nowMs) < this.#requestsPerMinute) {
      this.#requests.add(address, nowMs)
      return
    }
    const waitMs = this.#requests.remainingMs(nowMs)
    throw rateLimitExceeded('too many requests from your address', {
      limit: this.#requestsPerMinute,
      windowMs: minuteMs,
      remaining: 0,
      resetMs: waitMs,
      waitMs,
    })
  }
}

const minuteMs = 60_000
/** Addresses that are counted apart; further ones share a counter until the minute is over. */
const addressesMax = 10_000
