import { isDid, isHandle } from '../atproto/syntax.ts'
import { createGuardedFetch, FetchFailed, FetchRefused } from '../remote/fetch.ts'
import { type Fields, isFields, listIn, textIn } from './answers.ts'
import { CommandFailed, UsageError } from './failures.ts'
import type { Surroundings } from './surroundings.ts'
import type { Target } from './target.ts'

type Params = Readonly<Record<string, string | number | undefined>>

/** The API of a running service, called as its operator. */
export class AdminClient {
  readonly #target: Target
  readonly #around: Surroundings
  // The operator chose the address: any may be called, but no proxy and nowhere else by redirect.
  readonly #fetch = createGuardedFetch({
    allowPrivateNetwork: true,
    timeoutMs,
    responseBytesMax,
  })
  #serviceDid: string | undefined

  constructor(target: Target, around: Surroundings) {
    this.#target = target
    this.#around = around
  }

  /** @throws CommandFailed, as do all methods here */
  async query(nsid: string, params: Params = {}): Promise<Fields> {
    const url = new URL(`/xrpc/${nsid}`, this.#target.origin)
    for (const [name, value] of Object.entries(params)) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    return await this.#call(nsid, url, { method: 'GET' })
  }

  async procedure(nsid: string, input: Fields): Promise<Fields> {
    const url = new URL(`/xrpc/${nsid}`, this.#target.origin)
    return await this.#call(nsid, url, { method: 'POST', body: JSON.stringify(input) })
  }

  /** Everything that the pages of a list hold under `name`, and the last page. */
  async pages(
    nsid: string,
    { name, params }: { readonly name: string; readonly params: Params },
  ): Promise<{ readonly items: readonly Fields[]; readonly last: Fields }> {
    const items: Fields[] = []
    let cursor: string | undefined
    for (let page = 1; page <= pagesMax; page++) {
      const last = await this.query(nsid, { ...params, cursor })
      for (const item of listIn(last, name)) items.push(item)
      if (last['cursor'] === undefined) return { items, last }
      cursor = textIn(last, 'cursor')
      if (page % progressPages === 0) this.#around.tell(`${items.length} ${name} so far ...`)
    }
    throw new CommandFailed(`the list of ${name} does not end within ${pagesMax} pages`)
  }

  /** The DID of the service, which begins the names of its boundaries. */
  async serviceDid(): Promise<string> {
    if (this.#serviceDid === undefined) {
      const url = new URL('/.well-known/did.json', this.#target.origin)
      const response = await this.#send(url, { method: 'GET' })
      const document = response.status === 200 ? fieldsOf(await response.text()) : undefined
      if (document === undefined) throw this.#stranger(response.status)
      this.#serviceDid = textIn(document, 'id')
    }
    return this.#serviceDid
  }

  /** A boundary by its bare or whole name. */
  async boundary(name: string): Promise<string> {
    return name.includes('/') ? name : `${await this.serviceDid()}/${name}`
  }

  /** A DID as it is; that of a handle as the service finds it. */
  async did(who: string): Promise<string> {
    if (isDid(who)) return who
    const handle = who.replace(/^@/, '').toLowerCase()
    if (!isHandle(handle)) throw new UsageError(`${who} is neither a DID nor a handle`)
    const nsid = 'zone.stratos.repo.describeRepo'
    return textIn(await this.query(nsid, { repo: handle }), 'did')
  }

  async #call(
    nsid: string,
    url: URL,
    init: { readonly method: 'GET' | 'POST'; readonly body?: string },
  ): Promise<Fields> {
    const credential = Buffer.from(`admin:${this.#target.password}`).toString('base64')
    const type = init.method === 'POST' ? { 'content-type': 'application/json' } : {}
    const headers = { authorization: `Basic ${credential}`, ...type }
    const response = await this.#send(url, { ...init, headers })
    const body = fieldsOf(await response.text())
    if (response.status === 200 && body !== undefined) return body
    throw this.#refused(nsid, response, body)
  }

  async #send(url: URL, init: RequestInit): Promise<Response> {
    try {
      return await this.#fetch(url, { ...init, redirect: 'manual' })
    } catch (error) {
      if (!(error instanceof FetchFailed) && !(error instanceof FetchRefused)) throw error
      throw new CommandFailed(
        `no answer from the service at ${this.#target.origin} (${error.message}): ` +
          'start it with "stratos serve", or name another with --url',
        { cause: error },
      )
    }
  }

  #refused(nsid: string, response: Response, body: Fields | undefined): CommandFailed {
    const { error, message } = body ?? {}
    if (typeof error !== 'string' || typeof message !== 'string') {
      return this.#stranger(response.status)
    }
    switch (error) {
      case 'InvalidToken':
        return new CommandFailed(
          'the service does not accept this STRATOS_ADMIN_PASSWORD: ' +
            'set the one that it was started with',
        )
      case 'MethodNotImplemented':
        return new CommandFailed(
          `the service has no ${nsid}: this program is version ${this.#around.version}, ` +
            'and the service seems to be another one',
        )
      case 'InternalServerError':
        return new CommandFailed('the service failed at this: its log says why')
      case 'RateLimitExceeded': {
        const seconds = response.headers.get('retry-after') ?? 'some'
        return new CommandFailed(`${message}: try again in ${seconds} seconds`)
      }
      case 'NotEnrolled':
      case 'RepoNotFound':
        return new CommandFailed(`${message}; "stratos admin members" lists who is enrolled`)
      default:
        return new CommandFailed(`${message} (${error})`)
    }
  }

  #stranger(status: number): CommandFailed {
    return new CommandFailed(
      `${this.#target.origin} answered ${status}, and not as this service does: check --url`,
    )
  }
}

const timeoutMs = 60_000
/** The largest page of members, each in as many boundaries as there may be, is smaller. */
const responseBytesMax = 16 * 1024 * 1024
/** A million members. */
const pagesMax = 2_000
/** Pages after which people are told that it goes on. */
const progressPages = 10

function fieldsOf(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isFields(value) ? value : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
