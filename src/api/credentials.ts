import { isDid } from '../atproto/syntax.ts'
import { isLoopbackHost } from '../config.ts'
import { Tally } from '../lib/tally.ts'
import type { AppViews } from './appviews.ts'
import { type AuthFailures, tooManyFailures } from './auth-failures.ts'
import type { Browsers } from './browser.ts'
import type { Caller, Door, Doorkeeper } from './caller.ts'
import type { Dpop } from './dpop.ts'
import { dpopRefused } from './dpop-proof.ts'
import { jwtType } from './jwt.ts'
import { isSame } from './secret.ts'
import { type ServiceAuth, unauthorized } from './service-auth.ts'
import { sessionType, type SessionTokens } from './session-token.ts'
import { type StreamCredentials, syncTokenOf } from './stream-credential.ts'

interface Options {
  readonly serviceAuth: ServiceAuth
  readonly sessions: SessionTokens
  readonly browsers: Browsers
  readonly dpop: Dpop
  readonly stream: StreamCredentials
  /** Empty: there is no operator. */
  readonly adminPassword: string
  /** Empty: there is none. */
  readonly modServiceDid: string
  readonly appViews: AppViews
  readonly devMode: boolean
  readonly failures: AuthFailures
  readonly now: () => number
}

/**
 * Tells who calls. The kind of credential follows from its form alone and is checked as that kind
 * and no other. A credential that is there and does not count is refused, never overlooked.
 */
export class Credentials implements Doorkeeper {
  readonly #options: Options
  readonly #adminFailures = new Tally({ windowMs: minuteMs, keysMax: addressesMax })

  constructor(options: Options) {
    this.#options = options
  }

  /**
   * What the caller's kind and credential open is for the door to say.
   * @throws XrpcError 401 AuthMissing, InvalidToken, ExpiredToken; 403 for a cookie that does not
   *   count; 400; 429; 503
   */
  async identify(request: Request, door: Door): Promise<Caller> {
    const { nsid, address } = door
    const inQuery = door.audience === 'stream' ? syncTokenOf(request) : undefined
    if (inQuery !== undefined && nsid !== undefined) {
      const to = { nsid, address }
      return await this.#options.failures.counted(address, () =>
        this.#options.stream.identify(inQuery, to),
      )
    }
    const header = request.headers.get('authorization')
    if (header === null) {
      if (!request.headers.has('dpop')) return await this.#visitor(request, door)
      throw dpopRefused('AuthMissing', 'a proof alone, without its token, is no credential')
    }
    const [scheme, credential] = split(header)
    // The operator's tries are counted apart, so that nobody else's can lock the operator out.
    if (scheme === 'basic') return this.#operator(basicPassword(credential), door)
    const forOperator = door.audience === 'admin' || door.audience === 'moderation'
    if (scheme === 'bearer' && forOperator && isOpaque(credential)) {
      return this.#operator(credential, door)
    }
    return await this.#options.failures.counted(address, async () => {
      if (scheme === 'bearer') return await this.#bearer(credential, { request, door })
      if (scheme === 'dpop') {
        return await this.#options.dpop.identify(credential, { request, address })
      }
      throw unauthorized('InvalidToken', 'this scheme of Authorization is not accepted')
    })
  }

  /** Nobody, or where a cookie counts at all whoever signed in with this browser. */
  async #visitor(request: Request, { accepts }: Door): Promise<Caller> {
    if (!accepts.includes('cookie')) return { kind: 'anonymous' }
    const did = await this.#options.browsers.caller(request)
    return did === undefined ? { kind: 'anonymous' } : { kind: 'user', did, by: 'cookie' }
  }

  async #bearer(
    credential: string,
    { request, door }: { request: Request; door: Door },
  ): Promise<Caller> {
    if (credential.startsWith('did:')) return this.#developer(credential, request)
    if (isOpaque(credential)) {
      const holder =
        door.audience === 'stream' ? this.#options.stream.holder(credential) : undefined
      if (holder !== undefined) return holder
      throw unauthorized('InvalidToken', 'this is no token that the service knows')
    }
    if (jwtType(credential) === sessionType) {
      const session = await this.#options.sessions.verify(credential)
      return { kind: 'user', did: session.did, by: 'session', session }
    }
    const { nsid, tokens, fragment, address } = door
    if (nsid === undefined) throw unauthorized('InvalidToken', 'this is no token for this place')
    const did = await this.#options.serviceAuth.verify(credential, {
      nsid,
      tokens,
      fragment,
      address,
    })
    // Elsewhere the moderation service is what everybody else is: a person, or an AppView.
    const moderates = door.audience === 'moderation' && did === this.#options.modServiceDid
    if (moderates) return { kind: 'moderator', did }
    return (await this.#options.appViews.find(did)) ?? { kind: 'user', did, by: 'service-auth' }
  }

  /** When the tries of an address are used up, a wrong password is no longer answered 401. */
  #operator(password: string | undefined, door: Door): Caller {
    const { adminPassword } = this.#options
    if (adminPassword !== '' && password !== undefined && isSame(password, adminPassword)) {
      return { kind: 'admin' }
    }
    const source = door.address
    const nowMs = this.#options.now()
    if (this.#adminFailures.count(source, nowMs) >= adminFailuresPerMinute) {
      throw tooManyFailures(this.#adminFailures.remainingMs(nowMs))
    }
    this.#adminFailures.add(source, nowMs)
    throw unauthorized('InvalidToken', 'these are not the credentials of the operator')
  }

  /** Development only: a name without proof, from this machine and through no proxy. */
  #developer(did: string, { headers }: Request): Caller {
    const origin = headers.get('origin')
    const local =
      this.#options.devMode &&
      isLoopbackHost(hostname(`http://${headers.get('host') ?? ''}`)) &&
      (origin === null || isLoopbackHost(hostname(origin))) &&
      ![...headers.keys()].some((name) => forwarding.test(name))
    if (!local || !isDid(did)) throw unauthorized('InvalidToken', 'a DID alone is no credential')
    return { kind: 'user', did, by: 'development' }
  }
}

const minuteMs = 60_000
/** Addresses that are counted apart; further ones share a counter until the minute is over. */
const addressesMax = 10_000
const adminFailuresPerMinute = 20
const forwarding = /^(forwarded|via|x-forwarded-.*|x-real-ip)$/

function split(header: string): [scheme: string, credential: string] {
  const space = header.indexOf(' ')
  if (space < 0) return [header.toLowerCase(), '']
  return [header.slice(0, space).toLowerCase(), header.slice(space + 1).trim()]
}

/** Neither a DID nor the three parts of a JWT. */
function isOpaque(credential: string): boolean {
  return !credential.startsWith('did:') && credential.split('.').length !== 3
}

/**
 * The password of `admin`; undefined for any other name and for what is no Basic credential. What
 * Base64 leaves open is refused: two headers in one would else be read as the first of them.
 */
function basicPassword(credential: string): string | undefined {
  const bytes = Buffer.from(credential, 'base64')
  if (bytes.toString('base64') !== credential) return undefined
  const text = bytes.toString('utf8')
  return text.startsWith('admin:') ? text.slice('admin:'.length) : undefined
}

function hostname(url: string): string {
  return URL.canParse(url) ? new URL(url).hostname : ''
}
