import type { OAuthSession } from '@atproto/oauth-client-node'
import type { Did } from '../atproto/syntax.ts'
import { OAuthUnavailable, sessionFailure } from './oauth-errors.ts'

export { SessionLost } from './oauth-errors.ts'

/** A place in somebody's public repo. */
export interface PdsPlace {
  readonly repo: Did
  readonly collection: string
  readonly rkey: string
}

export interface PdsRecord {
  readonly cid: string
  readonly value: unknown
}

/**
 * The public repo of one account, read and written as that account.
 *
 * Every method throws one of: `PdsUnavailable` when trying later may help, `SessionLost` when the
 * person must sign in again, `PdsRejected` when the same call will fail again, and `StoreFailed`
 * when our own store of sessions did.
 */
export class Pds {
  readonly #did: Did
  readonly #use: UseSession
  readonly #now: () => number
  /**
   * Writes are to wait until then, in milliseconds since 1970: less than half of what the PDS lets
   * the account write is left, and that half is the person's.
   */
  pauseUntilMs = 0

  /** @param options.use gives the account's session to a task, and to no other meanwhile */
  constructor(options: {
    readonly did: Did
    readonly use: UseSession
    readonly now: () => number
  }) {
    this.#did = options.did
    this.#use = options.use
    this.#now = options.now
  }

  /**
   * @param put `swapRecord` is the CID that must stand there now, null for nothing; without it
   *   whatever stands there is replaced
   * @throws SwapMismatch when something else stands there
   */
  async putRecord(
    put: PdsPlace & { readonly record: object; readonly swapRecord?: string | null },
  ): Promise<{ readonly cid: string }> {
    const { repo, collection, rkey, record, swapRecord } = put
    // The PDS may know a lexicon of the collection, by which a stub is no valid record.
    const validate = false
    const answer = await this.#call('com.atproto.repo.putRecord', {
      body: { repo, collection, rkey, record, swapRecord, validate },
    })
    return { cid: textOf(answer, 'cid') }
  }

  /**
   * A record that is gone already is deleted, too.
   * @throws SwapMismatch when something else than `swapRecord` stands there
   */
  async deleteRecord(gone: PdsPlace & { readonly swapRecord?: string }): Promise<void> {
    const { repo, collection, rkey, swapRecord } = gone
    await this.#call('com.atproto.repo.deleteRecord', {
      body: { repo, collection, rkey, swapRecord },
    })
  }

  async getRecord({ repo, collection, rkey }: PdsPlace): Promise<PdsRecord | undefined> {
    try {
      const query = new URLSearchParams({ repo, collection, rkey })
      const answer = await this.#call('com.atproto.repo.getRecord', { query })
      return { cid: textOf(answer, 'cid'), value: memberOf(answer, 'value') }
    } catch (error) {
      if (error instanceof PdsRejected && error.error === 'RecordNotFound') return undefined
      throw error
    }
  }

  async #call(method: string, input: CallInput): Promise<unknown> {
    const query = 'query' in input ? `?${input.query.toString()}` : ''
    const init =
      'body' in input
        ? { method: 'POST', headers: jsonHeaders, body: JSON.stringify(input.body) }
        : {}
    try {
      return await this.#use(async (session) => {
        const response = await session.fetchHandler(`/xrpc/${method}${query}`, init)
        this.#notePause(response.headers, method)
        const answer = jsonOf(await response.text())
        if (response.ok) return answer
        throw await this.#failure(response, answer, session)
      })
    } catch (error) {
      if (error instanceof PdsRejected || error instanceof SwapMismatch) throw error
      if (error instanceof PdsUnavailable) throw error
      const failure = sessionFailure(this.#did, error)
      throw failure instanceof OAuthUnavailable ? new PdsUnavailable(failure.why) : failure
    }
  }

  /** Reads have limits of their own, which say nothing about writes. */
  #notePause(headers: Headers, method: string): void {
    if (method === 'com.atproto.repo.getRecord') return
    const [limit, remaining, reset] = ['limit', 'remaining', 'reset'].map((name) =>
      Number(headers.get(`ratelimit-${name}`) ?? Number.NaN),
    )
    if (limit === undefined || remaining === undefined || reset === undefined) return
    const nowMs = this.#now()
    const untilMs = reset * 1000
    if (!(remaining < limit / 2) || !(untilMs > nowMs)) return
    this.pauseUntilMs = Math.min(untilMs, nowMs + retryAfterMaxMs)
  }

  async #failure(response: Response, answer: unknown, session: PdsSession): Promise<Error> {
    const { status, headers } = response
    // A session that the PDS no longer knows is gone from the store by now, so that this throws.
    if (status === 401) await session.getTokenInfo(false)
    const error = errorNameOf(answer)
    if (error === undefined || !isFinal(response, error)) {
      const retryAfterMs = retryAfterOf(headers, { limited: status === 429, now: this.#now() })
      return new PdsUnavailable(`it answered ${status} ${error ?? 'without a name'}`, retryAfterMs)
    }
    return error === 'InvalidSwap' ? new SwapMismatch() : new PdsRejected(status, error)
  }
}

