import { Resolver } from 'node:dns/promises'
import { type Did, type Handle, isDid } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import { Asking } from './asking.ts'
import { type Fetch, FetchFailed, FetchRefused } from './fetch.ts'
import { type DidFailure, DidNotResolved, HandleUnavailable } from './identity-errors.ts'

export interface HandleSources {
  readonly fetch: Fetch
  /** Origin of an XRPC server to ask instead of DNS and the handle's own host: closed networks. */
  readonly handleResolverUrl?: string
  /** The TXT records of a name, each in its chunks. */
  readonly resolveTxt?: (name: string) => Promise<string[][]>
}

export interface HandlesOptions extends HandleSources {
  readonly now: () => number
  /**
   * Whether the document of the DID names the handle.
   * @throws DidNotResolved
   */
  readonly isNamed: (handle: Handle, did: Did) => Promise<boolean>
}

/**
 * Where handles lead, with a memory: five minutes for a DID, one minute for anything else. One
 * look-up a handle at a time, and a bounded number over all: strangers choose the hosts.
 */
export class Handles {
  readonly #options: HandlesOptions
  readonly #known = new Lru<Handle, Known>(handlesKnownMax)
  readonly #asking = new Asking<Handle, Known>(() => [{ name: 'handles', most: lookUpsMax }])

  constructor(options: HandlesOptions) {
    this.#options = options
  }

  /** @throws HandleUnavailable, DidNotResolved */
  async resolve(handle: Handle): Promise<Did | undefined> {
    const known = await this.#find(handle)
    if (known === undefined) throw new HandleUnavailable(handle, 'busy')
    return answerOf(handle, known)
  }

  async lead(handle: Handle, to: Did): Promise<Lead> {
    const known = await this.#find(handle)
    if (known === undefined) return 'unknown'
    const { did, failure, isSilent } = known
    const isKnown = failure === undefined && !isSilent
    if (did === undefined) return isKnown ? 'elsewhere' : 'unknown'
    if (did !== to) return 'elsewhere'
    return isKnown ? 'there' : 'unknown'
  }

  /** Undefined while too much is asked at once. */
  async #find(handle: Handle): Promise<Known | undefined> {
    const known = this.#known.get(handle)
    if (known !== undefined && this.#options.now() - known.at < lifeMs(known)) return known
    return await this.#asking.share(handle, () => this.#ask(handle))
  }

