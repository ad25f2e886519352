import { overloaded, XrpcError } from '../atproto/errors.ts'
import { type PublicJwk, readPublicJwk } from '../atproto/jwk.ts'
import type { Did } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import type { DpopNonces } from './dpop-nonce.ts'
import { UsedProofs } from './dpop-replay.ts'
import { type JsonObject, isTime, readJwt } from './jwt.ts'
import type { AuthError } from './service-auth.ts'

/** A proof that holds for one request and one token. It counts once. */
export interface Proof {
  /** Of the key that made it. */
  readonly thumbprint: string
  readonly digest: string
  readonly expiresAtMs: number
}

interface Options {
  /** Under which this service is known: that of its public URL first. */
  readonly origins: ReadonlySet<string>
  readonly nonces: DpopNonces
  readonly requireNonce: boolean
  readonly now: () => number
}

/**
 * Proofs that a caller holds the key of its token.
 *
 * What costs nothing is looked at first, the nonce with it: a client that lacks one is told before a
 * signature is checked.
 * @see https://www.rfc-editor.org/rfc/rfc9449#section-4.3
 */
export class DpopProofs {
  readonly #options: Options
  readonly #used = new UsedProofs()
  /** By the header that they stand in, which is the same in all proofs of an app. */
  readonly #keys = new Lru<string, PublicJwk>(keysMax)

  constructor(options: Options) {
    this.#options = options
  }

  /** The nonce for new proofs. */
  get nonce(): string {
    return this.#options.nonces.current
  }

  /**
   * @param asked.header in which the proof stands
   * @param asked.ath SHA-256 of the token that it goes with
   * @throws XrpcError 401 InvalidToken, use_dpop_nonce
   */
  check(request: Request, { header, ath }: Asked): Proof {
    const text = request.headers.get(header)
    if (text === null) throw invalid(`the token needs a proof in the header ${header}`)
    // Two headers of one name arrive as one, with a comma between.
    if (text.includes(',')) throw invalid('there must be one proof and no more')
    const jwt = text.length > proofCharsMax ? undefined : readJwt(text)
    if (jwt === undefined) throw invalid('the proof is no JWT')
    const headerText = text.slice(0, text.indexOf('.'))
    const key = this.#keys.get(headerText) ?? keyOf(jwt.header)
    const { claims } = jwt
    if (claims['htm'] !== request.method) throw invalid('htm must be the method of the request')
    if (!this.#isHere(claims['htu'], request.url)) {
      throw invalid(`htu must be the address of the request, as under ${this.#publicOrigin}`)
    }
    if (claims['ath'] !== ath) throw invalid('ath must be the SHA-256 of the token')
    const { jti, iat } = claims
    if (typeof jti !== 'string' || jti === '' || jti.length > jtiCharsMax) {
      throw invalid('a proof needs a jti')
    }
    this.#checkTime(iat)
    const expiresAtMs = this.#expiryOf(iat, claims['nonce'])
    if (!key.verify(jwt.signed, jwt.sig)) throw invalid('the signature is not by the key in it')
    this.#keys.set(headerText, key)
    const { thumbprint } = key
    const digest = Bun.SHA256.hash(`${thumbprint}\n${jti}`, 'base64url')
    return { thumbprint, digest, expiresAtMs }
  }

  /**
   * Only the nonce: for a request whose token is used up before its proof is checked.
   * @throws XrpcError 401 use_dpop_nonce
   */
  checkNonce(request: Request, header: Asked['header']): void {
    const text = request.headers.get(header) ?? ''
    const jwt = text.length > proofCharsMax ? undefined : readJwt(text)
    // What is no proof is refused where it is checked.
    if (jwt === undefined) return
    const { iat, nonce } = jwt.claims
    if (isTime(iat)) this.#expiryOf(iat, nonce)
  }

  /**
   * Uses a proof up, last of all: when its token counted, too.
   * @throws XrpcError 401 InvalidToken where it was used before, use_dpop_nonce where it expired
   *   since it was checked; 503 Overloaded where that cannot be told for want of room
   */
  take(
    { digest, expiresAtMs }: Proof,
    by: { readonly did: Did; readonly isMember: boolean },
  ): void {
    const nowMs = this.#options.now()
    // Other servers were asked meanwhile. What was used at such a time may be forgotten already.
    if (expiresAtMs <= nowMs) throw useNonce()
    const outcome = this.#used.take({ digest, expiresAtMs, ...by }, nowMs)
    if (outcome === 'used') throw invalid('the proof was used before, and each counts once')
    if (outcome === 'full') throw overloaded('too many proofs at a time, try again in a moment')
  }

