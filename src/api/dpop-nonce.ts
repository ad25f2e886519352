import { createHmac, timingSafeEqual } from 'node:crypto'

/**
 * What a DPoP proof carries to show that it was made lately: the time at which this service gave it
 * out, which whoever has the secret can check.
 *
 * - A nonce is given out for one window of time and counts until the end of the next.
 * - Instances with the same secret take each other's nonces. None takes one from before its own
 *   start: what it saw then it has forgotten, and a proof with such a nonce may have been used.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9449#section-9
 */
export class DpopNonces {
  readonly #secret: Uint8Array
  readonly #now: () => number
  readonly #startedAtMs: number
  #current = { issuedAtMs: -1, text: '' }

  constructor({ secret, now }: { readonly secret: Uint8Array; readonly now: () => number }) {
    this.#secret = secret
    this.#now = now
    this.#startedAtMs = now()
  }

  get startedAtMs(): number {
    return this.#startedAtMs
  }

  /** The one for new proofs. */
  get current(): string {
    const windowStart = Math.floor(this.#now() / windowMs) * windowMs
    const issuedAtMs = Math.max(windowStart, this.#startedAtMs)
    if (this.#current.issuedAtMs !== issuedAtMs) {
      this.#current = { issuedAtMs, text: this.#nonce(issuedAtMs) }
    }
    return this.#current.text
  }

  /** Until when it counts; undefined for one that does not. */
  expiresAtMs(nonce: string): number | undefined {
    if (!nonceForm.test(nonce)) return undefined
    const issuedAtMs = Number.parseInt(nonce.slice(0, nonce.indexOf('.')), 36)
    const expiresAtMs = (Math.floor(issuedAtMs / windowMs) + windowsCounted) * windowMs
    if (nonce === this.current) return expiresAtMs
    const now = this.#now()
    const counts = issuedAtMs >= this.#startedAtMs && issuedAtMs <= now && now < expiresAtMs
    return counts && isSame(nonce, this.#nonce(issuedAtMs)) ? expiresAtMs : undefined
  }

  #nonce(issuedAtMs: number): string {
    const time = issuedAtMs.toString(36)
    const mac = createHmac('sha256', this.#secret).update(`dpop-nonce ${time}`).digest()
    return `${time}.${mac.subarray(0, macBytes).toString('base64url')}`
  }
}

/** Clients that pause for longer than two of these make one request twice. */
const windowMs = 90_000
const windowsCounted = 2
const macBytes = 16
/** The time in base 36 and the code in base64url. */
const nonceForm = /^[0-9a-z]{1,10}\.[\w-]{22}$/

function isSame(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))
}
