import { requestMs } from './xrpc.ts'

export interface Visit {
  readonly headers?: Readonly<Record<string, string>>
  /** A JSON body; its presence makes the visit a POST. */
  readonly body?: unknown
}

/** Names of the web that a test has made. */
export interface Web {
  /** How to get there; undefined for what any resolver finds. */
  find(url: URL):
    | {
        readonly url: URL
        readonly headers: Readonly<Record<string, string>>
        readonly tls: { readonly ca: string; readonly serverName: string }
      }
    | undefined
}

/**
 * One person's browser, as far as a sign-in needs one: it keeps cookies, by host name as real
 * ones do (ports share them), and follows a redirect only when told to.
 */
export class Browser {
  readonly #cookies = new Map<string, Map<string, string>>()
  readonly #web: Web | undefined

  /** @param web where it finds names that no resolver knows */
  constructor(web?: Web) {
    this.#web = web
  }

  async visit(url: string | URL, visit: Visit = {}): Promise<Response> {
    const { hostname } = new URL(url)
    const found = this.#web?.find(new URL(url))
    const cookie = this.cookieHeader(hostname)
    const isPost = visit.body !== undefined
    const response = await fetch(found?.url ?? url, {
      method: isPost ? 'POST' : 'GET',
      redirect: 'manual',
      headers: {
        ...(isPost ? { 'content-type': 'application/json' } : navigation),
        ...(cookie === '' ? {} : { cookie }),
        ...found?.headers,
        ...visit.headers,
      },
      ...(found === undefined ? {} : { tls: found.tls }),
      ...(isPost ? { body: JSON.stringify(visit.body) } : {}),
      signal: AbortSignal.timeout(requestMs),
    })
    for (const line of response.headers.getSetCookie()) this.#keep(hostname, line)
    return response
  }

  /** Follows redirects until one leaves `host` (a name with its port), and gives that response. */
  async visitWithin(hosts: readonly string[], start: string | URL): Promise<Response> {
    let url = new URL(start)
    for (let hop = 0; hop < redirectsMax; hop++) {
      const response = await this.visit(url)
      const next = redirectOf(response, url)
      if (next === undefined || !hosts.includes(next.host)) return response
      url = next
    }
    throw new Error(`more than ${redirectsMax} redirects from ${new URL(start).origin}`)
  }

  cookie(hostname: string, name: string): string | undefined {
    return this.#cookies.get(hostname)?.get(name)
  }

  cookieHeader(hostname: string): string {
    const cookies = this.#cookies.get(hostname) ?? new Map<string, string>()
    return [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
  }

  #keep(hostname: string, line: string): void {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim())
    const equals = pair.indexOf('=')
    const name = pair.slice(0, equals)
    const cookies = this.#cookies.get(hostname) ?? new Map<string, string>()
    this.#cookies.set(hostname, cookies)
    if (attributes.some(isOver)) cookies.delete(name)
    else cookies.set(name, pair.slice(equals + 1))
  }
}

/** Where a response sends the browser, if anywhere. */
export function redirectOf(response: Response, from: string | URL): URL | undefined {
  const location = response.headers.get('location')
  if (location === null || response.status < 300 || response.status > 399) return undefined
  return new URL(location, from)
}

const redirectsMax = 5

/** The provider answers only what looks like a person following a link. */
const navigation = {
  'sec-fetch-dest': 'document',
  'sec-fetch-mode': 'navigate',
  'sec-fetch-site': 'cross-site',
}

function isOver(attribute: string): boolean {
  const [name = '', value = ''] = attribute.split('=')
  if (name.toLowerCase() === 'max-age') return Number(value) <= 0
  return name.toLowerCase() === 'expires' && Date.parse(value) < Date.now()
}
