import { XrpcError } from '../atproto/errors.ts'
import { Tally } from '../lib/tally.ts'
import { isAskingForNonce } from './dpop.ts'

/** Refused credentials, counted by the address that they come from. */
export class AuthFailures {
  readonly #perMinute: number
  readonly #now: () => number
  readonly #failures = new Tally({ windowMs: minuteMs, keysMax: addressesMax })

  constructor(options: { readonly failuresPerMinute: number; readonly now: () => number }) {
    this.#perMinute = options.failuresPerMinute
    this.#now = options.now
  }

  /**
   * An address that was refused too often is not listened to.
   * @param address as `clientNetwork` gives it
   * @throws XrpcError 429 RateLimitExceeded, and what `identify` throws
   */
  async counted<Caller>(address: string, identify: () => Promise<Caller>): Promise<Caller> {
    const nowMs = this.#now()
    // Of addresses that are too many to be counted apart, none is refused for what others did.
    const isCounted = this.#failures.isApart(address, nowMs)
    if (isCounted && this.#failures.count(address, nowMs) >= this.#perMinute) {
      throw tooManyFailures(this.#failures.remainingMs(nowMs))
    }
    try {
      return await identify()
    } catch (error) {
      const isRefused = error instanceof XrpcError && error.status === 401
      if (isRefused && !isAskingForNonce(error)) this.#failures.add(address, nowMs)
      throw error
    }
  }
}

export function tooManyFailures(waitMs: number): XrpcError {
  const seconds = String(Math.ceil(waitMs / 1000))
  return new XrpcError(429, 'RateLimitExceeded', 'too many refused credentials from your address', {
    headers: { 'retry-after': seconds },
  })
}

const minuteMs = 60_000
/**
 * Addresses that are counted apart; further ones share a counter until the minute is over, by which
 * none of them is refused: see `FirstSights` for what they may cost.
 */
const addressesMax = 10_000
