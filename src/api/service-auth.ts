import { XrpcError, overloaded } from '../atproto/errors.ts'
import type { K256Verifier } from '../atproto/k256.ts'
import { didKeyAlgorithm, verifySignature } from '../atproto/keys.ts'
import { type Did, type Nsid, isDid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { Lru } from '../lib/lru.ts'
import type { UsedTokenStore } from '../store/used-token.ts'
import {
  DidNotResolved,
  type Identities,
  type LookUp,
  SigningKeyNotFound,
} from '../remote/identity.ts'
import { FirstSights, type Sight } from './first-sight.ts'
import { isTime, type JsonObject, type Jwt, readJwt } from './jwt.ts'

/**
 * Who called, by a token that the caller's PDS or own key signed for one method of this service.
 *
 * What costs nothing comes first: form and claims, then the key of the issuer, then the signature.
 * What these two may cost for callers who have proven nothing is bounded by `FirstSights`.
 * Remembered is only what certain bytes say and that they verify under a certain key; whether the
 * claims hold, and which key is the issuer's, is looked at on every use.
 * @see protocol.md, section 3.1
 * @see https://atproto.com/specs/xrpc#inter-service-authentication-jwt
 */
export class ServiceAuth {
  readonly #serviceDid: Did
  readonly #fragment: string
  readonly #identities: Identities
  readonly #now: () => number
  readonly #used: UsedTokenStore | undefined
  readonly #k256: K256Verifier
  readonly #own: ServiceAuthOptions['own']
  readonly #singleUse: boolean
  readonly #firstSights: FirstSights
  readonly #verified = new Lru<string, Verified>(verifiedMax)

  constructor(options: ServiceAuthOptions) {
    this.#serviceDid = options.serviceDid
    this.#fragment = options.fragment
    this.#identities = options.identities
    this.#used = options.used
    this.#now = options.now
    this.#k256 = options.k256
    this.#own = options.own
    this.#singleUse = options.serviceAuthSingleUse
    this.#firstSights = new FirstSights(options)
  }

  /**
   * @throws XrpcError 401 AuthMissing, InvalidToken or ExpiredToken; 503 Overloaded when it is the
   *   PLC directory that keeps us from knowing
   */
  async verify(token: string, door: ServiceAuthDoor): Promise<Did> {
    const tokens = door.tokens === 'any' && this.#singleUse ? 'single-use' : door.tokens
    const { claims, issuer } = await this.#verify(token, { ...door, tokens })
    if (tokens !== 'any') await this.#useUp(issuer, claims)
    return issuer
  }

  async #verify(token: string, door: ServiceAuthDoor) {
    const { nsid, tokens, fragment = this.#fragment, address } = door
    if (token === '') throw unauthorized('AuthMissing', 'a token is needed')
    const digest = Bun.SHA256.hash(token, 'base64url')
    const { claims, algorithm } = this.#verified.get(digest) ?? readToken(token)
    const nowSeconds = this.#now() / 1000
    const audiences = [this.#serviceDid, `${this.#serviceDid}#${fragment}`]
    const issuer = checkClaims(claims, { audiences, nsid, nowSeconds })
    if (tokens !== 'any') checkFresh(claims, { ageSecondsMax: ageSecondsMax[tokens], nowSeconds })
    const sight = { address, issuer }
    const key = await this.#keyOf(sight)
    const found = { issuer, claims }
    const unverified = { token, algorithm, digest }
    if (this.#isVerified(unverified, key)) return found
    this.#firstSights.checkSignature(sight)
    if (this.#verifies(unverified, key) || (await this.#verifiesAnew(unverified, { sight, key }))) {
      this.#firstSights.proved(sight)
      return found
    }
    this.#firstSights.failed(sight)
    throw invalid('the signature is not by the #atproto key of its issuer')
  }

  /** The issuer may have changed its key since we asked; looked up once a minute at most. */
  async #verifiesAnew(
    unverified: Unverified,
    { sight, key }: { readonly sight: Sight; readonly key: string },
  ): Promise<boolean> {
    if (sight.issuer === this.#own?.did) return false
    const fresh = { fresh: true }
    const asks = !this.#identities.isAtHand(sight.issuer, fresh)
    if (asks && !this.#firstSights.mayRefresh(sight)) return false
    const newKey = await this.#signingKey(sight.issuer, fresh)
    return newKey !== key && this.#verifies(unverified, newKey)
  }

  /** Kept where a restart does not lose it: what is done once must not be done twice by a copy. */
  async #useUp(issuer: Did, { jti, exp }: JsonObject): Promise<void> {
    assert(this.#used !== undefined, 'what takes a token once remembers it')
    const digest = Bun.SHA256.hash(`${issuer}\n${String(jti)}`, 'base64url')
    // A time may have a fraction, also of a millisecond; a row may not.
    const expiresAtMs = Math.ceil((Number(exp) + leewaySeconds) * 1000)
    if (await this.#used.take({ digest, expiresAtMs, nowMs: this.#now() })) return
    throw invalid('the token was used before, and this method takes each token once')
  }

  #isVerified({ digest }: Unverified, didKey: string): boolean {
    const known = this.#verified.get(digest)
    return known?.didKey === didKey && this.#now() - known.at < verifiedMs
  }

  #verifies({ token, algorithm, digest }: Unverified, didKey: string): boolean {
    if (didKeyAlgorithm(didKey) !== algorithm) return false
    const { claims, signed: bytes, sig } = readToken(token)
    if (!verifySignature({ didKey, bytes, sig }, this.#k256)) return false
    this.#verified.set(digest, { didKey, at: this.#now(), claims, algorithm })
    return true
  }

  async #keyOf(sight: Sight): Promise<string> {
    const { issuer } = sight
    if (issuer === this.#own?.did) return this.#own.key
    if (!this.#identities.isAtHand(issuer)) await this.#firstSights.checkLookUp(sight)
    return await this.#signingKey(issuer)
  }

  /** With `fresh`, one that is at most a minute old. */
  async #signingKey(issuer: Did, lookUp: LookUp = {}): Promise<string> {
    try {
      return await this.#identities.signingKey(issuer, lookUp)
    } catch (error) {
      if (error instanceof SigningKeyNotFound) throw invalid('its issuer has no #atproto key')
      if (!(error instanceof DidNotResolved)) throw error
      // The directory is ours to depend on: a token must not look bad, and its holder not sign in
      // anew, because the directory is down. A host that the issuer itself chose is not.
      const passing = error.failure === 'unreachable' || error.failure === 'busy'
      if (passing && issuer.startsWith('did:plc:')) {
        throw overloaded('the DID of the token cannot be looked up now')
      }
      throw invalid('the DID of its issuer leads to no document')
    }
  }
}

/** The answer to a caller whose credential is missing or does not count. */
export function unauthorized(error: AuthError, message: string): XrpcError {
  return new XrpcError(401, error, message, {
    headers: { 'www-authenticate': `Bearer realm="stratos", error="${error}"` },
  })
}

export type AuthError = 'AuthMissing' | 'InvalidToken' | 'ExpiredToken'

export interface ServiceAuthOptions {
  readonly serviceDid: Did
  /** Without `#`. */
  readonly fragment: string
  readonly identities: Identities
  /** Undefined where no method takes a token once. */
  readonly used?: UsedTokenStore
  readonly k256: K256Verifier
  /** Who is not looked up, as this process has the key. */
  readonly own?: { readonly did: Did; readonly key: string } | undefined
  /** Every method takes each token once. */
  readonly serviceAuthSingleUse: boolean
  /** Whether this is anybody whom the service has to do with. */
  readonly isKnown: (did: Did) => Promise<boolean>
  readonly now: () => number
}

/** What the token is to open, and where from. */
export interface ServiceAuthDoor {
  readonly nsid: Nsid
  /** All but `any` count once, and are fresh: `stream` as what may come in a query. */
  readonly tokens: 'any' | 'single-use' | 'stream'
  /** What the audience has behind `#`, where that is not the service's own. */
  readonly fragment?: string | undefined
  /** As `clientNetwork` gives it. */
  readonly address: string
}

const lifetimeMaxSeconds = 60 * 60
/** For clocks that go before ours. */
const leewaySeconds = 30
const verifiedMs = 5 * 60_000
/** Some 1,000 bytes each. */
const verifiedMax = 5_000

interface Verified {
  readonly didKey: string
  readonly at: number
  readonly claims: JsonObject
  readonly algorithm: string
}

interface Unverified {
  readonly token: string
  readonly algorithm: string
  /** SHA-256 of the whole token. */
  readonly digest: string
}

function readToken(token: string): Jwt & { readonly algorithm: string } {
  const jwt = readJwt(token)
  if (jwt === undefined) throw invalid('this is no JWT')
  return { ...jwt, algorithm: checkHeader(jwt.header) }
}

function checkHeader(header: JsonObject): string {
  const { alg, typ, crit } = header
  if (alg !== 'ES256K' && alg !== 'ES256') throw invalid('alg must be ES256K or ES256')
  // Other types are other kinds of token, which mean something else by the same claims.
  if (typ !== undefined && typ !== 'JWT') throw invalid('typ must be absent or JWT')
  if (crit !== undefined) throw invalid('crit names extensions, and none are known here')
  return alg
}

function checkClaims(
  claims: JsonObject,
  here: {
    readonly audiences: readonly unknown[]
    readonly nsid: Nsid
    readonly nowSeconds: number
  },
): Did {
  const { iss, aud, lxm, jti } = claims
  if (typeof iss !== 'string' || !isDid(iss)) throw invalid('iss must be a bare DID')
  if (!here.audiences.includes(aud)) throw invalid('aud must be this service')
  if (lxm !== here.nsid) throw invalid(`lxm must be ${here.nsid}`)
  if (jti !== undefined && typeof jti !== 'string') throw invalid('jti must be a string')
  checkTimes(claims, here.nowSeconds)
  return iss
}

function checkTimes({ exp, iat, nbf }: JsonObject, nowSeconds: number): void {
  if (!isTime(exp)) throw invalid('exp must be a time')
  if (exp <= nowSeconds) throw unauthorized('ExpiredToken', 'the token is expired')
  if (exp > nowSeconds + lifetimeMaxSeconds) throw invalid('exp is more than an hour ahead')
  for (const from of [iat, nbf]) {
    if (from === undefined) continue
    if (!isTime(from)) throw invalid('iat and nbf must be times')
    if (from > nowSeconds + leewaySeconds) throw invalid('the token is from the future')
  }
  // Else a token of any length would come to count in the last hour of it.
  if (isTime(iat) && exp - iat > lifetimeMaxSeconds + leewaySeconds) {
    throw invalid('the token lives longer than an hour')
  }
}

/** Of a token that counts once: what tells it from others, and a bound to how long that is kept. */
function checkFresh(
  { jti, iat }: JsonObject,
  { ageSecondsMax, nowSeconds }: { readonly ageSecondsMax: number; readonly nowSeconds: number },
): void {
  if (typeof jti !== 'string' || jti === '' || jti.length > jtiCharsMax) {
    throw invalid('this takes each token once, by its jti')
  }
  if (!isTime(iat)) throw invalid('here it has to be known by iat when the token was made')
  if (iat < nowSeconds - ageSecondsMax) {
    throw unauthorized('ExpiredToken', `this takes no token older than ${ageSecondsMax} seconds`)
  }
}

const ageSecondsMax = { 'single-use': 5 * 60, stream: 2 * 60 } as const
const jtiCharsMax = 256

function invalid(message: string): XrpcError {
  return unauthorized('InvalidToken', message)
}
