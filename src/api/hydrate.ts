import type { Cid } from '../atproto/cid.ts'
import { XrpcError } from '../atproto/errors.ts'
import {
  type AtUri,
  type Did,
  type Nsid,
  parseRecordUri,
  recordPlace,
  recordUri,
} from '../atproto/syntax.ts'
import type { CallActor, HydrateAnswer } from '../service/calls.ts'
import type { View } from '../store/actor.ts'
import { pageBytesMax } from '../store/actor-list.ts'
import { type AccessFacts, type Caller, owns, seesNothing, viewOf } from './caller.ts'
import { cidOf, text, texts } from '../atproto/members.ts'
import { type Answer, type Call, JsonText, type Method } from './xrpc.ts'

interface Parts extends AccessFacts {
  readonly call: CallActor
  /** Collections in which the PDS takes stubs, by the scope that the person granted. */
  readonly stubCollections: (scope: string) => readonly Nsid[]
}

/** Reads of records by their URIs, as stubs, replies and quotes name them. */
export function hydrateMethods(parts: Parts): Record<string, Method> {
  const door = new HydrateDoor(parts)
  return {
    'zone.stratos.repo.hydrateRecord': {
      audience: 'anyone',
      handle: (call) => door.hydrateRecord(call),
    },
    'zone.stratos.repo.hydrateRecords': {
      audience: 'anyone',
      prepare: checkCount,
      handle: (call) => door.hydrateRecords(call),
    },
  }
}

const urisMax = 100
/** Of one call: it shares the shards with others. */
const actorsAtOnce = 25

/** Who reads, and whether that is somebody to whom a record may be called blocked. */
interface Reader {
  readonly caller: Caller
  readonly isEnrolled: boolean
}

/** Those of the caller's URIs that are of one actor. */
interface Owned {
  readonly did: Did
  readonly uris: readonly AtUri[]
  /** Where each of `uris` stands in the caller's list. */
  readonly places: readonly number[]
}

/** The same, with the eyes of one reader. */
interface Ask extends Owned {
  readonly view: View
  /** Collections whose stubs tell everybody of a record, so that a hidden one is called blocked. */
  readonly stubbed: readonly Nsid[]
}

interface Limits {
  readonly bytesMax: number
  readonly cid?: Cid | undefined
  readonly requestId: string
}

class HydrateDoor {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async hydrateRecord({ params, caller, requestId }: Call): Promise<Answer> {
    const cid = cidOf(params, 'cid')
    const [owned] = byOwner([text(params, 'uri') ?? ''])
    if (owned === undefined) throw recordNotFound()
    const ask = await this.#askOf(await this.#reader(caller), owned)
    if (ask === undefined) throw recordNotFound()
    const limits = { bytesMax: pageBytesMax, cid, requestId }
    const { texts, hidden } = await this.#find(ask, limits)
    const [record] = texts
    if (record !== undefined) return { body: new JsonText(record) }
    if (hidden.length > 0) throw recordBlocked()
    // Only the owner is told, and only of a record that is there.
    if (owns(caller, ask.did) && ask.view !== 'all') {
      const present = await this.#find({ ...ask, view: 'all' }, limits)
      if (present.texts.length > 0) throw recordTakendown()
    }
    throw recordNotFound()
  }

  async hydrateRecords({ input, caller, requestId }: Call): Promise<Answer> {
    const uris = [...new Set(texts(input, 'uris'))]
    const reader = await this.#reader(caller)
    const page = new Page(uris)
    const unread: Ask[] = []
    const owners = [...byOwner(uris)]
    for (let start = 0; start < owners.length; start += actorsAtOnce) {
      const group = owners.slice(start, start + actorsAtOnce).map(async (owned) => {
        if (await this.#isOwnTakendown(caller, owned.did)) return
        const ask = await this.#askOf(reader, owned)
        if (ask === undefined) return
        // Everybody has a share of the page, so that together they do not overfill it.
        const bytesMax = Math.floor((pageBytesMax * ask.uris.length) / uris.length)
        const found = await this.#find(ask, { bytesMax, requestId })
        page.add(ask, found)
        if (found.unread.length > 0) unread.push({ ...ask, ...pick(ask, found.unread) })
      })
      await Promise.all(group)
    }
    // What the shares left over goes to those who need more. One record always fits.
    for (const ask of unread) {
      page.add(ask, await this.#find(ask, { bytesMax: page.bytesLeft, requestId }))
    }
    return { body: new JsonText(page.text()) }
  }

  async #reader(caller: Caller): Promise<Reader> {
    const isEnrolled =
      caller.kind === 'user' && (await this.#parts.enrollments.find(caller.did)) !== undefined
    return { caller, isEnrolled }
  }

  /** Undefined where the reader learns of no record without anybody being asked. */
  async #askOf({ caller, isEnrolled }: Reader, owned: Owned): Promise<Ask | undefined> {
    const { did, uris } = owned
    const asked = { did, isAbout: (uri: AtUri) => uris.includes(uri) }
    const view = await viewOf(caller, asked, this.#parts)
    if (view === undefined) return undefined
    const stubbed = isEnrolled ? await this.#stubbed(did) : []
    if (seesNothing(view) && stubbed.length === 0) return undefined
    return { ...owned, view, stubbed }
  }

  async #stubbed(did: Did): Promise<readonly Nsid[]> {
    const owner = await this.#parts.enrollments.find(did)
    if (owner === undefined) return []
    return this.#parts.stubCollections(owner.scope)
  }

  /** A batch goes on beside one's own repo that was taken down. */
  async #isOwnTakendown(caller: Caller, did: Did): Promise<boolean> {
    return owns(caller, did) && (await this.#parts.takedowns.of(did)).repo
  }

  async #find(
    { did, uris, view, stubbed }: Ask,
    { bytesMax, cid, requestId }: Limits,
  ): Promise<HydrateAnswer> {
    const hidden = stubbed.length > 0 ? 'named' : 'missing'
    try {
      const ask = { kind: 'hydrate', uris, view, cid, hidden, bytesMax } as const
      const found = await this.#parts.call(did, requestId, ask)
      if (found.hidden.length === 0) return found
      const isStubbed = (index: number) =>
        stubbed.includes(parseRecordUri(uris[index] ?? '').collection)
      return { ...found, hidden: found.hidden.filter(isStubbed) }
    } catch (error) {
      // The owner left in this moment.
      if (error instanceof XrpcError && error.error === 'RepoNotFound') return nothing
      throw error
    }
  }
}

