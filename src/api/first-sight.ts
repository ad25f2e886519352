import { overloaded } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import { Tally } from '../lib/tally.ts'

/**
 * What callers may cost who have proven nothing yet. A token names its issuer before anything in it
 * is true, and each address has a budget of its own: with many addresses or many issuers somebody
 * could fill a core with signatures, or have us ask the PLC directory more than it bears.
 *
 * - Who proved an issuer's name from an address before is counted nowhere here, until a signature
 *   under that name and from there is wrong: such people never wait for others.
 * - All others share what one second has room for. Beyond it they are asked to come again, which is
 *   no failure of theirs.
 * - Issuers whom the service knows have more look-ups than strangers, and strangers cannot use up
 *   theirs.
 */
export class FirstSights {
  readonly #isKnown: (did: Did) => Promise<boolean>
  readonly #now: () => number
  /** Addresses with issuers. */
  readonly #proven = new Lru<string, true>(provenMax)
  readonly #seconds = new Tally({ windowMs: 1000, keysMax: 4 })

  constructor(options: {
    /**
     * Whether this is anybody whom the service has to do with. Asked for any name that is made up:
     * where that costs much, it may say no of somebody whom it does not look for.
     */
    readonly isKnown: (did: Did) => Promise<boolean>
    readonly now: () => number
  }) {
    this.#isKnown = options.isKnown
    this.#now = options.now
  }

  /** Before a signature is checked. @throws XrpcError 503 Overloaded */
  checkSignature(sight: Sight): void {
    if (this.#isProven(sight) || this.#spend('signatures')) return
    throw overloaded('too many callers are new here at this moment')
  }

  /** Before a DID is looked up. @throws XrpcError 503 Overloaded */
  async checkLookUp(sight: Sight): Promise<void> {
    if (this.#isProven(sight)) return
    const kind = (await this.#isKnown(sight.issuer)) ? 'knownLookUps' : 'strangeLookUps'
    if (this.#spend(kind)) return
    throw overloaded('too many DIDs are looked up at this moment')
  }

  /** Whether a DID may be looked up anew because a signature is not by its key. */
  mayRefresh(sight: Sight): boolean {
    return this.#isProven(sight) || this.#spend('refreshes')
  }

  proved(sight: Sight): void {
    this.#proven.set(nameOf(sight), true)
  }

  failed(sight: Sight): void {
    this.#proven.delete(nameOf(sight))
  }

  #isProven(sight: Sight): boolean {
    return this.#proven.get(nameOf(sight)) === true
  }

  #spend(kind: keyof typeof perSecondMax): boolean {
    const nowMs = this.#now()
    if (this.#seconds.count(kind, nowMs) >= perSecondMax[kind]) return false
    this.#seconds.add(kind, nowMs)
    return true
  }
}

/** Somebody under this name, proven or not. */
export interface Sight {
  /** As `clientNetwork` gives it. */
  readonly address: string
  readonly issuer: Did
}

/** By the second, and over all. */
export const perSecondMax = {
  // A third of a core with the slower verifier, some hundredths with the faster one.
  signatures: 500,
  // The directory is everybody's: it bears hundreds a second, and not from us alone.
  strangeLookUps: 20,
  knownLookUps: 100,
  // Keys change once in years.
  refreshes: 5,
} as const

/** Some 150 bytes each. */
const provenMax = 50_000

function nameOf({ address, issuer }: Sight): string {
  return `${address} ${issuer}`
}
