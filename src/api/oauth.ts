import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { enrollmentCollection } from '../atproto/enrollment.ts'
import { invalidRequest, overloaded, XrpcError } from '../atproto/errors.ts'
import { type Did, type Handle, isDid, isHandle } from '../atproto/syntax.ts'
import { type Config, isLoopbackHost } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { Tally } from '../lib/tally.ts'
import { Asking } from '../remote/asking.ts'
import {
  DidNotResolved,
  HandleUnavailable,
  type Identities,
  PdsEndpointNotFound,
} from '../remote/identity.ts'
import { missingScopes } from '../remote/oauth-client.ts'
import type { OAuth, PendingSession } from '../remote/oauth.ts'
import {
  HandleNotResolved,
  OAuthCallbackRejected,
  OAuthDenied,
  OAuthUnavailable,
} from '../remote/oauth-errors.ts'
import { type Eligibility, enrollmentDenied } from '../service/eligibility.ts'
import type { Enrollments } from '../service/enrollment.ts'
import { type OauthStates, oauthStateMaxMs } from '../store/oauth-state.ts'
import type { Browsers } from './browser.ts'
import { Cookie, withCookies } from './cookie.ts'
import { sameOnLoopback } from './loopback.ts'
import { messagePage, wantsPage } from './page.ts'
import { json, privateHeaders, refusalBody, refusalOf } from './reply.ts'

interface Parts {
  readonly config: Pick<Config, 'publicUrl' | 'port' | 'redirectOrigins' | 'operatorContact'>
  readonly oauth: OAuth
  readonly identities: Identities
  readonly eligibility: Eligibility
  readonly enrollments: Enrollments
  readonly states: OauthStates
  readonly browsers: Browsers
  /** What is asked of the PDS. */
  readonly scope: string
  readonly log: Log
}

interface Visit {
  readonly request: Request
  readonly url: URL
  readonly address: string
  readonly requestId: string
}

/** What is kept of a sign-in between its start and its return. */
interface StartedSignIn {
  /** The OAuth library's own part. */
  readonly saved: string
  /** SHA-256 of the value in the browser's cookie. */
  readonly browser: string
  readonly redirectUri: string | null
}

