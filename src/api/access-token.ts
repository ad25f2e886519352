import { overloaded } from '../atproto/errors.ts'
import type { PublicJwk } from '../atproto/jwk.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import { DidNotResolved, type Identities, PdsEndpointNotFound } from '../remote/identity.ts'
import { type IssuerKeys, IssuerUnavailable } from '../remote/issuer-keys.ts'
import { dpopRefused } from './dpop-proof.ts'
import { type JsonObject, isTime, readJwt } from './jwt.ts'

/** A token of a PDS as it reads, not believed: nothing in it is known to be true. */
export interface ReadToken {
  readonly text: string
  /** SHA-256 of it. */
  readonly digest: string
  readonly header: JsonObject
  readonly claims: JsonObject
  /** Whose it says it is. */
  readonly did: Did
  /** When it says that it ends. */
  readonly expiresAtMs: number | undefined
}

interface Options {
  readonly serviceDid: Did
  readonly identities: Identities
  readonly issuerKeys: IssuerKeys
  readonly now: () => number
}

/**
 * Access tokens that PDSes gave to apps.
 *
 * Who signed one is looked up from the account that it names: its DID, its PDS, the authorization
 * server of that, the keys of that. Where a token says to look is never looked at.
 * @see protocol.md, section 3.3
 */
export class AccessTokens {
  readonly #options: Options
  /** Those that counted once, by digest: what they say, and by which key they verified. */
  readonly #known = new Lru<string, Known>(knownMax)

  constructor(options: Options) {
    this.#options = options
  }

  /**
   * What a token says, where that is not against it from the start.
   * @param bound.thumbprint of the key that it must be bound to
   * @throws XrpcError 401 InvalidToken, ExpiredToken
   */
  read(text: string, { digest, thumbprint }: Bound): ReadToken {
    const { header, claims } = this.#known.get(digest) ?? readParts(text)
    const { sub, exp, cnf } = claims
    if (typeof sub !== 'string' || !isDid(sub)) throw invalid('sub of the token must be a DID')
    if (exp !== undefined && !isTime(exp)) throw invalid('exp of the token must be a time')
    if (exp !== undefined && exp * 1000 <= this.#options.now()) throw expired()
    if (!isBoundTo(cnf, thumbprint)) throw invalid('the token is not bound to the key of the proof')
    const expiresAtMs = exp === undefined ? undefined : exp * 1000
    return { text, digest, header, claims, did: sub, expiresAtMs }
  }

  /** To be said of a token that counted: it is not read again for the next request. */
  remember({ digest, header, claims }: ReadToken): void {
    if (this.#known.get(digest) === undefined) this.#known.set(digest, { header, claims })
  }

  /**
   * Passes a token that the authorization server of the account's own PDS signed for us.
   * @returns its scope
   * @throws XrpcError 401 InvalidToken; 503 Overloaded when it is the PLC directory that keeps us
   *   from knowing
   */
  async verify(token: ReadToken): Promise<string> {
    const { claims, did } = token
    const algorithm = checkForm(token)
    this.#checkTimes(claims)
    const pds = await this.#pdsOf(did)
    if (!isFor(claims['aud'], [pds, `${pds}/`, didOf(pds), this.#options.serviceDid])) {
      throw invalid('aud of the token must be the PDS of the account, or this service')
    }
    await this.#checkSigned(token, { pds, algorithm })
    const { scope } = claims
    return typeof scope === 'string' ? scope : ''
  }

  #checkTimes({ exp, iat, nbf }: JsonObject): void {
    if (exp === undefined) throw invalid('the token needs an exp')
    for (const from of [iat, nbf]) {
      if (from === undefined) continue
      if (!isTime(from)) throw invalid('iat and nbf of the token must be times')
      if (from > this.#options.now() / 1000 + leewaySeconds) {
        throw invalid('the token is from the future')
      }
    }
  }

  async #checkSigned(
    token: ReadToken,
    { pds, algorithm }: { readonly pds: string; readonly algorithm: string },
  ): Promise<void> {
    const { issuerKeys } = this.#options
    const { claims, header } = token
    try {
      const issuer = await issuerKeys.issuerOf(pds)
      if (claims['iss'] !== issuer) {
        throw invalid('iss of the token must be the authorization server of the PDS')
      }
      const fitting = (key: PublicJwk) =>
        key.algorithm === algorithm && (header['kid'] === undefined || key.kid === header['kid'])
      let keys = (await issuerKeys.keysOf(issuer)).filter(fitting)
      if (keys.length === 0) {
        // It may have changed its keys since we asked.
        keys = (await issuerKeys.keysOf(issuer, { fresh: true })).filter(fitting)
      }
      if (keys.length === 0) throw unprovable('its authorization server publishes no such key')
      if (!this.#verifies(token, keys)) {
        throw invalid('the token is not signed by the authorization server of the PDS')
      }
    } catch (error) {
      if (!(error instanceof IssuerUnavailable)) throw error
      throw unprovable('the keys of its authorization server cannot be had now')
    }
  }

  #verifies(token: ReadToken, keys: readonly PublicJwk[]): boolean {
    const { digest, header, claims, text } = token
    const verifiedBy = this.#known.get(digest)?.verifiedBy
    if (keys.some(({ thumbprint }) => thumbprint === verifiedBy)) return true
    const { signed, sig } = readParts(text)
    const key = keys.find((one) => one.verify(signed, sig))
    if (key === undefined) return false
    this.#known.set(digest, { header, claims, verifiedBy: key.thumbprint })
    return true
  }

  async #pdsOf(did: Did): Promise<string> {
    try {
      return await this.#options.identities.pdsEndpoint(did)
    } catch (error) {
      if (error instanceof PdsEndpointNotFound) throw invalid('the account has no PDS')
      if (!(error instanceof DidNotResolved)) throw error
      // As with service auth: the directory is ours to depend on, a host of the account's is not.
      const passing = error.failure === 'unreachable' || error.failure === 'busy'
      if (passing && did.startsWith('did:plc:')) {
        throw overloaded('the DID of the token cannot be looked up now')
      }
      throw invalid('the DID of the token leads to no document')
    }
  }
}

