import { Resolver } from 'node:dns/promises'
import { type Did, type Handle, isDid } from '../atproto/syntax.ts'
import { type Fetch, FetchFailed, FetchRefused } from './fetch.ts'

export interface HandleSources {
  readonly fetch: Fetch
  /** Origin of an XRPC server to ask instead of DNS and the handle's own host: closed networks. */
  readonly handleResolverUrl?: string
  /** The TXT records of a name, each in its chunks. */
  readonly resolveTxt?: (name: string) => Promise<string[][]>
}

/**
 * Where a handle points. Anybody can point a handle at any DID: the answer counts only when the
 * document of that DID names the handle.
 * @throws FetchFailed when the XRPC server does not answer
 * @see https://atproto.com/specs/handle#handle-resolution
 */
export async function lookUpHandle(
  handle: Handle,
  sources: HandleSources,
): Promise<Did | undefined> {
  if (sources.handleResolverUrl !== undefined) {
    return fromServer(handle, sources.handleResolverUrl, sources.fetch)
  }
  const cancel = new AbortController()
  // Both at once, and DNS counts first where they disagree.
  const web = fromHost(handle, sources.fetch, cancel.signal)
  const dns = await fromDns(handle, sources.resolveTxt ?? resolveTxt)
  if (dns === undefined) return web
  cancel.abort()
  await web
  return dns
}

const dnsTimeoutMs = 2000
const hostTimeoutMs = 3000

async function fromDns(
  handle: Handle,
  resolve: (name: string) => Promise<string[][]>,
): Promise<Did | undefined> {
  let records: string[][]
  try {
    records = await resolve(`_atproto.${handle}`)
  } catch (error) {
    // Most names have no such record, and DNS has many ways to say so, silence included.
    if (error instanceof Error && 'code' in error) return undefined
    throw error
  }
  const found = records.map((chunks) => chunks.join('')).filter((text) => text.startsWith('did='))
  const [only] = found
  return found.length === 1 ? asDid(only?.slice('did='.length)) : undefined
}

async function fromHost(
  handle: Handle,
  fetch: Fetch,
  cancelled: AbortSignal,
): Promise<Did | undefined> {
  const signal = AbortSignal.any([cancelled, AbortSignal.timeout(hostTimeoutMs)])
  try {
    const response = await fetch(`https://${handle}/.well-known/atproto-did`, { signal })
    return response.status === 200 ? asDid((await response.text()).trim()) : undefined
  } catch (error) {
    // Many handles have no web server at all.
    const expected = error instanceof FetchFailed || error instanceof FetchRefused
    if (expected || signal.aborted) return undefined
    throw error
  }
}

async function fromServer(handle: Handle, server: string, fetch: Fetch): Promise<Did | undefined> {
  const url = new URL('/xrpc/com.atproto.identity.resolveHandle', server)
  url.searchParams.set('handle', handle)
  const response = await fetch(url, { headers: { accept: 'application/json' } })
  if (response.status === 400 || response.status === 404) return undefined
  if (!response.ok) throw new FetchFailed(url.host, `answered ${response.status}`)
  const body: unknown = await response.json()
  const did = typeof body === 'object' && body !== null && 'did' in body ? body.did : undefined
  return typeof did === 'string' ? asDid(did) : undefined
}

async function resolveTxt(name: string): Promise<string[][]> {
  return new Resolver({ timeout: dnsTimeoutMs, tries: 2 }).resolveTxt(name)
}

function asDid(text: string | undefined): Did | undefined {
  return text !== undefined && isDid(text) ? text : undefined
}
