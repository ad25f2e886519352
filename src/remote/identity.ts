import {
  type DidDocument,
  DidResolver,
  PoorlyFormattedDidDocumentError,
  getHandle,
  getKey,
  getPds,
} from '@atproto/identity'
import { didKeyAlgorithm } from '../atproto/keys.ts'
import { type Did, type Handle, isHandle } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import { Asking, type Limit } from './asking.ts'
import { type Fetch, FetchFailed } from './fetch.ts'
import { type HandleSources, Handles, type Lead } from './handle.ts'
import {
  type DidFailure,
  DidNotResolved,
  PdsEndpointNotFound,
  SigningKeyNotFound,
} from './identity-errors.ts'

export {
  type DidFailure,
  DidNotResolved,
  HandleUnavailable,
  PdsEndpointNotFound,
  SigningKeyNotFound,
} from './identity-errors.ts'

export interface IdentitiesOptions extends Omit<HandleSources, 'fetch'> {
  readonly plcUrl: string
  /** The guarded one: DIDs and handles name hosts that strangers choose. */
  readonly fetch: Fetch
  readonly now: () => number
  /** Learns of every document that was read, and where it says that the account lives. */
  readonly onResolved?: (did: Did, pdsEndpoint: string) => void
}

/** With `fresh`, a document at most one minute old, or the error that stood in its way. */
export interface LookUp {
  readonly fresh?: boolean
}

/**
 * Who a DID is: the key, PDS and handle of its document, with a memory.
 *
 * - A document answers for 5 minutes; up to an hour when it cannot be had anew; never once the DID
 *   is gone.
 * - A failure answers for one minute. So does a `fresh` look-up, well or badly ended: strangers can
 *   cause those by forged signatures.
 * - One look-up a DID or handle at a time, and a bounded number per host and over all.
 */
export class Identities {
  readonly #resolver: DidResolver
  readonly #options: IdentitiesOptions
  readonly #known = new Lru<Did, Known>(knownCharsMax)
  readonly #asking: Asking<Did, Known>
  readonly #handles: Handles