interface Bound {
  readonly digest: string
  readonly thumbprint: string
}

interface Known {
  readonly header: JsonObject
  readonly claims: JsonObject
  /** Thumbprint of a key. It counts only while the issuer still has that key. */
  readonly verifiedBy?: string
}

/** Some 1,500 bytes each. */
const knownMax = 5000
/** For clocks that go before ours. */
const leewaySeconds = 30
/** A key in the token itself, or the place of one: what a forger would like to have used. */
const keysWithin = ['jwk', 'jku', 'x5u', 'x5c', 'crit'] as const

/** All algorithms by which a JWT is signed; `none` is not one. */
const signatures = /^([HREP]S(256|384|512)|ES256K|EdDSA|Ed25519)$/

function readParts(text: string) {
  const jwt = readJwt(text)
  if (jwt === undefined) throw invalid('the token is no JWT')
  const { header } = jwt
  if (keysWithin.some((name) => name in header)) {
    throw invalid(`the token must not hold ${keysWithin.join(', ')}`)
  }
  const { alg } = header
  if (typeof alg !== 'string' || !signatures.test(alg)) {
    throw invalid('the token must be signed')
  }
  return jwt
}

/** @returns the algorithm */
function checkForm({ header, claims }: ReadToken): string {
  const { alg, typ, kid } = header
  // As most PDSes do: nobody but themselves can tell such a token from a forged one.
  if (alg !== 'ES256' && alg !== 'ES256K') throw unprovable('nobody but its PDS can verify it')
  if (typ !== 'at+jwt') throw invalid('typ of the token must be at+jwt')
  if (kid !== undefined && typeof kid !== 'string') throw invalid('kid of the token must be a name')
  if (typeof claims['iss'] !== 'string') throw invalid('the token needs an iss')
  return alg
}

function isBoundTo(cnf: unknown, thumbprint: string): boolean {
  return typeof cnf === 'object' && cnf !== null && 'jkt' in cnf && cnf.jkt === thumbprint
}

function isFor(aud: unknown, accepted: readonly string[]): boolean {
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  return audiences.some((one) => typeof one === 'string' && accepted.includes(one))
}

/** The did:web of a server at its origin. */
function didOf(origin: string): string {
  return `did:web:${encodeURIComponent(new URL(origin).host)}`
}

function expired() {
  return dpopRefused('ExpiredToken', 'the token is expired')
}

function unprovable(why: string) {
  const way = 'bind the key of the proof by zone.stratos.server.bindKey, and the token will do'
  return dpopRefused('InvalidToken', `the token proves nothing here, since ${why}: ${way}`)
}

function invalid(message: string) {
  return dpopRefused('InvalidToken', message)
}