/** How people join: from here to their PDS and back. @see protocol.md, section 4.1 */
export class SignIn {
  readonly #parts: Parts
  readonly #cookie: Cookie
  readonly #started = new Tally({ windowMs: 60_000, keysMax: 10_000 })
  readonly #underWay = new Asking<Visit, Response>(({ address }) => [
    { name: 'all', most: underWayMax },
    { name: address, most: underWayOfAddressMax },
  ])

  constructor(parts: Parts) {
    this.#parts = parts
    this.#cookie = new Cookie('stratos-signin', parts.config.publicUrl)
  }

  /** `GET /oauth/authorize`: to the PDS, with a cookie that ties the return to this browser. */
  async authorize(visit: Visit): Promise<Response> {
    const elsewhere = sameOnLoopback(visit.url, this.#parts.config)
    if (elsewhere !== undefined) return redirect(elsewhere)
    return await this.#inRoom(visit, () => this.#authorize(visit))
  }

  /** `GET /oauth/callback`: enrolls whoever the PDS says has signed in. */
  async callback(visit: Visit): Promise<Response> {
    return await this.#inRoom(visit, () => this.#callback(visit))
  }

  /** Both speak to servers that strangers choose, and that may let each request hang. */
  async #inRoom(visit: Visit, task: () => Promise<Response>): Promise<Response> {
    const busy = overloaded('too many sign-ins are under way, try again in a moment')
    return await (this.#underWay.share(visit, task) ?? this.#refuse(busy, visit))
  }

  async #authorize(visit: Visit): Promise<Response> {
    let key: string | undefined
    try {
      const redirectUri = this.#redirectUri(visit.url.searchParams)
      const identifier = identifierOf(visit.url.searchParams)
      await this.#checkPressure(visit.address)
      const secret = randomBytes(32).toString('base64url')
      const { oauth, states } = this.#parts
      const target = await oauth.authorize(identifier, async (state, saved) => {
        const started: StartedSignIn = { saved, redirectUri, browser: digest(secret) }
        key = state
        const value = JSON.stringify(started)
        await states.save({ key, value, address: visit.address, nowMs: Date.now() })
      })
      const cookie = this.#cookie.write(secret, oauthStateMaxMs / 1000)
      return withCookies(redirect(target.href), cookie)
    } catch (error) {
      if (key !== undefined) await this.#parts.states.take(key)
      return this.#refuse(signInRefusal(error), visit)
    }
  }

  async #callback(visit: Visit): Promise<Response> {
    const secret = this.#cookie.read(visit.request)
    let back: string | null = null
    let did: Did | undefined
    try {
      const { oauth } = this.#parts
      const pending = await oauth.callback(visit.url.searchParams, async (state) => {
        const started = await this.#take(state, secret)
        back = started?.redirectUri ?? null
        return started?.saved
      })
      did = pending.did
      await this.#enroll(pending, visit.requestId)
      // The list may have become another since it was asked.
      await this.#parts.eligibility.enforce(pending.did)
      const session = await this.#parts.browsers.begin(pending.did, visit.request)
      return withCookies(welcome(pending.did, visit, back), this.#cookie.remove(), session)
    } catch (error) {
      const refusal = refusalOf(signInRefusal(error), {
        log: this.#parts.log,
        requestId: visit.requestId,
      })
      // A return that does not count is nobody's: no app is told of it either.
      const isForged = error instanceof OAuthCallbackRejected
      if (isForged || back === null) return await this.#refuseReturn(refusal, { visit, did })
      const { reason } = refusal.fields
      const target = withParameter(back, 'stratos_error', refusal.error)
      const isDenied = typeof reason === 'string'
      const denied = isDenied ? withParameter(target, 'stratos_error_reason', reason) : target
      return withCookies(redirect(denied), this.#cookie.remove())
    }
  }

  /** Whoever is a member and may not stay one still gets to the page, where they can leave. */
  async #refuseReturn(
    refusal: XrpcError,
    { visit, did }: { readonly visit: Visit; readonly did: Did | undefined },
  ): Promise<Response> {
    const { browsers, enrollments } = this.#parts
    const isDenied = refusal.error === 'EnrollmentDenied' && wantsPage(visit.request)
    if (!isDenied || did === undefined || (await enrollments.member(did)) === undefined) {
      return this.#refuse(refusal, visit)
    }
    const session = await browsers.begin(did, visit.request)
    return withCookies(welcome(did, visit, null), this.#cookie.remove(), session)
  }

  async #enroll(pending: PendingSession, requestId: string): Promise<void> {
    const { did, grantedScope, saved } = pending
    const { identities, eligibility, enrollments, scope, log } = this.#parts
    try {
      const missing = missingScopes(scope, grantedScope)
      if (missing.includes(`repo:${enrollmentCollection}`) || missing.includes('atproto')) {
        const message = `the PDS did not grant what enrollment needs: ${missing.join(' ')}`
        throw new XrpcError(403, 'ScopeMissing', message)
      }
      if (missing.length > 0) log.warn('enrollment.scope.lesser', { did, missing })
      const pdsEndpoint = await identities.pdsEndpoint(did)
      // Else somebody could be admitted by a PDS that never said who they are.
      if (pdsEndpoint !== pending.pdsEndpoint) {
        throw new OAuthCallbackRejected('the account has moved to another PDS meanwhile')
      }
      await eligibility.check(did, pdsEndpoint)
      const oauthSession = saved
      await pending.keep(async () => {
        const person = { did, pdsEndpoint, scope: grantedScope, oauthSession, requestId }
        await enrollments.enroll(person)
      })
      log.info('enrollment.done', { did, requestId })
    } catch (error) {
      await pending.discard().catch((discardError: unknown) => {
        log.warn('enrollment.session.not-revoked', { did, error: discardError })
      })
      throw error
    }
  }

  /** The started sign-in, for good, and only to the browser that started it. */
  async #take(state: string, secret: string | undefined): Promise<StartedSignIn | undefined> {
    const { states } = this.#parts
    const text = await states.find(state, Date.now())
    if (text === undefined || secret === undefined) return undefined
    const started: StartedSignIn = JSON.parse(text)
    const given = Buffer.from(digest(secret))
    if (!timingSafeEqual(given, Buffer.from(started.browser))) return undefined
    return (await states.take(state)) ? started : undefined
  }

  #refuse(error: unknown, { request, requestId }: Visit): Response {
    const refusal = refusalOf(error, { log: this.#parts.log, requestId })
    const headers = { ...refusal.headers, 'x-request-id': requestId }
    const { status } = refusal
    if (wantsPage(request)) {
      return messagePage('This did not work', this.#explained(refusal), { status, headers })
    }
    return json(refusalBody(refusal), { ...privateHeaders, ...headers }, status)
  }

  /** What to tell people: whoever was denied also needs to know whom to ask. */
  #explained({ message, fields }: XrpcError): string {
    const { operatorContact } = this.#parts.config
    const reason = fields['reason']
    if (reason !== 'NotInAllowlist' && reason !== 'ServiceClosed') return message
    const contact = operatorContact === '' ? '' : `: ${operatorContact}`
    return `${message}. Ask the operator of this service to be admitted${contact}`
  }

  /** @throws XrpcError 400 for a place that the operator did not allow */
  #redirectUri(params: URLSearchParams): string | null {
    const text = params.get('redirect_uri')
    if (text === null) return null
    const url = URL.canParse(text) ? new URL(text) : undefined
    const { redirectOrigins, publicUrl } = this.#parts.config
    const secure =
      url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopbackHost(url.hostname))
    if (url !== undefined && secure && url.username === '' && url.password === '') {
      if ([publicUrl, ...redirectOrigins].includes(url.origin)) return url.href
    }
    throw invalidRequest('redirect_uri is not at an origin that this service returns to')
  }

  /** Starting costs us calls to others and a row: both are bounded. */
  async #checkPressure(address: string): Promise<void> {
    const nowMs = Date.now()
    if (this.#started.count(address, nowMs) >= startsPerMinute) {
      const seconds = Math.ceil(this.#started.remainingMs(nowMs) / 1000)
      throw new XrpcError(429, 'RateLimitExceeded', 'too many sign-ins from your address', {
        headers: { 'retry-after': String(seconds) },
      })
    }
    this.#started.add(address, nowMs)
    const { all, ofAddress } = await this.#parts.states.count(address, nowMs)
    if (all >= startedMax || ofAddress >= startedOfAddressMax) {
      throw overloaded('too many sign-ins are under way, try again in some minutes')
    }
  }
}

