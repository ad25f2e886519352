import { randomBytes } from 'node:crypto'
import type { BlockList } from 'node:net'
import { Elysia } from 'elysia'
import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { clientNetwork, proxyList } from './address.ts'
import { keptOpen } from './kept-open.ts'
import {
  corsHeaders,
  json,
  ownHeadersOf,
  preflight,
  privateHeaders,
  refusalBody,
  refusalOf,
} from './reply.ts'
import type { Stream } from '../stream/streams.ts'
import { sockets } from './sockets.ts'
import { checkVerb, type Xrpc } from './xrpc.ts'

interface Parts {
  readonly config: Pick<Config, 'host' | 'port' | 'trustedProxies' | 'publicUrl' | 'devMode'>
  readonly version: string
  readonly xrpc: Xrpc
  /** What is there beside XRPC and the states of the service. */
  readonly pages: readonly Page[]
  /** Of the largest body that a method takes. */
  readonly bodyBytesMax: number
  /** Component states for /health. */
  readonly components: () => object
  /** What has to be there for requests to be worth sending; nothing where this is not said. */
  readonly readiness?: () => Readiness
  /** For callers who bring DPoP proofs. */
  readonly dpopNonce?: () => string
  /** Ends what would go on for as long as its caller likes. */
  readonly endStreams?: () => void
  readonly log: Log
}

/** Something at an address of its own. */
export interface Page {
  readonly verb: 'get' | 'post'
  /** A segment that begins with a colon is any. */
  readonly path: string
  readonly answer: (visit: Visit) => Promise<Response>
}

interface Readiness {
  readonly isReady: boolean
  /** For the operator, who reads it at /ready; anybody may. */
  readonly details: object
}

interface Context {
  readonly request: Request
  readonly server: {
    requestIP(request: Request): { readonly address: string } | null
    timeout(request: Request, seconds: number): void
    upgrade(request: Request, options: object): boolean
  } | null
}

