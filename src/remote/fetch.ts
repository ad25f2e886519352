import { lookup as systemLookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { Log } from '../lib/log.ts'
import { unlessAborted } from '../lib/pause.ts'
import { isPublicAddress } from './address.ts'

export type Fetch = (input: string | URL | Request, init?: FetchInit) => Promise<Response>

interface FetchInit extends RequestInit {
  /** For answers that must be smaller than all others may be. */
  readonly bytesMax?: number
  /** Takes the body of a good answer piece by piece, instead of memory. */
  readonly sink?: (bytes: Uint8Array) => void
}

export interface GuardedFetchOptions {
  /** Admits http, every port and every address: closed networks and tests. */
  readonly allowPrivateNetwork: boolean
  /** Over the whole exchange: names, redirects, headers and body. */
  readonly timeoutMs: number
  /** A larger answer is refused while it is read. */
  readonly responseBytesMax: number
  readonly log?: Log
  /** All addresses of a name. */
  readonly lookup?: (hostname: string) => Promise<readonly string[]>
}

/**
 * The only way out of this process: a `fetch` for addresses that other people choose.
 *
 * - https on port 443, and only to names whose every address is public. The connection goes to an
 *   address that was checked, so that the name cannot change its mind in between.
 * - A redirect is followed for GET and HEAD, and each stop is checked like the first. Credentials
 *   stay behind when the origin changes.
 * - The answer is complete when the promise resolves, and in memory unless there is a sink.
 *
 * @throws FetchRefused when a rule here forbids the exchange
 * @throws FetchFailed when the network or the time limit ended it
 */
export function createGuardedFetch(options: GuardedFetchOptions): Fetch {
  return async (input, init) => {
    // A handle may look like a name and be none that a URL can hold.
    if (!URL.canParse(input instanceof Request ? input.url : String(input))) {
      throw new FetchRefused('an address', 'it makes no URL')
    }
    const request =
      input instanceof Request
        ? new Request(input, init ?? {})
        : new Request(String(input), init ?? {})
    const deadline = AbortSignal.timeout(options.timeoutMs)
    const signal = AbortSignal.any([request.signal, deadline])
    const host = new URL(request.url).host
    const bytesMax = Math.min(options.responseBytesMax, init?.bytesMax ?? Infinity)
    const { sink } = init ?? {}
    try {
      const answer = await exchange(request, signal, options)
      return await complete(answer.response, answer.host, { bytesMax, sink })
    } catch (error) {
      if (request.signal.aborted) throw error
      if (deadline.aborted) throw new FetchFailed(host, `no answer in ${options.timeoutMs} ms`)
      if (error instanceof FetchRefused) options.log?.warn('fetch refused', { host, error })
      if (error instanceof FetchRefused || error instanceof FetchFailed) throw error
      throw new FetchFailed(host, codeOf(error))
    }
  }
}

/** A rule of ours forbids the exchange; trying again changes nothing. Carries no path or query. */
export class FetchRefused extends Error {
  override readonly name = 'FetchRefused'
  readonly host: string

  constructor(host: string, why: string) {
    super(`${host}: ${why}`)
    this.host = host
  }
}

/**
 * The network failed. The error below it is left out, because its text repeats the whole URL; its
 * code is in the message.
 */
export class FetchFailed extends Error {
  override readonly name = 'FetchFailed'
  readonly host: string

  constructor(host: string, why: string) {
    super(`${host}: ${why}`)
    this.host = host
  }
}

const redirectsMax = 3
/** Of what comes instead of a body that is meant for a sink. */
const refusalBytesMax = 1024 * 1024
/** Tried one after the other when a connection cannot be made. */
const addressesTriedMax = 3
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
const credentialHeaders = ['authorization', 'dpop', 'cookie', 'proxy-authorization'] as const

async function exchange(
  request: Request,
  signal: AbortSignal,
  options: GuardedFetchOptions,
): Promise<{ readonly response: Response; readonly host: string }> {
  const readsOnly = request.method === 'GET' || request.method === 'HEAD'
  const headers = new Headers(request.headers)
  // A few encoded bytes can stand for gigabytes, so none are asked for and none are decoded.
  headers.set('accept-encoding', 'identity')
  const init: BunFetchRequestInit = {
    method: request.method,
    headers,
    signal,
    redirect: 'manual',
    decompress: false,
    // Without this, HTTP_PROXY in the environment would take over.
    proxy: false,
  }
  if (!readsOnly) init.body = await request.arrayBuffer()

  let url = new URL(request.url)
  for (let redirects = 0; ; redirects++) {
    const response = await send(url, init, options)
    const location = response.headers.get('location')
    const isLast = !redirectStatuses.has(response.status) || location === null
    if (isLast || request.redirect === 'manual') return { response, host: url.host }
    await response.body?.cancel()
    if (request.redirect === 'error') throw new FetchRefused(url.host, 'answered a redirect')
    if (!readsOnly) throw new FetchRefused(url.host, `redirected a ${request.method}`)
    if (redirects === redirectsMax) throw new FetchRefused(url.host, 'too many redirects')
    const next = URL.parse(location, url.href)
    if (next === null) throw new FetchRefused(url.host, 'redirected to no URL')
    if (next.origin !== url.origin) for (const name of credentialHeaders) headers.delete(name)
    url = next
  }
}

async function send(
  url: URL,
  init: BunFetchRequestInit,
  options: GuardedFetchOptions,
): Promise<Response> {
  if (url.username !== '' || url.password !== '') {
    throw new FetchRefused(url.host, 'a user name or password in the address')
  }
  if (options.allowPrivateNetwork) {
    if (url.protocol !== 'https:' && url.protocol !== 'http:') {
      throw new FetchRefused(url.host, `the scheme ${url.protocol.slice(0, 20)}`)
    }
    return fetch(url, init)
  }
  if (url.protocol !== 'https:')
    throw new FetchRefused(url.host, `not https: ${url.protocol.slice(0, 20)}`)
  if (url.port !== '') throw new FetchRefused(url.host, 'a port other than 443')

  const addresses = await publicAddresses(url, init.signal ?? undefined, options)
  let failure: unknown
  for (const address of addresses.slice(0, addressesTriedMax)) {
    const pinned = pin(url, address, new Headers(init.headers))
    try {
      return await fetch(pinned.url, { ...init, headers: pinned.headers, tls: pinned.tls })
    } catch (error) {
      if (!connectFailures.has(codeOf(error))) throw error
      failure = error
    }
  }
  throw failure
}

/** Nothing was sent yet when one of these happens. */
const connectFailures: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EADDRNOTAVAIL',
  'FailedToOpenSocket',
])

