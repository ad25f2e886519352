import { type PublicJwk, readPublicJwk } from '../atproto/jwk.ts'
import { Lru } from '../lib/lru.ts'
import { Asking } from './asking.ts'
import type { Fetch } from './fetch.ts'

/**
 * Which authorization server a PDS leaves its sign-ins to, and by which keys that server signs.
 *
 * - An answer counts for 5 minutes, a failure for one, and a `fresh` look-up is made once a minute
 *   at most: strangers can cause all of them.
 * - One look-up of a kind at a time for each server, and a bounded number over all.
 * - A server speaks for itself only: its keys are at its own origin, so that nobody can send us to
 *   a third party's.
 *
 * @see https://atproto.com/specs/oauth#authorization-servers
 */
export class IssuerKeys {
  readonly #fetch: Fetch
  readonly #issuers: Answers<string>
  readonly #keys: Answers<readonly PublicJwk[]>

  constructor({ fetch, now }: { readonly fetch: Fetch; readonly now: () => number }) {
    this.#fetch = fetch
    this.#issuers = new Answers(now, (pds) => this.#askPds(pds))
    this.#keys = new Answers(now, (issuer) => this.#askIssuer(issuer))
  }

  /**
   * The origin of the authorization server of the PDS at an origin.
   * @throws IssuerUnavailable
   */
  async issuerOf(pds: string): Promise<string> {
    return await this.#issuers.get(pds, {})
  }

  /**
   * None where it signs by a secret of its own.
   * @param lookUp.fresh at most a minute old
   * @throws IssuerUnavailable
   */
  async keysOf(issuer: string, lookUp: LookUp = {}): Promise<readonly PublicJwk[]> {
    return await this.#keys.get(issuer, lookUp)
  }

  async #askPds(pds: string): Promise<string> {
    const found = await this.#document(`${pds}/.well-known/oauth-protected-resource`)
    const { resource, authorization_servers: servers } = found
    if (resource !== pds && resource !== `${pds}/`) throw new IssuerUnavailable('names another PDS')
    const [issuer, ...others] = Array.isArray(servers) ? servers : []
    if (!isOrigin(issuer) || others.length > 0) {
      throw new IssuerUnavailable('a PDS names no one authorization server')
    }
    return issuer
  }

  async #askIssuer(issuer: string): Promise<readonly PublicJwk[]> {
    const metadata = await this.#document(`${issuer}/.well-known/oauth-authorization-server`)
    const { issuer: named, jwks_uri: uri } = metadata
    if (named !== issuer) throw new IssuerUnavailable('an authorization server has another name')
    if (uri === undefined) return []
    const url = typeof uri === 'string' ? URL.parse(uri) : null
    if (url === null || url.origin !== issuer) {
      throw new IssuerUnavailable('an authorization server has its keys elsewhere')
    }
    const { keys } = await this.#document(url.href)
    if (!Array.isArray(keys) || keys.length > keysMax) {
      throw new IssuerUnavailable(`an authorization server has no list of up to ${keysMax} keys`)
    }
    // Those of other kinds verify nothing here.
    return keys.map(readPublicJwk).filter((key) => key !== undefined)
  }

  async #document(url: string): Promise<Readonly<Record<string, unknown>>> {
    const headers = { accept: 'application/json' }
    const response = await this.#fetch(url, { headers, redirect: 'error', bytesMax: bytesMax })
    if (response.status !== 200) throw new IssuerUnavailable(`answered ${response.status}`)
    const value: unknown = await response.json()
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
    throw new IssuerUnavailable('answered no object')
  }
}

/** It is not known by which keys a token would have to be signed. */
export class IssuerUnavailable extends Error {
  override readonly name = 'IssuerUnavailable'
}

interface LookUp {
  readonly fresh?: boolean
}

interface Known<Value> {
  readonly value: Value | undefined
  readonly atMs: number
  readonly failedAtMs: number
  readonly forcedAtMs: number
}

/** What servers answered, by their origin. */
class Answers<Value> {
  readonly #now: () => number
  readonly #ask: (origin: string) => Promise<Value>
  readonly #known = new Lru<string, Known<Value>>(serversMax)
  readonly #asking = new Asking<string, Known<Value>>(() => [{ name: 'all', most: askingMax }])

  constructor(now: () => number, ask: (origin: string) => Promise<Value>) {
    this.#now = now
    this.#ask = ask
  }

  async get(origin: string, { fresh = false }: LookUp): Promise<Value> {
    const known = this.#known.get(origin) ?? nothing
    if (this.#spares(known, fresh)) return this.#valueOf(known)
    const asked = await this.#asking.share(origin, () => this.#look(origin, fresh))
    if (asked === undefined) throw new IssuerUnavailable('too many servers are asked at a time')
    return this.#valueOf(asked)
  }

  #spares({ value, atMs, failedAtMs, forcedAtMs }: Known<Value>, fresh: boolean): boolean {
    const now = this.#now()
    if (fresh) return now - forcedAtMs < forcedEveryMs
    return (value !== undefined && now - atMs < freshMs) || now - failedAtMs < failureMs
  }

  #valueOf({ value, atMs }: Known<Value>): Value {
    if (value !== undefined && this.#now() - atMs < freshMs) return value
    throw new IssuerUnavailable('its server does not say by which keys it signs')
  }

  async #look(origin: string, fresh: boolean): Promise<Known<Value>> {
    const startedAtMs = this.#now()
    const before = this.#known.get(origin) ?? nothing
    const forcedAtMs = fresh ? startedAtMs : before.forcedAtMs
    let next: Known<Value>
    try {
      const value = await this.#ask(origin)
      next = { value, atMs: startedAtMs, failedAtMs: -Infinity, forcedAtMs }
    } catch {
      // The network, or an answer that is none, in many shapes: worth no more than a minute's rest.
      next = { ...before, failedAtMs: startedAtMs, forcedAtMs }
    }
    this.#known.set(origin, next)
    return next
  }
}

const freshMs = 5 * 60_000
const failureMs = 60_000
const forcedEveryMs = 60_000
/** Of each kind. */
const serversMax = 2000
/** At a time, of each kind: any account may name any PDS, and let each look-up hang. */
const askingMax = 32
/** Metadata have some 3 kB. */
const bytesMax = 64 * 1024
const keysMax = 10

const nothing = {
  value: undefined,
  atMs: -Infinity,
  failedAtMs: -Infinity,
  forcedAtMs: -Infinity,
} as const

function isOrigin(value: unknown): value is string {
  if (typeof value !== 'string' || value.length > originCharsMax) return false
  return URL.parse(value)?.origin === value && /^https?:/.test(value)
}

/** As long as a DNS name can be, with scheme and port. */
const originCharsMax = 270