/** All doors of a process on one port. */
export class Server {
  readonly #parts: Parts
  readonly #app: Elysia
  readonly #prefix = randomBytes(6).toString('base64url')
  readonly #proxies: BlockList
  readonly #ownHeaders: Readonly<Record<string, string>>
  #requests = 0
  #running = 0
  #draining = false
  #idle: (() => void) | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.#proxies = proxyList(parts.config.trustedProxies)
    this.#ownHeaders = ownHeadersOf(parts.config)
    this.#app = this.#routes()
  }

  /** @throws Error when the port is taken */
  listen(): void {
    const { bodyBytesMax, config } = this.#parts
    const { host: hostname, port } = config
    this.#app.listen({
      hostname,
      port,
      maxRequestBodySize: Math.max(sentBytesMax, 2 * bodyBytesMax),
      idleTimeout: idleSeconds,
      // Elysia's defaults: a second process would get half of the connections to a port that is
      // taken, and what an error says would go to the caller.
      reusePort: false,
      development: false,
      websocket: sockets,
    })
  }

  /** Accepts nothing new and waits for what runs, up to a limit. */
  async drain(): Promise<void> {
    this.#draining = true
    this.#parts.endStreams?.()
    const idle = Promise.withResolvers<void>()
    this.#idle = idle.resolve
    if (this.#running === 0) idle.resolve()
    // Listening ends at once. Bun's promise waits until the last answer is written, ours for the
    // handlers of callers who did not wait for one.
    const answered = this.#app.server?.stop()
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, drainMsMax)
    await Promise.race([Promise.all([answered, idle.promise]), late.promise])
    clearTimeout(timer)
    await this.#app.server?.stop(true)
  }

  #routes(): Elysia {
    const raw = { parse: 'none' } as const
    const { xrpc, pages } = this.#parts
    const app = new Elysia()
    // What a handler takes from its context is spelled out: for a context taken as a whole Elysia
    // parses query, headers and cookies of every request.
    app.all(
      '/xrpc/_health',
      ({ request, server }) =>
        this.#serve({ request, server }, async (visit) => this.#xrpcHealth(visit)),
      raw,
    )
    app.all(
      '/xrpc/:nsid',
      ({ request, server, params }) =>
        this.#serve({ request, server }, (visit) => xrpc.answer({ ...visit, nsid: params.nsid })),
      raw,
    )
    app.get(
      '/health',
      this.#plain(() => json(this.#health(), privateHeaders)),
    )
    app.get(
      '/ready',
      this.#plain(() => this.#ready()),
    )
    for (const { verb, path, answer } of pages) {
      const handle = ({ request, server }: Context) => this.#serve({ request, server }, answer)
      if (verb === 'get') app.get(path, handle)
      else app.post(path, handle, raw)
    }
    app.onError(({ error, code, request }) => this.#failed({ error, code, request }))
    return app
  }

  #plain(answer: () => Response): (context: Context) => Promise<Response> {
    return ({ request, server }) => this.#serve({ request, server }, async () => answer())
  }

  /** Counts a request, names it, and writes its line in the log: never a query string. */
  async #serve(
    { request, server }: Context,
    answer: (visit: Visit) => Promise<Response>,
  ): Promise<Response> {
    const requestId = `${this.#prefix}-${(++this.#requests).toString(36)}`
    const startedAt = performance.now()
    this.#running += 1
    try {
      const peer = server?.requestIP(request)?.address ?? ''
      const address = clientNetwork(peer, request.headers.get('x-forwarded-for'), this.#proxies)
      const url = URL.parse(request.url)
      // Where the Host header is none, Bun gives the path alone; of several it takes the first.
      if (url === null || request.headers.get('host')?.includes(',') !== false) {
        return this.#refuse(invalidRequest('the Host header names no one host'))
      }
      const upgrade: Visit['upgrade'] = (stream, headers) =>
        server?.upgrade(request, { data: stream, headers }) ?? false
      const response = await keptOpen(request, { server, idleSeconds }, (keepOpen) =>
        answer({ request, url, address, requestId, keepOpen, upgrade }),
      )
      const { dpopNonce } = this.#parts
      if (dpopNonce !== undefined && isDpop(request)) {
        response.headers.set('dpop-nonce', dpopNonce())
      }
      const { status } = response
      const ms = Math.round((performance.now() - startedAt) * 100) / 100
      const { method } = request
      this.#parts.log.debug('request', { requestId, method, path: url.pathname, status, ms })
      return response
    } finally {
      this.#running -= 1
      if (this.#running === 0) this.#idle?.()
    }
  }

  #xrpcHealth({ request }: Visit): Response {
    if (request.method === 'OPTIONS') return preflight()
    try {
      checkVerb(request.method, 'query')
      return json({ version: this.#parts.version }, { ...corsHeaders, ...privateHeaders })
    } catch (error) {
      return this.#refuse(error)
    }
  }

  #health(): object {
    const { version, config } = this.#parts
    const state = this.#draining ? 'draining' : 'ok'
    const { devMode: developmentMode } = config
    return { version, status: state, developmentMode, ...this.#parts.components() }
  }

  /** The server listens only once its stores are open and migrated. */
  #ready(): Response {
    const { isReady = true, details = {} } = this.#parts.readiness?.() ?? {}
    const ready = isReady && !this.#draining
    return json({ ready, ...details }, privateHeaders, ready ? 200 : 503)
  }

  #failed({ error, code, request }: Failure): Response {
    const isOwn = /^(https?:\/\/[^/]*)?\/oauth\//.test(request.url)
    if (request.method === 'OPTIONS' && !isOwn) return preflight()
    const missing = new XrpcError(404, 'NotFound', 'there is nothing at this address')
    return this.#refuse(
      code === 'NOT_FOUND' ? missing : error,
      isOwn ? this.#ownHeaders : corsHeaders,
    )
  }

  #refuse(error: unknown, doorHeaders: Readonly<Record<string, string>> = corsHeaders): Response {
    const requestId = `${this.#prefix}-failed`
    const refusal = refusalOf(error, { log: this.#parts.log, requestId })
    const headers = { ...doorHeaders, ...privateHeaders, ...refusal.headers }
    return json(refusalBody(refusal), headers, refusal.status)
  }
}

/** Also of a bound key's first proof: whatever the answer, the next proof needs a nonce. */
function isDpop({ headers }: Request): boolean {
  return (
    headers.has('dpop') ||
    headers.has('dpop-bind') ||
    /^dpop /i.test(headers.get('authorization') ?? '')
  )
}

export interface Visit {
  readonly request: Request
  readonly url: URL
  readonly address: string
  readonly requestId: string
  readonly keepOpen: () => void
  readonly upgrade: (stream: Stream, headers: Readonly<Record<string, string>>) => boolean
}

interface Failure {
  readonly error: unknown
  readonly code: unknown
  readonly request: Request
}

/**
 * Bytes of a body that a client may send. Methods refuse at their own limits, in our own words and
 * without reading on; past this one Bun cuts the connection with a bare 413.
 */
const sentBytesMax = 64 * 1024 * 1024
/**
 * A connection without traffic is closed after this, and by Bun also one whose body brings less than
 * 16 kB/s meanwhile; a head that drips is given up after some ten seconds.
 */
const idleSeconds = 60
/** What runs at shutdown gets this long. */
const drainMsMax = 10_000