/**
 * The same request to one address of its host: the certificate is still checked against the name,
 * and Bun keeps connections of different names apart.
 */
export function pin(url: URL, address: string, headers: Headers) {
  const name = url.hostname.replace(/\.$/, '')
  const to = new URL(url)
  to.hostname = isIP(address) === 6 ? `[${address}]` : address
  headers.set('host', url.host)
  return { url: to, headers, tls: isIP(unbracketed(name)) === 0 ? { serverName: name } : {} }
}

/** @see https://www.rfc-editor.org/rfc/rfc6761#section-6.3 */
const ownNames = /(^|\.)localhost\.?$/

/** Of the host, every one that it has. @throws FetchRefused where one of them is not public */
export async function publicAddresses(
  url: URL,
  signal: AbortSignal | undefined,
  options: Pick<GuardedFetchOptions, 'lookup'>,
): Promise<readonly string[]> {
  const literal = unbracketed(url.hostname)
  // What these names lead to is this machine, whatever its resolver says of them.
  if (ownNames.test(literal)) throw new FetchRefused(url.host, 'a name of this machine')
  const addresses =
    isIP(literal) === 0
      ? // A look-up cannot be cancelled, only no longer waited for.
        await unlessAborted((options.lookup ?? lookupAll)(url.hostname), signal)
      : [literal]
  if (addresses.length === 0) throw new FetchFailed(url.host, 'no address')
  // One private address among public ones is refused as well: it would be a matter of luck.
  if (!addresses.every(isPublicAddress)) throw new FetchRefused(url.host, 'no public address')
  // IPv4 first: not every network that runs this carries IPv6, and some drop it silently.
  return addresses.toSorted((a, b) => isIP(a) - isIP(b))
}

async function lookupAll(hostname: string): Promise<string[]> {
  return (await systemLookup(hostname, { all: true })).map(({ address }) => address)
}

interface Into {
  readonly bytesMax: number
  readonly sink: ((bytes: Uint8Array) => void) | undefined
}

async function complete(
  response: Response,
  host: string,
  { bytesMax, sink }: Into,
): Promise<Response> {
  const { status, statusText } = response
  const headers = new Headers(response.headers)
  const encoding = headers.get('content-encoding') ?? 'identity'
  if (encoding !== 'identity') {
    await response.body?.cancel()
    throw new FetchRefused(host, `a body in the encoding ${encoding.slice(0, 20)}`)
  }
  const chunks: Uint8Array[] = []
  const keep = (chunk: Uint8Array) => void chunks.push(chunk)
  const isForSink = response.ok && sink !== undefined
  await readBounded(response, host, {
    // What was meant for a sink may be far larger than what memory is for.
    bytesMax: isForSink || sink === undefined ? bytesMax : Math.min(bytesMax, refusalBytesMax),
    sink: isForSink ? sink : keep,
  })
  if (status < 200 || status > 599) throw new FetchFailed(host, `answered the status ${status}`)
  const bytes = Buffer.concat(chunks)
  return new Response(bytes.length === 0 ? null : bytes, { status, statusText, headers })
}

async function readBounded(
  response: Response,
  host: string,
  { bytesMax, sink }: Into & { readonly sink: (bytes: Uint8Array) => void },
): Promise<void> {
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.length
    // Leaving the loop cancels the rest of the body.
    if (size > bytesMax) throw new FetchRefused(host, `an answer over ${bytesMax} bytes`)
    sink(chunk)
  }
}

function unbracketed(hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}

function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    if (/^\w{1,60}$/.test(error.code)) return error.code
  }
  return 'the connection failed'
}
