import { XrpcError } from '../atproto/errors.ts'
import { Tally } from '../lib/tally.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { BoundKeys } from '../store/bound-key.ts'
import type { AccessTokens } from './access-token.ts'
import type { User } from './caller.ts'
import type { DpopProofs } from './dpop-proof.ts'
import { rateLimitExceeded } from './rate-limit.ts'

interface Options {
  readonly proofs: DpopProofs
  readonly tokens: AccessTokens
  readonly boundKeys: BoundKeys
  readonly enrollments: Pick<Enrollments, 'member'>
  readonly now: () => number
}

/**
 * Who called, by a token of their PDS and a proof of the key that it is bound to.
 *
 * The token of most PDSes proves nothing to anybody else: then it is the key that the person bound
 * here which counts. Order: what is in the request alone, then what we know, then other servers.
 * Those are asked for no request whose proof does not hold.
 * @see protocol.md, section 3.3
 */
export class Dpop {
  readonly #options: Options
  readonly #nonceless = new Tally({ windowMs: minuteMs, keysMax: addressesMax })

  constructor(options: Options) {
    this.#options = options
  }

  /**
   * @throws XrpcError 401 InvalidToken, ExpiredToken, use_dpop_nonce; 429; 503
   */
  async identify(token: string, { request, address }: From): Promise<User> {
    return await this.#counting(address, () => this.#identify(token, request))
  }

  /**
   * Passes a request that is to bind a key, unless its proof needs another nonce: to be asked before
   * its token is used up.
   * @throws XrpcError 401 use_dpop_nonce, 429
   */
  async screen({ request, address }: From): Promise<void> {
    const { proofs } = this.#options
    await this.#counting(address, async () => proofs.checkNonce(request, 'dpop-bind'))
  }

  async #counting<Result>(address: string, task: () => Promise<Result>): Promise<Result> {
    const nowMs = this.#options.now()
    if (this.#nonceless.count(address, nowMs) >= noncelessPerMinute) throw this.#tooMany(nowMs)
    try {
      return await task()
    } catch (error) {
      if (isAskingForNonce(error)) this.#nonceless.add(address, nowMs)
      throw error
    }
  }

  async #identify(text: string, request: Request): Promise<User> {
    const { proofs, tokens, boundKeys, enrollments, now } = this.#options
    const ath = Bun.SHA256.hash(text, 'base64url')
    const proof = proofs.check(request, { header: 'dpop', ath })
    const { thumbprint } = proof
    const token = tokens.read(text, { digest: ath, thumbprint })
    const { did, expiresAtMs } = token
    const isBound = await boundKeys.isBound(did, thumbprint, now())
    const caller: User = isBound
      ? { kind: 'user', did, by: 'bound-key', jkt: thumbprint, expiresAtMs }
      : { kind: 'user', did, by: 'dpop-token', scope: await tokens.verify(token), expiresAtMs }
    const isMember = isBound || (await enrollments.member(did)) !== undefined
    proofs.take(proof, { did, isMember })
    tokens.remember(token)
    return caller
  }

  #tooMany(nowMs: number): XrpcError {
    const waitMs = this.#nonceless.remainingMs(nowMs)
    return rateLimitExceeded('too many proofs without a nonce from your address', {
      limit: noncelessPerMinute,
      windowMs: minuteMs,
      remaining: 0,
      resetMs: waitMs,
      waitMs,
    })
  }
}

interface From {
  readonly request: Request
  /** As `clientNetwork` gives it. */
  readonly address: string
}

/** Every client has to ask for a nonce now and then: that is no failure of its credentials. */
export function isAskingForNonce(error: unknown): boolean {
  return error instanceof XrpcError && error.error === 'use_dpop_nonce'
}

const minuteMs = 60_000
/** Such an answer costs no more than one to a request without credentials. */
const noncelessPerMinute = 3000
/** Addresses that are counted apart; further ones share a counter until the minute is over. */
const addressesMax = 10_000