/** What came of the URIs of one call. */
class Page {
  readonly #uris: readonly string[]
  /** By place. */
  readonly #texts: (string | undefined)[]
  readonly #hidden = new Set<number>()
  readonly #unread = new Set<number>()
  #bytes = 0

  constructor(uris: readonly string[]) {
    this.#uris = uris
    this.#texts = uris.map(() => undefined)
  }

  get bytesLeft(): number {
    return Math.max(0, pageBytesMax - this.#bytes)
  }

  add(ask: Owned, { texts, found, hidden, unread, contentBytes }: HydrateAnswer): void {
    for (const [at, place] of pick(ask, found).places.entries()) {
      this.#texts[place] = texts[at]
      this.#unread.delete(place)
    }
    for (const place of pick(ask, hidden).places) this.#hidden.add(place)
    for (const place of pick(ask, unread).places) this.#unread.add(place)
    this.#bytes += contentBytes
  }

  text(): string {
    const [notFound, blocked, remaining]: [string[], string[], string[]] = [[], [], []]
    for (const [place, uri] of this.#uris.entries()) {
      if (this.#texts[place] !== undefined) continue
      if (this.#hidden.has(place)) blocked.push(uri)
      else if (this.#unread.has(place)) remaining.push(uri)
      else notFound.push(uri)
    }
    const rest = { notFound, blocked, ...(remaining.length === 0 ? {} : { remaining }) }
    const records = this.#texts.filter((text) => text !== undefined)
    return `{"records":[${records.join(',')}],${JSON.stringify(rest).slice(1)}`
  }
}

/** Some of those that are of one actor, by their indexes there. */
function pick({ did, uris, places }: Owned, indexes: readonly number[]): Owned {
  return {
    did,
    uris: indexes.flatMap((index) => uris[index] ?? []),
    places: indexes.flatMap((index) => places[index] ?? []),
  }
}

const nothing: HydrateAnswer = { texts: [], found: [], hidden: [], unread: [], contentBytes: 0 }

function checkCount(body: unknown): unknown {
  const { uris } = Object(body)
  if (!Array.isArray(uris) || uris.length <= urisMax) return body
  throw new XrpcError(400, 'TooManyUris', `one call takes at most ${urisMax} URIs`)
}

/** Those that can be of records here, by the actor who has them. */
function byOwner(uris: readonly string[]): Iterable<Owned> {
  const all = new Map<Did, { did: Did; uris: AtUri[]; places: number[] }>()
  for (const [place, uri] of uris.entries()) {
    // An AT-URI of anything but a record, or with a handle, is of none that is here.
    const parts = recordPlace(uri)
    if (parts === undefined) continue
    const { did, collection, rkey } = parts
    const owned = all.get(did) ?? { did, uris: [], places: [] }
    owned.uris.push(recordUri(did, collection, rkey))
    owned.places.push(place)
    all.set(did, owned)
  }
  return all.values()
}

/** The one answer for what is not there and for what the caller may not know of. */
function recordNotFound(): XrpcError {
  return new XrpcError(404, 'RecordNotFound', 'there is no record at this URI to see')
}

function recordBlocked(): XrpcError {
  return new XrpcError(403, 'RecordBlocked', 'you share no boundary with this record')
}

function recordTakendown(): XrpcError {
  const text = 'your record was taken down on this service: you may delete it, and nothing else'
  return new XrpcError(403, 'RecordTakendown', text)
}