  async #ask(handle: Handle): Promise<Known> {
    const at = this.#options.now()
    const known = { at, ...(await this.#look(handle)) }
    // That we are busy says nothing about the handle.
    if (known.failure !== 'busy') this.#known.set(handle, known)
    return known
  }

  async #look(handle: Handle): Promise<Omit<Known, 'at'>> {
    try {
      const { did, isSilent } = await lookUp(handle, this.#options)
      const agrees = did !== undefined && (await this.#options.isNamed(handle, did))
      return { did: agrees ? did : undefined, failure: undefined, isSilent }
    } catch (error) {
      if (error instanceof DidNotResolved) {
        return { did: error.did, failure: error.failure, isSilent: false }
      }
      if (error instanceof FetchFailed || error instanceof FetchRefused) {
        return { did: undefined, failure: 'unreachable', isSilent: false }
      }
      throw error
    }
  }
}

/** Whether a handle leads to a DID, with that document naming it; `unknown` may pass. */
export type Lead = 'there' | 'elsewhere' | 'unknown'

const foundMs = 5 * 60_000
const otherwiseMs = 60_000
/** Each takes up to two connections, of which this process has a few hundred. */
const lookUpsMax = 32
/** Some 200 bytes each, and never over 3 kB. */
const handlesKnownMax = 10_000
/** A DID, or a small JSON object around one. */
const answerBytesMax = 64 * 1024

/** Where a handle points, by what DNS and its host say. */
interface Pointer {
  readonly did: Did | undefined
  /** There may be a DID: something that may name one gave no answer. */
  readonly isSilent: boolean
}

const nowhere: Pointer = { did: undefined, isSilent: false }
const silence: Pointer = { did: undefined, isSilent: true }

interface Known {
  /** When the look-up started. */
  readonly at: number
  /** Where the handle leads, or whose document could not be had. */
  readonly did: Did | undefined
  /** Of the document, or of the handle itself when there is no DID. */
  readonly failure: DidFailure | undefined
  /** To most who ask, a handle of which nobody says anything is none. */
  readonly isSilent: boolean
}

function lifeMs({ did, failure }: Known): number {
  return did !== undefined && failure === undefined ? foundMs : otherwiseMs
}

/** A new error each time: one that is kept would show the stack of another request. */
function answerOf(handle: Handle, { did, failure }: Known): Did | undefined {
  if (failure === undefined) return did
  if (did !== undefined) throw new DidNotResolved(did, failure)
  throw new HandleUnavailable(handle, 'unreachable')
}

/**
 * Where a handle points. Anybody can point a handle at any DID: the answer counts only when the
 * document of that DID names the handle.
 * @throws FetchFailed, FetchRefused when the XRPC server gives no proper answer
 * @see https://atproto.com/specs/handle#handle-resolution
 */
async function lookUp(handle: Handle, sources: HandleSources): Promise<Pointer> {
  if (sources.handleResolverUrl !== undefined) {
    return fromServer(handle, sources.handleResolverUrl, sources.fetch)
  }
  const cancel = new AbortController()
  // Both at once, and DNS counts first where they disagree.
  const web = fromHost(handle, sources.fetch, cancel.signal)
  // Awaited below; until then, and if DNS throws, its failure must not count as unhandled.
  void web.catch(() => undefined)
  const dns = await fromDns(handle, sources.resolveTxt ?? resolveTxt)
  if (dns.did === undefined) {
    const { did, isSilent } = await web
    return { did, isSilent: did === undefined && (dns.isSilent || isSilent) }
  }
  cancel.abort()
  await web
  return dns
}

const dnsTimeoutMs = 2000
const hostTimeoutMs = 3000
const tooManyRequests = 429

async function fromDns(
  handle: Handle,
  resolve: (name: string) => Promise<string[][]>,
): Promise<Pointer> {
  let records: string[][]
  try {
    records = await resolve(`_atproto.${handle}`)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error
    // Most names have no such record, and DNS has many ways to say so, silence included.
    return noRecordCodes.has(error.code) ? nowhere : silence
  }
  const found = records.map((chunks) => chunks.join('')).filter((text) => text.startsWith('did='))
  const [only] = found
  return found.length === 1 ? pointer(only?.slice('did='.length)) : nowhere
}

/** Of answers that there is none. */
const noRecordCodes: ReadonlySet<unknown> = new Set(['ENOTFOUND', 'ENODATA'])

async function fromHost(handle: Handle, fetch: Fetch, cancelled: AbortSignal): Promise<Pointer> {
  const signal = AbortSignal.any([cancelled, AbortSignal.timeout(hostTimeoutMs)])
  try {
    const response = await fetch(`https://${handle}/.well-known/atproto-did`, {
      signal,
      bytesMax: answerBytesMax,
    })
    if (response.status === 200) return pointer((await response.text()).trim())
    return response.status < 500 && response.status !== tooManyRequests ? nowhere : silence
  } catch (error) {
    if (error instanceof FetchRefused) return nowhere
    // Many handles have no web server at all.
    if (error instanceof FetchFailed || signal.aborted) return silence
    throw error
  }
}

async function fromServer(handle: Handle, server: string, fetch: Fetch): Promise<Pointer> {
  const url = new URL('/xrpc/com.atproto.identity.resolveHandle', server)
  url.searchParams.set('handle', handle)
  const headers = { accept: 'application/json' }
  const response = await fetch(url, { headers, bytesMax: answerBytesMax })
  if (response.status === 400 || response.status === 404) return nowhere
  if (!response.ok) throw new FetchFailed(url.host, `answered ${response.status}`)
  const found = pointer(didOf(await response.text()))
  if (found === nowhere) throw new FetchFailed(url.host, 'answered something else than a DID')
  return found
}

/** Undefined for an answer of another form; its text goes nowhere. */
function didOf(answer: string): string | undefined {
  try {
    const body: unknown = JSON.parse(answer)
    const did = typeof body === 'object' && body !== null ? Reflect.get(body, 'did') : undefined
    return typeof did === 'string' ? did : undefined
  } catch {
    return undefined
  }
}

async function resolveTxt(name: string): Promise<string[][]> {
  return new Resolver({ timeout: dnsTimeoutMs, tries: 2 }).resolveTxt(name)
}

function pointer(text: string | undefined): Pointer {
  return text !== undefined && isDid(text) ? { did: text, isSilent: false } : nowhere
}
