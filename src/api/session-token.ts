import { randomBytes, timingSafeEqual } from 'node:crypto'
import { XrpcError } from '../atproto/errors.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import type { SessionSecrets } from '../service/session-secrets.ts'
import { type Session, sessionDigest, sessionMs, type Sessions } from '../store/session.ts'
import { type JsonObject, readJwt } from './jwt.ts'
import { unauthorized } from './service-auth.ts'

interface Parts {
  readonly serviceDid: Did
  readonly secrets: SessionSecrets
  readonly sessions: Sessions
  readonly now: () => number
}

/**
 * Tokens of our own, by which somebody calls for a quarter of an hour without asking their PDS for
 * each call.
 *
 * - Nothing but its `typ` makes a token one of these, and it is then checked as one and no other.
 * - Remembered is only what certain bytes say and that one of our secrets signed them. Whether that
 *   secret still counts, whether the time is right, and whether the session is still there, is
 *   looked at on every use: the store is asked, so that whatever ends a session there ends it here.
 * - Who learns a secret still lacks the id of a session; who reads the store finds hashes of ids.
 *
 * @see protocol.md, section 4.4
 */
export class SessionTokens {
  readonly #parts: Parts
  readonly #verified = new Lru<string, Verified>(verifiedMax)

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /**
   * Begins a session.
   * @throws XrpcError 403 NotEnrolled for whoever is no active member
   */
  async issue(did: Did): Promise<{ readonly token: string; readonly expiresAtMs: number }> {
    const { serviceDid, secrets, sessions, now } = this.#parts
    const nowMs = now()
    const iat = Math.floor(nowMs / 1000)
    const exp = iat + lifetimeSeconds
    const sid = randomBytes(idBytes).toString('base64url')
    const session = { digest: sessionDigest(sid), did, expiresAtMs: exp * 1000 }
    if (!(await sessions.create(session, nowMs))) {
      const message = 'sessions are for active members of this service'
      throw new XrpcError(403, 'NotEnrolled', message)
    }
    const { kid, secret } = secrets.current
    const header = { typ: sessionType, alg: 'HS256', kid }
    const claims = { iss: serviceDid, aud: serviceDid, sub: did, sid, iat, exp }
    const signed = `${encode(header)}.${encode(claims)}`
    const mac = Buffer.from(hmac(signed, secret)).toString('base64url')
    return { token: `${signed}.${mac}`, expiresAtMs: session.expiresAtMs }
  }

  /** @throws XrpcError 401 InvalidToken, ExpiredToken */
  async verify(token: string): Promise<Session> {
    const { secrets, sessions, now } = this.#parts
    const digest = Bun.SHA256.hash(token, 'base64url')
    const known = this.#verified.get(digest)
    const verified = known ?? this.#read(token)
    if (secrets.find(verified.kid) === undefined) throw invalid('its kid names no secret of ours')
    const nowMs = now()
    checkTimes(verified, nowMs / 1000)
    const session = await sessions.find(verified.session, nowMs)
    const { sub, exp } = verified
    if (session === undefined || session.did !== sub || session.expiresAtMs !== exp * 1000) {
      throw invalid('the session has ended')
    }
    if (known === undefined) this.#verified.set(digest, verified)
    return session
  }

  /** The claims count for nothing before the signature was found good. */
  #read(token: string): Verified {
    const jwt = readJwt(token)
    if (jwt === undefined) throw invalid('this is no JWT')
    const kid = checkHeader(jwt.header)
    const secret = this.#parts.secrets.find(kid)
    if (secret === undefined) throw invalid('its kid names no secret of ours')
    const mac = hmac(jwt.signed, secret)
    if (jwt.sig.length !== mac.length || !timingSafeEqual(jwt.sig, mac)) {
      throw invalid('the signature is not by the secret that its kid names')
    }
    return { kid, ...this.#claims(jwt.claims) }
  }

  #claims({ iss, aud, sub, sid, iat, exp }: JsonObject): Omit<Verified, 'kid'> {
    const { serviceDid } = this.#parts
    if (iss !== serviceDid) throw invalid('iss must be this service')
    if (aud !== serviceDid) throw invalid('aud must be this service')
    if (typeof sub !== 'string' || !isDid(sub)) throw invalid('sub must be a DID')
    if (typeof sid !== 'string' || sid === '') throw invalid('sid must name a session')
    if (!isTime(iat) || !isTime(exp)) throw invalid('iat and exp must be times')
    return { sub, session: sessionDigest(sid), iat, exp }
  }
}

/** The type of these tokens, as their header names it. */
export const sessionType = 'stratos+jwt'

interface Verified {
  readonly kid: string
  readonly sub: Did
  /** Hash of the id. */
  readonly session: string
  readonly iat: number
  readonly exp: number
}

const lifetimeSeconds = sessionMs / 1000
/** For an instance of this service whose clock goes before ours. */
const leewaySeconds = 30
/** Nobody guesses one. */
const idBytes = 16
/** Some 500 bytes each. */
const verifiedMax = 10_000

function checkHeader({ typ, alg, kid, crit }: JsonObject): string {
  if (typ !== sessionType) throw invalid(`typ must be ${sessionType}`)
  if (alg !== 'HS256') throw invalid('alg must be HS256')
  if (crit !== undefined) throw invalid('crit names extensions, and none are known here')
  if (typeof kid !== 'string') throw invalid('kid must name a secret')
  return kid
}

function checkTimes({ iat, exp }: Verified, nowSeconds: number): void {
  if (exp <= nowSeconds) throw unauthorized('ExpiredToken', 'the session is over')
  if (iat > nowSeconds + leewaySeconds) throw invalid('the token is from the future')
  if (exp - iat > lifetimeSeconds) throw invalid('the token lives longer than a session')
}

/** Whole seconds since the epoch. */
function isTime(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

function hmac(signed: string | Uint8Array, secret: Uint8Array): Uint8Array {
  return new Bun.CryptoHasher('sha256', secret).update(signed).digest()
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function invalid(message: string): XrpcError {
  return unauthorized('InvalidToken', message)
}
