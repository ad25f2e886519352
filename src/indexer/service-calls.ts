import { type Fetch, FetchFailed } from '../remote/fetch.ts'

export interface ServiceAccess {
  /** Public URL of the service. */
  readonly serviceUrl: string
  /** Its own limits hold, too: of a whole download by time, and by bytes. */
  readonly fetch: Fetch
  /** Value of the header for one call of a method; asked anew for each. */
  readonly authorization: (lxm: string) => Promise<string>
  readonly signal: AbortSignal
  /** So long an answer may come to a standstill. */
  readonly silenceMsMax?: number
}

export interface ServiceCall {
  readonly lxm: string
  readonly params: Readonly<Record<string, string>>
}

/**
 * Asks one service, as an AppView does. What fails throws, beside the errors below, `FetchFailed` or
 * `FetchRefused`, and the reason of the signal when that is aborted.
 */
export class ServiceCalls {
  readonly #access: ServiceAccess

  constructor(access: ServiceAccess) {
    this.#access = access
  }

  get signal(): AbortSignal {
    return this.#access.signal
  }

  /** @throws RepoNotFound, ServiceBusy, ServiceRefused, BadAnswer */
  async ask(call: ServiceCall): Promise<object> {
    const response = await this.#send(call, { bytesMax: answerBytesMax })
    const answer = parsed(await response.text())
    if (answer !== undefined) return answer
    throw new BadAnswer(`${call.lxm} answered something else than XRPC`)
  }

  /** Of another type than `type` it is a bad answer. @throws as `ask` does */
  async download(
    call: ServiceCall & { readonly type: string; readonly bytesMax: number },
    sink: (bytes: Uint8Array) => void,
  ): Promise<void> {
    const response = await this.#send(call, { bytesMax: call.bytesMax, sink })
    const [type] = (response.headers.get('content-type') ?? '').split(';')
    if (type?.trim() !== call.type) throw new BadAnswer(`${call.lxm} answered another type`)
  }

  async #send({ lxm, params }: ServiceCall, into: Into): Promise<Response> {
    const { serviceUrl, fetch, authorization, signal } = this.#access
    const { silenceMsMax = silenceMsMaxDefault } = this.#access
    signal.throwIfAborted()
    const headers = { authorization: await authorization(lxm) }
    const url = new URL(`/xrpc/${lxm}?${new URLSearchParams(params).toString()}`, serviceUrl)
    const silence = new AbortController()
    const alarm = setTimeout(() => silence.abort(), silenceMsMax)
    const { bytesMax, sink } = into
    const heard = (bytes: Uint8Array) => {
      alarm.refresh()
      sink?.(bytes)
    }
    try {
      const response = await fetch(url, {
        headers,
        // Elsewhere nobody has the repo, and the credential is for the service alone.
        redirect: 'manual',
        bytesMax,
        ...(sink === undefined ? {} : { sink: heard }),
        signal: AbortSignal.any([signal, silence.signal]),
      })
      if (response.status === 200) return response
      throw refusalOf(lxm, response, parsed(await response.text()))
    } catch (error) {
      if (!silence.signal.aborted || signal.aborted) throw error
      throw new FetchFailed(url.host, `nothing came for ${silenceMsMax} ms`)
    } finally {
      clearTimeout(alarm)
    }
  }
}

/** The service keeps no repo of this account, or none that is shown. */
export class RepoNotFound extends Error {
  override readonly name = 'RepoNotFound'
}

/** The service asks to come back later. */
export class ServiceBusy extends Error {
  override readonly name = 'ServiceBusy'
  readonly retryAfterMs: number

  constructor(message: string, retryAfterMs: number) {
    super(message)
    this.retryAfterMs = retryAfterMs
  }
}

/** Any other refusal: of the credentials, or a fault of the service. */
export class ServiceRefused extends Error {
  override readonly name = 'ServiceRefused'
  readonly status: number
  /** Of the lexicon; empty where the answer names none. */
  readonly error: string

  constructor(message: string, { status, error }: { status: number; error: string }) {
    super(message)
    this.status = status
    this.error = error
  }
}

/** What the service answered cannot be: nothing of it counts. */
export class BadAnswer extends Error {
  override readonly name = 'BadAnswer'
}

interface Into {
  readonly bytesMax: number
  readonly sink?: (bytes: Uint8Array) => void
}

const silenceMsMaxDefault = 60_000
/** A page has some MiB of records, which as JSON are larger. */
const answerBytesMax = 32 * 1024 * 1024
const retryAfterSecondsDefault = 5
const retryAfterSecondsMax = 60 * 60

function refusalOf(lxm: string, { status, headers }: Response, body: object | undefined): Error {
  const said: unknown = body === undefined ? undefined : Reflect.get(body, 'error')
  const error = typeof said === 'string' && /^\w{1,60}$/.test(said) ? said : ''
  const message = `${lxm} answered ${status} ${error}`.trimEnd()
  if (status === 404 && error === 'RepoNotFound') return new RepoNotFound(message)
  if (status !== 429 && status !== 503) return new ServiceRefused(message, { status, error })
  return new ServiceBusy(message, 1000 * secondsOf(headers.get('retry-after')))
}

/** Seconds, or a date. @see https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3 */
function secondsOf(retryAfter: string | null): number {
  if (retryAfter === null) return retryAfterSecondsDefault
  const seconds = /^\d{1,9}$/.test(retryAfter)
    ? Number(retryAfter)
    : Math.ceil((Date.parse(retryAfter) - Date.now()) / 1000)
  if (!Number.isFinite(seconds)) return retryAfterSecondsDefault
  return Math.min(Math.max(seconds, 0), retryAfterSecondsMax)
}

/** Undefined for what is no JSON object. */
function parsed(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
