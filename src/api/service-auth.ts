import { XrpcError, overloaded } from '../atproto/errors.ts'
import { didKeyAlgorithm, verifySignature } from '../atproto/keys.ts'
import { type Did, type Nsid, isDid } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import type { UsedTokenStore } from '../store/used-token.ts'
import { DidNotResolved, type Identities, SigningKeyNotFound } from '../remote/identity.ts'
import { isTime, type JsonObject, type Jwt, readJwt } from './jwt.ts'

/**
 * Who called, by a token that the caller's PDS or own key signed for one method of this service.
 *
 * What costs nothing comes first: form and claims, then the key of the issuer, then the signature.
 * Remembered is only what certain bytes say and that they verify under a certain key; whether the
 * claims hold, and which key is the issuer's, is looked at on every use.
 * @see protocol.md, section 3.1
 * @see https://atproto.com/specs/xrpc#inter-service-authentication-jwt
 */
export class ServiceAuth {
  readonly #audiences: ReadonlySet<unknown>
  readonly #identities: Identities
  readonly #now: () => number
  readonly #used: UsedTokenStore
  readonly #verified = new Lru<string, Verified>(verifiedMax)

  constructor(options: {
    readonly serviceDid: Did
    /** Without `#`. */
    readonly fragment: string
    readonly identities: Identities
    readonly used: UsedTokenStore
    readonly now: () => number
  }) {
    const { serviceDid, fragment } = options
    this.#audiences = new Set([serviceDid, `${serviceDid}#${fragment}`])
    this.#identities = options.identities
    this.#used = options.used
    this.#now = options.now
  }

  /**
   * @throws XrpcError 401 AuthMissing, InvalidToken or ExpiredToken; 503 Overloaded when it is the
   *   PLC directory that keeps us from knowing
   */
  async verify(token: string, door: ServiceAuthDoor): Promise<Did> {
    const { claims, issuer } = await this.#verify(token, door)
    if (door.tokens === 'single-use') await this.#useUp(issuer, claims)
    return issuer
  }

  async #verify(token: string, { nsid, tokens }: ServiceAuthDoor) {
    if (token === '') throw unauthorized('AuthMissing', 'a token is needed')
    const digest = Bun.SHA256.hash(token, 'base64url')
    const { claims, algorithm } = this.#verified.get(digest) ?? readToken(token)
    const issuer = checkClaims(claims, {
      audiences: this.#audiences,
      nsid,
      nowSeconds: this.#now() / 1000,
    })
    if (tokens === 'single-use') checkFresh(claims, this.#now() / 1000)
    const key = await this.#keyOf(issuer, false)
    const found = { issuer, claims }
    if (this.#verifies({ token, algorithm, digest }, key)) return found
    // The issuer may have changed its key since we asked. `Identities` bounds how often this asks.
    const newKey = await this.#keyOf(issuer, true)
    if (newKey !== key && this.#verifies({ token, algorithm, digest }, newKey)) return found
    throw invalid('the signature is not by the #atproto key of its issuer')
  }

  /** Kept where a restart does not lose it: what is done once must not be done twice by a copy. */
  async #useUp(issuer: Did, { jti, exp }: JsonObject): Promise<void> {
    const digest = Bun.SHA256.hash(`${issuer}\n${String(jti)}`, 'base64url')
    // A time may have a fraction, also of a millisecond; a row may not.
    const expiresAtMs = Math.ceil((Number(exp) + leewaySeconds) * 1000)
    if (await this.#used.take({ digest, expiresAtMs, nowMs: this.#now() })) return
    throw invalid('the token was used before, and this method takes each token once')
  }

  #verifies({ token, algorithm, digest }: Unverified, didKey: string): boolean {
    const known = this.#verified.get(digest)
    if (known?.didKey === didKey && this.#now() - known.at < verifiedMs) return true
    if (didKeyAlgorithm(didKey) !== algorithm) return false
    const { claims, signed: bytes, sig } = readToken(token)
    if (!verifySignature({ didKey, bytes, sig })) return false
    this.#verified.set(digest, { didKey, at: this.#now(), claims, algorithm })
    return true
  }

  /** With `fresh`, one that is at most a minute old. */
  async #keyOf(issuer: Did, fresh: boolean): Promise<string> {
    try {
      return await this.#identities.signingKey(issuer, { fresh })
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

/** What the token is to open. */
export interface ServiceAuthDoor {
  readonly nsid: Nsid
  readonly tokens: 'any' | 'single-use'
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
    readonly audiences: ReadonlySet<unknown>
    readonly nsid: Nsid
    readonly nowSeconds: number
  },
): Did {
  const { iss, aud, lxm, jti } = claims
  if (typeof iss !== 'string' || !isDid(iss)) throw invalid('iss must be a bare DID')
  if (!here.audiences.has(aud)) throw invalid('aud must be this service')
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
function checkFresh({ jti, iat }: JsonObject, nowSeconds: number): void {
  if (typeof jti !== 'string' || jti === '' || jti.length > jtiCharsMax) {
    throw invalid('this method takes each token once, by its jti')
  }
  if (!isTime(iat)) throw invalid('this method needs to know by iat when the token was made')
  if (iat < nowSeconds - freshSeconds) {
    throw unauthorized('ExpiredToken', 'this method takes no token older than five minutes')
  }
}

const freshSeconds = 5 * 60
const jtiCharsMax = 256

function invalid(message: string): XrpcError {
  return unauthorized('InvalidToken', message)
}