  constructor(options: IdentitiesOptions) {
    this.#options = options
    const directory: Limit = { name: new URL(options.plcUrl).host, most: directoryMax }
    this.#asking = new Asking((did) => limitsOf(did, directory))
    this.#handles = new Handles({
      ...options,
      isNamed: (handle, did) => this.#isNamed(handle, did),
    })
    this.#resolver = new DidResolver({
      plcUrl: options.plcUrl,
      fetch: (input, init) => fetchDocument(options.fetch, input, init),
      timeout: lookUpTimeoutMs,
    })
  }

  /**
   * The did:key of `#atproto`; no other key of the document speaks for the account.
   * @throws DidNotResolved
   * @throws SigningKeyNotFound
   */
  async signingKey(did: Did, lookUp: LookUp = {}): Promise<string> {
    const { signingKey } = await this.#identity(did, lookUp)
    if (signingKey === undefined) throw new SigningKeyNotFound(did)
    return signingKey
  }

  /**
   * The origin of the account's PDS.
   * @throws DidNotResolved
   * @throws PdsEndpointNotFound
   */
  async pdsEndpoint(did: Did, lookUp: LookUp = {}): Promise<string> {
    const { pdsEndpoint } = await this.#identity(did, lookUp)
    if (pdsEndpoint === undefined) throw new PdsEndpointNotFound(did)
    return pdsEndpoint
  }

  /** Whether this would be answered from memory, be it by an error. */
  isAtHand(did: Did, { fresh = false }: LookUp = {}): boolean {
    const known = this.#known.get(did)
    return !didForm.test(did) || (known !== undefined && this.#spares(known, fresh))
  }

  /** The origin of the account's PDS as it was last seen, within the hour; never looks it up. */
  remembered(did: Did): string | undefined {
    const known = this.#known.get(did)
    const recent = known !== undefined && this.#options.now() - known.resolvedAt < staleMs
    return recent ? known.identity?.pdsEndpoint : undefined
  }

  /**
   * The whole document; undefined for one that is too large to be kept.
   * @throws DidNotResolved
   */
  async document(did: Did): Promise<object | undefined> {
    const { document } = await this.#identity(did, {})
    return document === undefined ? undefined : JSON.parse(document)
  }

  /**
   * The handle that the document claims. Whether the handle agrees is `resolveHandle`'s business.
   * @throws DidNotResolved
   */
  async handle(did: Did): Promise<Handle | undefined> {
    return (await this.#identity(did, {})).handle
  }

  /**
   * The DID that a handle points to, if its document names the handle in turn.
   * @throws HandleUnavailable
   * @throws DidNotResolved when the handle points to a DID whose document cannot be had
   */
  async resolveHandle(handle: Handle): Promise<Did | undefined> {
    return this.#handles.resolve(handle)
  }

  /** Whether a handle leads to whom names it. Never fails: what cannot be looked up is unknown. */
  async lead(handle: Handle, to: Did): Promise<Lead> {
    return await this.#handles.lead(handle, to)
  }

  async #isNamed(handle: Handle, did: Did): Promise<boolean> {
    if ((await this.handle(did)) === handle) return true
    // The handle may be newer than what is remembered of the DID.
    return (await this.#identity(did, { fresh: true })).handle === handle
  }

  async #identity(did: Did, { fresh = false }: LookUp): Promise<Identity> {
    // Not remembered: texts that were never a DID of ours would push out those that are.
    if (!didForm.test(did)) throw new DidNotResolved(did, 'absent')
    const known = this.#known.get(did)
    if (known !== undefined && this.#spares(known, fresh)) return this.#answer(did, known, fresh)
    const asked = await this.#asking.share(did, async () => {
      const startedAt = this.#options.now()
      const outcome = await this.#resolve(did)
      const next = merge(this.#known.get(did), outcome, { fresh, startedAt })
      this.#known.set(did, next, factsChars + (next.identity?.document?.length ?? 0))
      if (typeof outcome !== 'string' && outcome.pdsEndpoint !== undefined) {
        this.#options.onResolved?.(did, outcome.pdsEndpoint)
      }
      return next
    })
    if (asked !== undefined) return this.#answer(did, asked, fresh)
    return this.#answer(did, { ...(known ?? nothing), failure: 'busy' }, fresh)
  }

  /** Whether what is known spares a look-up. */
  #spares(known: Known, fresh: boolean): boolean {
    const now = this.#options.now()
    if (fresh) return now - known.forcedAt < forcedEveryMs
    if (known.identity !== undefined && now - known.resolvedAt < freshMs) return true
    return known.failure !== undefined && now - known.failedAt < failureMs
  }

  #answer(did: Did, known: Known, fresh: boolean): Identity {
    const { identity, failure, resolvedAt } = known
    const usable = failure === undefined || !fresh
    if (identity !== undefined && usable && this.#options.now() - resolvedAt < staleMs) {
      return identity
    }
    // A new error each time: one that is kept would show the stack of another request.
    throw new DidNotResolved(did, failure ?? 'unreachable')
  }

  async #resolve(did: Did): Promise<Identity | DidFailure> {
    try {
      const document = await this.#resolver.resolve(did)
      return document === null ? 'absent' : identityOf(document)
    } catch (error) {
      const read = error instanceof PoorlyFormattedDidDocumentError || error instanceof SyntaxError
      // The rest is the network, in many shapes, and is worth no more than a minute's rest.
      return read ? 'malformed' : 'unreachable'
    }
  }
}

const freshMs = 5 * 60_000
const staleMs = 60 * 60_000
const failureMs = 60_000
const forcedEveryMs = 60_000
const lookUpTimeoutMs = 3000
/** Over all DIDs: some 20,000 with documents of the usual size. */
const knownCharsMax = 32 * 1024 * 1024
/** What is known of a DID beside its document. */
const factsChars = 500
/** Of a document that is kept whole: those of strangers must not push out everybody else's. */
const documentCharsMax = 16 * 1024
/** The largest that people have are a few kB. */
const documentBytesMax = 64 * 1024
/** As long as a DNS name can be, with scheme and port. */
const endpointCharsMax = 270