  #checkTime(iat: unknown): asserts iat is number {
    if (!isTime(iat)) throw invalid('iat must be a time')
    const seconds = this.#options.now() / 1000
    if (iat > seconds + iatSeconds) throw invalid('the proof is from the future')
    if (iat < seconds - iatSeconds) throw invalid('the proof is too old')
  }

  /** From when on a proof no longer counts, by nothing but what stands in it. */
  #expiryOf(iat: number, nonce: unknown): number {
    const { nonces, requireNonce } = this.#options
    if (nonce === undefined && !requireNonce) {
      // One that was used just before our start may be dated as far ahead as any.
      if (iat <= nonces.startedAtMs / 1000 + iatSeconds) throw useNonce()
      return (iat + iatSeconds) * 1000 + 1
    }
    const expiresAtMs = typeof nonce === 'string' ? nonces.expiresAtMs(nonce) : undefined
    if (expiresAtMs === undefined) throw useNonce()
    return expiresAtMs
  }

  /** The Host header has no say: a proxy may set it, and so may whoever has a proof to abuse. */
  #isHere(htu: unknown, requestUrl: string): boolean {
    if (typeof htu !== 'string' || htu.length > htuCharsMax) return false
    const path = pathOf(requestUrl)
    if (htu === this.#publicOrigin + path) return true
    const claimed = URL.parse(htu)
    if (claimed === null || claimed.username !== '' || claimed.password !== '') return false
    return this.#options.origins.has(claimed.origin) && normal(claimed.pathname) === normal(path)
  }

  get #publicOrigin(): string {
    const [origin = ''] = this.#options.origins
    return origin
  }
}

interface Asked {
  readonly header: 'dpop' | 'dpop-bind'
  readonly ath: string
}

/**
 * The answer to a proof, or a token beside one, that does not count. It never says `invalid_token`,
 * as RFC 6750 would: the usual client then takes it that its PDS has withdrawn the token, and after
 * a second try forgets the person's whole session there.
 */
export function dpopRefused(error: AuthError | 'use_dpop_nonce', message: string): XrpcError {
  return new XrpcError(401, error, message, {
    headers: { 'www-authenticate': `DPoP error="${error}", algs="ES256"` },
  })
}

/** Those of clients have some 500. */
const proofCharsMax = 4096
/** Keys that made a good proof, of some 1,500 bytes each. */
const keysMax = 5000
const jtiCharsMax = 256
const htuCharsMax = 2048
/** Clocks of people's devices; that a proof is not old is what the nonce shows. */
const iatSeconds = 5 * 60

/** ES256 is what every AT Protocol client has, and what a PDS asks for. */
function keyOf({ typ, alg, jwk, crit }: JsonObject): PublicJwk {
  if (typ !== 'dpop+jwt') throw invalid('typ of a proof must be dpop+jwt')
  if (alg !== 'ES256') throw invalid('alg of a proof must be ES256')
  if (crit !== undefined) throw invalid('crit names extensions, and none are known here')
  const key = readPublicJwk(jwk)
  if (key?.algorithm !== alg) throw invalid('jwk of a proof must be a public key of P-256')
  return key
}

function useNonce(): XrpcError {
  return dpopRefused('use_dpop_nonce', 'a proof needs the nonce of the header DPoP-Nonce')
}

function invalid(message: string): XrpcError {
  return dpopRefused('InvalidToken', message)
}

function pathOf(url: string): string {
  const start = url.indexOf('/', url.indexOf('://') + 3)
  const end = url.indexOf('?', start)
  return end < 0 ? url.slice(start) : url.slice(start, end)
}

/** Escapes of characters that need none become those characters. @see RFC 3986, section 6.2.2 */
function normal(path: string): string {
  return path.replaceAll(/%[0-9a-f]{2}/gi, (escape) => {
    const char = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
    return /[\w.~-]/.test(char) ? char : escape.toUpperCase()
  })
}
