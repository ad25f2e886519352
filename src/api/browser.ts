import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { type Config, isLoopbackHost } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { type BrowserSessions, browserSessionMs } from '../store/browser-session.ts'
import { isJson } from './body.ts'
import { Cookie } from './cookie.ts'
import { unauthorized } from './service-auth.ts'

/** What somebody wants from the cookie: our page in a window, data to read, or a change. */
type Use = 'page' | 'read' | 'change'

interface Parts {
  readonly config: Pick<Config, 'publicUrl' | 'port'>
  readonly sessions: BrowserSessions
  readonly log: Log
}

/**
 * Who signed in with a browser, by a cookie that counts on requests of our own pages only.
 *
 * - A change needs an `Origin`, which is that of the host asked for.
 * - Reading needs that no header tells of another site. A page may be opened from anywhere in a
 *   window of its own, where nothing but the person sees it: sign-ins come back in that way.
 * - The host asked for must be ours, always: a foreign name may be made to lead here.
 *
 * @see protocol.md, sections 3 and 4.4
 */
export class Browsers {
  readonly #sessions: BrowserSessions
  readonly #log: Log
  readonly #cookie: Cookie
  readonly #origins: ReadonlySet<string>
  readonly #hosts: ReadonlySet<string>
  #toldOfHost = false

  constructor({ config, sessions, log }: Parts) {
    this.#sessions = sessions
    this.#log = log
    this.#cookie = new Cookie('stratos-session', config.publicUrl)
    this.#origins = ownOrigins(config)
    this.#hosts = new Set([...this.#origins].map((origin) => new URL(origin).host))
  }

  /** Signs somebody in, in place of whoever was. @returns the line that sets the cookie */
  async begin(did: Did, request: Request): Promise<string> {
    const before = this.#tokenOf(request)
    if (before !== undefined) await this.#sessions.drop(before)
    const token = await this.#sessions.create(did, Date.now())
    return this.#cookie.write(token, browserSessionMs / 1000)
  }

  /** Signs out. @returns the line that removes the cookie */
  async end(request: Request): Promise<string> {
    const token = this.#tokenOf(request)
    if (token !== undefined) await this.#sessions.drop(token)
    return this.#cookie.remove()
  }

  /** Who opens a page; nobody where the cookie does not count. */
  async visitor(request: Request): Promise<Did | undefined> {
    return this.#refusal(request, 'page') === undefined ? await this.#find(request) : undefined
  }

  /**
   * Who calls a method by the cookie; nobody where none came along. It counts as for a change, and
   * on a JSON request only.
   * @throws XrpcError 401 AuthMissing, 403 Forbidden
   */
  async caller(request: Request): Promise<Did | undefined> {
    if (this.#tokenOf(request) === undefined) return undefined
    if (!isJson(request)) throw new XrpcError(403, 'Forbidden', 'the cookie counts on JSON only')
    return await this.require(request, 'change')
  }

  /** @throws XrpcError 401 AuthMissing, 403 Forbidden */
  async require(request: Request, use: 'read' | 'change'): Promise<Did> {
    const refusal = this.#refusal(request, use)
    if (refusal !== undefined) throw new XrpcError(403, 'Forbidden', refusal)
    const did = await this.#find(request)
    if (did === undefined) throw unauthorized('AuthMissing', 'nobody is signed in here')
    return did
  }

  async #find(request: Request): Promise<Did | undefined> {
    const token = this.#tokenOf(request)
    return token === undefined ? undefined : await this.#sessions.find(token, Date.now())
  }

  #tokenOf(request: Request): string | undefined {
    const value = this.#cookie.read(request)
    return value !== undefined && tokenForm.test(value) ? value : undefined
  }

  /** Why the cookie does not count on this request; nothing where it does. */
  #refusal(request: Request, use: Use): string | undefined {
    const { headers } = request
    const host = headers.get('host') ?? ''
    const origin = headers.get('origin')
    const site = headers.get('sec-fetch-site')
    if (!this.#hosts.has(host)) {
      if (this.#tokenOf(request) !== undefined) this.#tellOfHost(host)
      return 'the Host header does not name this service'
    }
    if (origin !== null && !(this.#origins.has(origin) && new URL(origin).host === host)) {
      return 'this can be asked for by a page of this service only'
    }
    if (use === 'change' && origin === null) return 'a change needs an Origin header'
    const near = site === null || site === 'same-origin' || (site === 'none' && use !== 'change')
    if (near || (use === 'page' && isWindow(headers))) return undefined
    return 'this can be asked for by a page of this service only'
  }

  /** Once: behind a proxy that replaces the name nobody would be signed in, or know why. */
  #tellOfHost(host: string): void {
    if (this.#toldOfHost) return
    this.#toldOfHost = true
    const wanted = [...this.#hosts]
    this.#log.warn('browser.host.foreign', { host: host.slice(0, hostCharsMax), wanted })
  }
}

/** As `BrowserSessions` makes them. */
const tokenForm = /^[\w-]{43}$/
/** As long as a DNS name can be, with a port. */
const hostCharsMax = 260

/** A whole window, no frame and no part of a page. */
function isWindow(headers: Headers): boolean {
  return (
    headers.get('sec-fetch-mode') === 'navigate' && headers.get('sec-fetch-dest') === 'document'
  )
}

/** On loopback both names of the address: a PDS returns to one, people may type the other. */
export function ownOrigins({ publicUrl, port }: Parts['config']): ReadonlySet<string> {
  const url = new URL(publicUrl)
  if (url.protocol === 'https:' || !isLoopbackHost(url.hostname)) return new Set([url.origin])
  const own = url.port || port
  const names = ['localhost', '127.0.0.1'].map((name) => new URL(`http://${name}:${own}`).origin)
  return new Set([url.origin, ...names])
}