/** Each holds a connection or two, of which this process has a few hundred. */
const underWayMax = 128
const underWayOfAddressMax = 16
const startsPerMinute = 60
/** Sign-ins that have not come back yet. */
const startedMax = 10_000
/** A household or an office, not a flood. */
const startedOfAddressMax = 100

/** Refusals for people, out of what can go wrong between here and a PDS. */
function signInRefusal(error: unknown): unknown {
  if (error instanceof OAuthDenied) return new XrpcError(400, 'AccessDenied', error.message)
  if (error instanceof OAuthCallbackRejected) {
    return new XrpcError(400, 'InvalidRequest', error.message)
  }
  if (error instanceof HandleNotResolved) {
    return new XrpcError(400, 'HandleNotResolved', error.message)
  }
  if (error instanceof HandleUnavailable) return overloaded(error.message)
  if (error instanceof DidNotResolved) return enrollmentDenied('DidNotResolved', error.message)
  if (error instanceof PdsEndpointNotFound) {
    return enrollmentDenied('PdsEndpointNotFound', error.message)
  }
  if (error instanceof OAuthUnavailable) return new XrpcError(502, 'UpstreamFailure', error.message)
  return error
}

/** What an enrollment ends with: the app that began it, our own page, or an answer for a program. */
function welcome(did: Did, { request }: Visit, back: string | null): Response {
  if (back !== null) return redirect(withParameter(back, 'stratos_enrolled', 'true'))
  if (wantsPage(request)) return redirect('/', 303)
  return json(
    { success: true, did, enrolled: true, message: `${did} is enrolled.` },
    privateHeaders,
  )
}

function identifierOf(params: URLSearchParams): Did | Handle {
  const text = (params.get('handle') ?? '').trim().replace(/^@/, '')
  if (isDid(text)) return text
  const handle = text.toLowerCase()
  if (isHandle(handle)) return handle
  throw invalidRequest('handle must be a handle or a DID, as in you.example.com')
}

function digest(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}

function withParameter(target: string, name: string, value: string): string {
  const url = new URL(target)
  url.searchParams.set(name, value)
  return url.href
}

function redirect(location: string, status: 302 | 303 = 302): Response {
  return new Response(null, { status, headers: { location, ...privateHeaders } })
}
