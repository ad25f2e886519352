import { invalidRequest } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Config } from '../config.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import { readJson } from './body.ts'
import type { Browsers } from './browser.ts'
import { checkAccepted, checkAudience, type CredentialKind } from './caller.ts'
import { withCookies } from './cookie.ts'
import type { Credentials } from './credentials.ts'
import { sameOnLoopback } from './loopback.ts'
import { wantsPage } from './page.ts'
import { memberPage } from './pages/member.ts'
import { strangerPage, welcomePage } from './pages/welcome.ts'
import { json, privateHeaders, refusalBody, refusalOf } from './reply.ts'
import type { Scopes } from './scope.ts'
import { type Standing, type StandingSources, standingOf } from './standing.ts'

interface Parts extends StandingSources {
  readonly config: Config
  readonly browsers: Browsers
  readonly credentials: Credentials
  readonly scopes: Scopes
  /** Ends a membership; succeeds where there is none. */
  readonly leave: (did: Did, requestId: string) => Promise<void>
  readonly log: Log
}

interface Visit {
  readonly request: Request
  readonly url: URL
  /** As `clientNetwork` gives it. */
  readonly address: string
  readonly requestId: string
}

/** What people see and do on our own pages: read, look, leave. @see protocol.md, section 4.1 */
export class Account {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** `GET /`: for strangers what this is, for members where they stand. */
  async page({ request, url }: Visit): Promise<Response> {
    const { config, browsers } = this.#parts
    const elsewhere = url.hostname === 'localhost' ? sameOnLoopback(url, config) : undefined
    if (elsewhere !== undefined && wantsPage(request)) {
      return new Response(null, {
        status: 302,
        headers: { ...privateHeaders, location: elsewhere },
      })
    }
    const did = await browsers.visitor(request)
    if (did === undefined) return welcomePage(config)
    const standing = await standingOf(did, this.#parts)
    const { membership } = standing
    if (membership === undefined) return strangerPage(standing, config)
    return memberPage({ ...standing, membership }, config)
  }

  /** `GET /oauth/status` */
  status(visit: Visit): Promise<Response> {
    return this.#answer(visit, async () => {
      const { did } = await this.#caller(visit, asking)
      return json(statusOf(await standingOf(did, this.#parts)), privateHeaders)
    })
  }

  /** `POST /oauth/revoke`: leaves the service, and with it every browser. */
  revoke(visit: Visit): Promise<Response> {
    return this.#answer(visit, async ({ request, requestId }) => {
      const { browsers, leave, log } = this.#parts
      const { did, by } = await this.#caller(visit, leaving)
      await takeEmptyBody(request)
      await leave(did, requestId)
      log.info('enrollment.left', { did, requestId })
      const done = json({ success: true }, privateHeaders)
      // A cookie beside a token was not looked at, and may be somebody else's.
      return by === 'cookie' ? withCookies(done, await browsers.end(request)) : done
    })
  }

  /** `POST /oauth/signout`: leaves this browser. */
  signOut(visit: Visit): Promise<Response> {
    return this.#answer(visit, async ({ request }) => {
      const { browsers } = this.#parts
      await this.#caller(visit, {
        use: 'change',
        accepts: [],
        nsid: 'zone.stratos.server.deleteSession',
      })
      await takeEmptyBody(request)
      return withCookies(json({ success: true }, privateHeaders), await browsers.end(request))
    })
  }

  /**
   * Who asks: by a token where one came along, and by the cookie only where none did.
   * @throws XrpcError 401, 403, 429
   */
  async #caller({ request, address }: Visit, to: Door): Promise<{ did: Did; by: CredentialKind }> {
    const { browsers, credentials, scopes } = this.#parts
    const { use, accepts, nsid } = to
    if (!request.headers.has('authorization') && !request.headers.has('dpop')) {
      return { did: await browsers.require(request, use), by: 'cookie' }
    }
    const door = { nsid: undefined, audience: 'user', tokens: 'any', accepts, address } as const
    const caller = await credentials.identify(request, door)
    checkAudience(caller, 'user')
    checkAccepted(caller, accepts)
    assert(caller.kind === 'user', 'the door lets people in and nobody else')
    if (caller.scope !== undefined) scopes.check(caller.scope, { nsid, params: {}, input: {} })
    return caller
  }

  async #answer(visit: Visit, work: (visit: Visit) => Promise<Response>): Promise<Response> {
    const { requestId } = visit
    try {
      return await work(visit)
    } catch (error) {
      const refusal = refusalOf(error, { log: this.#parts.log, requestId })
      const headers = { ...privateHeaders, ...refusal.headers, 'x-request-id': requestId }
      return json(refusalBody(refusal), headers, refusal.status)
    }
  }
}

interface Door {
  readonly use: 'read' | 'change'
  /** Kinds of tokens. */
  readonly accepts: readonly CredentialKind[]
  /** The method that does the same, which the scope of a token must cover. */
  readonly nsid: string
}

const asking: Door = {
  use: 'read',
  accepts: ['session', 'dpop-token', 'bound-key'],
  nsid: 'zone.stratos.enrollment.status',
}
const leaving: Door = {
  use: 'change',
  accepts: ['session', 'dpop-token'],
  nsid: 'zone.stratos.enrollment.unenroll',
}

/** As `zone.stratos.enrollment.status`, with what only the person themselves is to know. */
function statusOf({ did, handle, membership, session, missingScopes }: Standing): object {
  const name = handle === undefined ? {} : { handle }
  if (membership === undefined) return { did, ...name, enrolled: false, session, missingScopes }
  const { active, enrolledAt, signingKey, rkey: enrollmentRkey, boundaries } = membership
  return {
    did,
    ...name,
    enrolled: true,
    active,
    enrolledAt,
    signingKey,
    enrollmentRkey,
    boundaries: boundaries.map((value) => ({ value })),
    session,
    missingScopes,
  }
}

/** Nothing can be said with a change yet, so nothing said is overheard. */
async function takeEmptyBody(request: Request): Promise<void> {
  const body = await readJson(request, { bytesMax: bodyBytesMax })
  const isEmpty = typeof body === 'object' && body !== null && !Array.isArray(body)
  if (!isEmpty || Object.keys(body).length > 0) throw invalidRequest('the body must be {}')
}

/** For `{}` and some air. */
const bodyBytesMax = 1024