const webPrefix = 'did:web:'
/** A directory answers in some 50 ms, so this is over a thousand accounts a second. */
const directoryMax = 64
/** A host of a did:web carries one document; more at once is somebody playing. */
const webHostMax = 4
/** Over all such hosts: strangers can name any number of them, and let each hang. */
const webMax = 64

function limitsOf(did: Did, directory: Limit): readonly Limit[] {
  if (!did.startsWith(webPrefix)) return [directory]
  return [
    { name: did.slice(webPrefix.length), most: webHostMax },
    { name: webPrefix, most: webMax },
  ]
}

/** No path and, as everywhere in AT Protocol, a port on `localhost` only. */
const didForm = /^did:(plc:[a-z2-7]{24}|web:([a-zA-Z0-9.-]+|localhost%3A\d{1,5}))$/

interface Identity {
  readonly signingKey: string | undefined
  readonly pdsEndpoint: string | undefined
  readonly handle: Handle | undefined
  /** As JSON, unless it is too large. */
  readonly document: string | undefined
}

/** Times are those at which the look-up started. */
interface Known {
  readonly identity: Identity | undefined
  readonly resolvedAt: number
  /** Of the latest look-up. */
  readonly failure: DidFailure | undefined
  readonly failedAt: number
  readonly forcedAt: number
}

const nothing: Known = {
  identity: undefined,
  resolvedAt: -Infinity,
  failure: undefined,
  failedAt: -Infinity,
  forcedAt: -Infinity,
}

function merge(
  before: Known = nothing,
  outcome: Identity | DidFailure,
  look: { readonly fresh: boolean; readonly startedAt: number },
): Known {
  const forcedAt = look.fresh ? look.startedAt : before.forcedAt
  if (typeof outcome !== 'string') {
    return { ...nothing, identity: outcome, resolvedAt: look.startedAt, forcedAt }
  }
  const kept = outcome === 'absent' ? nothing : before
  return { ...kept, failure: outcome, failedAt: look.startedAt, forcedAt }
}

function identityOf(document: DidDocument): Identity {
  const text = JSON.stringify(document)
  return {
    document: text.length <= documentCharsMax ? text : undefined,
    signingKey: signingKeyOf(document),
    pdsEndpoint: originOf(getPds(document)),
    handle: handleOf(document),
  }
}

function signingKeyOf(document: DidDocument): string | undefined {
  try {
    const key = getKey(document)
    if (key !== undefined) didKeyAlgorithm(key)
    return key
  } catch {
    // What is no key makes the library throw plain errors.
    return undefined
  }
}

function originOf(endpoint: string | undefined): string | undefined {
  const url = endpoint === undefined ? null : URL.parse(endpoint)
  // Anything beyond an origin would be lost, and then means another server than the document does.
  if (url === null || url.href !== `${url.origin}/`) return undefined
  return url.origin.length <= endpointCharsMax ? url.origin : undefined
}

function handleOf(document: DidDocument): Handle | undefined {
  const handle = getHandle(document)?.toLowerCase()
  return handle !== undefined && isHandle(handle) ? handle : undefined
}

/**
 * The library takes every failure of a did:web host for "no such DID", and a tombstone of the
 * directory for a failure.
 */
async function fetchDocument(
  fetch: Fetch,
  input: string | URL | Request,
  init?: RequestInit,
): Promise<Response> {
  const response = await fetch(input, { ...init, bytesMax: documentBytesMax })
  if (response.ok) return response
  if (response.status === 404 || response.status === 410) {
    return new Response(null, { status: 404 })
  }
  const { host } = new URL(input instanceof Request ? input.url : input)
  throw new FetchFailed(host, `answered ${response.status}`)
}