/** Trying later may help: network, overload, a rate limit, something else than XRPC in between. */
export class PdsUnavailable extends Error {
  override readonly name = 'PdsUnavailable'
  /** What the PDS asked for, at most a day. */
  readonly retryAfterMs: number | undefined

  constructor(why: string, retryAfterMs?: number) {
    super(`the PDS cannot be used now: ${why}`)
    this.retryAfterMs = retryAfterMs
  }
}

/** Something else stands at that key than the caller thought. */
export class SwapMismatch extends Error {
  override readonly name = 'SwapMismatch'

  constructor() {
    super('another record stands at this key on the PDS')
  }
}

/** The PDS understood and refused. */
export class PdsRejected extends Error {
  override readonly name = 'PdsRejected'
  readonly status: number
  /** The error name of XRPC. */
  readonly error: string

  constructor(status: number, error: string) {
    super(`the PDS refused: ${status} ${error}`)
    this.status = status
    this.error = error
  }
}

type PdsSession = Pick<OAuthSession, 'fetchHandler' | 'getTokenInfo'>

type UseSession = <Result>(task: (session: PdsSession) => Promise<Result>) => Promise<Result>

type CallInput = { readonly query: URLSearchParams } | { readonly body: object }

const jsonHeaders = { 'content-type': 'application/json' }

/** 408 is for a slow request, 425 for an early one, 429 for one too many. */
const passingStatuses: ReadonlySet<number> = new Set([408, 425, 429])

/** What a PDS says of a session or its scope, and signing in anew may change. */
const sessionRefusals: ReadonlySet<string> = new Set([
  'AuthMissing',
  'AuthenticationRequired',
  'ExpiredToken',
  'InsufficientScope',
  'InvalidToken',
  'ScopeMissingError',
  'insufficient_scope',
])

/**
 * Whether the same call will fail again. A 401 or 403 is one only for what is known to be about the
 * session: an account may be active again tomorrow, and a firewall open.
 */
function isFinal({ status, headers }: Response, error: string): boolean {
  if (status >= 500 || passingStatuses.has(status)) return false
  // What is still said after a refresh that did not come about.
  const challenge = headers.get('www-authenticate') ?? ''
  if (/error="(invalid_token|use_dpop_nonce)"/.test(challenge)) return false
  return (status !== 401 && status !== 403) || sessionRefusals.has(error)
}

/** Undefined for what is no error of XRPC. */
function errorNameOf(answer: unknown): string | undefined {
  const name = memberOf(answer, 'error')
  return typeof name === 'string' && /^\w{1,60}$/.test(name) ? name : undefined
}

/** The widest window of a PDS's rate limits is a day. */
const retryAfterMaxMs = 24 * 60 * 60_000

/** @see https://www.rfc-editor.org/rfc/rfc9110#name-retry-after */
function retryAfterOf(
  headers: Headers,
  when: { readonly limited: boolean; readonly now: number },
): number | undefined {
  const after = headers.get('retry-after')?.trim()
  const reset = when.limited ? headers.get('ratelimit-reset')?.trim() : undefined
  const waitMs =
    after !== undefined
      ? /^\d+$/.test(after)
        ? Number(after) * 1000
        : Date.parse(after) - when.now
      : // AT Protocol servers give the time of the reset, in seconds of the epoch.
        Number(reset ?? Number.NaN) * 1000 - when.now
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 0), retryAfterMaxMs)
}

/** Undefined for what is no JSON: an error page of a proxy, for one. */
function jsonOf(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return value
  } catch {
    return undefined
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

/** The call may have done its work: whoever tries again with the same swap finds out. */
function textOf(answer: unknown, name: string): string {
  const text = memberOf(answer, name)
  if (typeof text === 'string' && text.length <= textCharsMax) return text
  throw new PdsUnavailable('it answered something else than XRPC')
}

/** What is read in this way is kept, a row each. A CID has 59 characters. */
const textCharsMax = 256
