import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import { isNsid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { AnonymousTraffic } from './anonymous.ts'
import { readJson } from './body.ts'
import {
  acceptedByDefault,
  type Audience,
  type Caller,
  checkAccepted,
  checkAudience,
  type CredentialKind,
  type Door,
  type Doorkeeper,
} from './caller.ts'
import { preflight, refusalBody, refusalOf, xrpcHeaders } from './reply.ts'
import type { Scopes } from './scope.ts'
import type { Stream } from '../stream/streams.ts'

/** One call, its caller proven and its parameters and input checked against their lexicon. */
export interface Call {
  readonly request: Request
  readonly caller: Caller
  readonly params: Readonly<Record<string, unknown>>
  readonly input: Readonly<Record<string, unknown>>
  readonly requestId: string
  /** Makes the connection a WebSocket; false where that is not what the request is for. */
  readonly upgrade: Arrival['upgrade']
}

export interface Answer {
  /** JSON, written or still to be written, bytes of `type`, whole or in a stream, or a WebSocket by now. */
  readonly body: object | JsonText | Bytes | Content | Streamed | typeof upgraded
  readonly headers?: Readonly<Record<string, string>>
}

/** JSON that is finished. */
export class JsonText {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** An answer other than JSON that is in memory as a whole. */
export class Bytes {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly type: string

  constructor(bytes: Uint8Array<ArrayBuffer>, type: string) {
    this.bytes = bytes
    this.type = type
  }
}

/** Bytes from where they are kept, or none, with a status of their own. */
export class Content {
  readonly body: Blob | ReadableStream<Uint8Array> | null
  readonly status: 200 | 206 | 304
  readonly type: string

  constructor(
    body: Content['body'],
    { status, type }: { readonly status: Content['status']; readonly type: string },
  ) {
    this.body = body
    this.status = status
    this.type = type
  }
}

/** There is nothing to answer any more. */
export const upgraded = Symbol('upgraded')

interface Streamed {
  readonly stream: ReadableStream<Uint8Array>
  readonly type: string
}

/** A door: who may call it, and what then happens. Verb and shapes are the lexicon's. */
export interface Method {
  readonly audience: Audience
  /** A service-auth token opens this door once, and only when it is fresh. */
  readonly tokens?: 'single-use'
  /** What a token's audience has behind `#`, where that is not the service's own. */
  readonly fragment?: string
  /** By what a person may call it; by all but a cookie where this is not said. */
  readonly accepts?: readonly CredentialKind[]
  /** May take longer than a connection without traffic is kept. */
  readonly isLong?: true
  /**
   * Looks at a request before its token is used up.
   * @throws XrpcError
   */
  screen?(arrival: Arrival): Promise<void>
  /**
   * Gets the body before its lexicon does: brings an older form to the one that the lexicon knows,
   * or refuses under another name than that has.
   * @throws XrpcError
   */
  prepare?(body: unknown): unknown
  handle(call: Call): Promise<Answer>
}

interface Parts {
  readonly methods: ReadonlyMap<string, Method>
  readonly schemas: Schemas
  readonly credentials: Doorkeeper
  /** Undefined where no caller has a scope. */
  readonly scopes?: Scopes
  readonly anonymous: AnonymousTraffic
  readonly log: Log
  /** Whether answers are checked against their lexicon, too. */
  readonly checkOutput: boolean
}

export interface Arrival {
  readonly request: Request
  readonly nsid: string
  /** As `clientNetwork` gives it. */
  readonly address: string
  readonly requestId: string
  /** Keeps the connection open until there is an answer. */
  readonly keepOpen: () => void
  readonly upgrade: (stream: Stream, headers: Readonly<Record<string, string>>) => boolean
}

/** All XRPC methods. @see https://atproto.com/specs/xrpc */
export class Xrpc {
  readonly #parts: Parts
  /** By method; counted only where they are checked. */
  readonly #answers = new Map<string, number>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async answer(arrival: Arrival): Promise<Response> {
    const { request, requestId } = arrival
    if (request.method === 'OPTIONS') return preflight()
    try {
      const { body, headers } = await this.#call(arrival)
      const own = { ...headers, 'x-request-id': requestId }
      // Its headers have gone out already.
      if (body === upgraded) return new Response(null)
      if (body instanceof JsonText) return new Response(body.text, { headers: xrpcHeaders(own) })
      if (body instanceof Bytes) {
        const typed = xrpcHeaders({ ...own, 'content-type': body.type })
        return new Response(body.bytes, { headers: typed })
      }
      if (body instanceof Content) return await contentResponse(request, body, own)
      if (!('stream' in body)) {
        return new Response(JSON.stringify(body), { headers: xrpcHeaders(own) })
      }
      const whole = { headers: xrpcHeaders({ ...own, 'content-type': body.type }) }
      if (request.method !== 'HEAD') return new Response(body.stream, whole)
      await body.stream.cancel()
      return new Response(null, whole)
    } catch (error) {
      const refusal = refusalOf(error, { log: this.#parts.log, requestId })
      const headers = xrpcHeaders({ ...refusal.headers, 'x-request-id': requestId })
      const { status } = refusal
      return new Response(JSON.stringify(refusalBody(refusal)), { status, headers })
    }
  }

  async #call(arrival: Arrival): Promise<Answer> {
    const { request, nsid, address, requestId } = arrival
    const { methods, schemas, credentials, scopes, anonymous, checkOutput } = this.#parts
    anonymous.check(request, address)
    if (!isNsid(nsid)) throw invalidRequest('the path does not name a method')
    const method = methods.get(nsid)
    if (method === undefined) {
      throw new XrpcError(501, 'MethodNotImplemented', `this service has no method ${nsid}`)
    }
    const isProcedure = schemas.kindOf(nsid) === 'procedure'
    checkVerb(request.method, isProcedure ? 'procedure' : 'query')
    const { audience, tokens = 'any', fragment, accepts = acceptedByDefault } = method
    // Without a token none is used up, and who calls comes first.
    if (request.headers.has('authorization')) await method.screen?.(arrival)
    const door: Door = { nsid, audience, tokens, fragment, accepts, address }
    const caller = await credentials.identify(request, door)
    checkAudience(caller, audience)
    checkAccepted(caller, accepts)
    if (method.isLong === true) arrival.keepOpen()
    const params = schemas.checkParams(nsid, searchOf(request))
    const input = schemas.takesInput(nsid) ? await this.#input(nsid, method, request) : {}
    if (caller.kind === 'user' && caller.scope !== undefined) {
      assert(scopes !== undefined, 'a caller with a scope is held to it')
      scopes.check(caller.scope, { nsid, params, input })
    }
    const { upgrade } = arrival
    const answer = await method.handle({ request, caller, params, input, requestId, upgrade })
    if (checkOutput && this.#isSampled(nsid)) this.#checkOutput(nsid, answer.body)
    return answer
  }

  #checkOutput(nsid: string, body: Answer['body']): void {
    const { schemas } = this.#parts
    if (body instanceof JsonText) schemas.checkOutput(nsid, JSON.parse(body.text))
    else if (body !== upgraded && !isBytes(body)) {
      schemas.checkOutput(nsid, body)
    }
  }

  #isSampled(nsid: string): boolean {
    const answers = (this.#answers.get(nsid) ?? 0) + 1
    this.#answers.set(nsid, answers)
    return answers <= answersChecked || answers % checkedEvery === 0
  }

  async #input(nsid: string, method: Method, request: Request): Promise<Call['input']> {
    const body = await readJson(request)
    return this.#parts.schemas.checkInput(nsid, method.prepare?.(body) ?? body)
  }
}

function isBytes(body: object): boolean {
  return 'stream' in body || body instanceof Bytes || body instanceof Content
}

/** `own` are headers beside those of every XRPC answer, some of which they replace. */
export async function contentResponse(
  { method }: Request,
  { body, status, type }: Content,
  own: Readonly<Record<string, string>>,
): Promise<Response> {
  const headers = xrpcHeaders({ ...own, 'content-type': type })
  if (method !== 'HEAD') return new Response(body, { status, headers })
  if (body instanceof ReadableStream) await body.cancel()
  return new Response(null, { status, headers })
}

/** Of each method: all of the first, then some, so that a service under load is not slowed down. */
const answersChecked = 200
const checkedEvery = 100

/** A method that an implementation and its lexicon share. */
export function methodTable(
  schemas: Schemas,
  methods: Readonly<Record<string, Method>>,
): ReadonlyMap<string, Method> {
  for (const nsid of Object.keys(methods)) {
    const kind = schemas.kindOf(nsid)
    const isMethod = kind === 'query' || kind === 'procedure' || kind === 'subscription'
    if (!isMethod) throw new Error(`${nsid} has no lexicon`)
  }
  return new Map(Object.entries(methods))
}

/** @throws XrpcError 405 MethodNotAllowed */
export function checkVerb(verb: string, kind: 'query' | 'procedure'): void {
  const verbs = kind === 'query' ? ['GET', 'HEAD'] : ['POST']
  if (verbs.includes(verb)) return
  const allow = verbs.join(', ')
  throw new XrpcError(405, 'MethodNotAllowed', `this method is called by ${allow}`, {
    headers: { allow },
  })
}

function searchOf(request: Request): URLSearchParams {
  const start = request.url.indexOf('?')
  return new URLSearchParams(start < 0 ? '' : request.url.slice(start + 1))
}
