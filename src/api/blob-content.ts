import { type Cid, parseCid } from '../atproto/cid.ts'
import { XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { ActorCall, CallActor } from '../service/calls.ts'
import { unknownType } from '../service/blob-type.ts'
import type { BlobRow } from '../store/actor-blobs.ts'
import {
  BlobCut,
  type BlobPlace,
  type BlobStorage,
  type ByteRange,
  type StoredBlob,
} from '../store/blob-storage.ts'
import { type AccessFacts, owns, type Reader, seesNothing, viewOf } from './caller.ts'
import { Downloads } from './downloads.ts'
import { rangeOf } from './range.ts'
import { Content } from './xrpc.ts'

export interface ContentParts extends AccessFacts {
  readonly storage: Pick<BlobStorage, 'read'>
  readonly call: CallActor
  readonly log: Log
}

export interface AskedBlob {
  readonly did: Did
  readonly cid: Cid
}

/** @throws XrpcError 400 for what names no blob */
export function askedBlob(did: string, cid: string): AskedBlob {
  return { did: parseDid(did), cid: parseCid(cid) }
}

/**
 * The bytes of blobs, for those who may read a record that names them. To all others a blob is one
 * that never was.
 */
export class BlobContent {
  readonly #parts: ContentParts
  readonly #downloads = new Downloads(downloadLimits)

  constructor(parts: ContentParts) {
    this.#parts = parts
  }

  /**
   * @throws XrpcError 404 BlobNotFound; to the owner also 403 RepoTakendown, BlobTakendown
   */
  async find(caller: Reader, { did, cid }: AskedBlob, requestId: string): Promise<FoundBlob> {
    const view = await viewOf(caller, { did, isAbout: () => true }, this.#parts)
    if (view === undefined || seesNothing(view)) throw blobNotFound()
    const row = await this.#row(did, requestId, { kind: 'blob', cid, view })
    const isTakendown = (await this.#parts.takedowns.of(did)).blobs.includes(cid)
    if (isTakendown && owns(caller, did)) throw blobTakendown()
    if (isTakendown && caller.kind !== 'admin') throw blobNotFound()
    return { ...row, isTakendown }
  }

  /**
   * The whole of it, or the range that the request wants.
   * @throws XrpcError as `find`; 416 RangeNotSatisfiable, 503 Overloaded
   */
  async answer(request: Request, ask: Ask): Promise<ContentAnswer> {
    const found = await this.find(ask.caller, ask.asked, ask.requestId)
    const { cid, size } = found
    const etag = `"${cid}"`
    const headers = { ...contentHeaders, etag }
    if (isKnown(request.headers.get('if-none-match'), etag)) {
      return { body: new Content(null, { status: 304, type: typeOf(found) }), headers }
    }
    const range = rangeOf(request.headers, { size, etag })
    if (range === 'unsatisfiable') throw unsatisfiable(size)
    const { start, end } = range ?? { start: 0, end: size }
    const stored = await this.#read(ask, { found, range })
    const body = await this.#sendable(stored, { request, ask, bytes: end - start })
    return {
      body: new Content(body, { status: range === undefined ? 200 : 206, type: typeOf(found) }),
      headers: {
        ...headers,
        'content-length': String(end - start),
        'content-disposition': `attachment; filename="${cid}"`,
        ...(range === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${size}` }),
      },
    }
  }

  /** Whoever leaves meanwhile has nothing here. */
  async #row(did: Did, requestId: string, ask: Extract<ActorCall, { kind: 'blob' }>) {
    try {
      const found = await this.#parts.call(did, requestId, ask)
      if ('row' in found) return found.row
    } catch (error) {
      if (!(error instanceof XrpcError && error.error === 'RepoNotFound')) throw error
    }
    throw blobNotFound()
  }

  async #read(ask: Ask, { found, range }: Reading): Promise<StoredBlob['body']> {
    const { caller, asked, requestId } = ask
    const { did, cid } = asked
    const body = await this.#stored(did, { found, range })
    if (body !== undefined) return body
    // They may have been moved, or have gone with their record, since it was looked where they are.
    const again = await this.find(caller, asked, requestId)
    const moved = await this.#stored(did, { found: again, range })
    if (moved !== undefined) return moved
    // Rows say that they are there: what is wrong is not for callers to know.
    const advice = 'restore them from a backup'
    this.#parts.log.error('blob.bytes-missing', { did, cid, requestId, advice })
    throw blobNotFound()
  }

  /** Undefined where they are not, or not all of them. */
  async #stored(did: Did, { found, range }: Reading): Promise<StoredBlob['body'] | undefined> {
    for (const place of placesOf(did, found)) {
      const stored = await uncut(this.#parts.storage.read(place, range))
      if (stored?.bytes === found.size) return stored.body
      if (stored?.body instanceof ReadableStream) await stored.body.cancel()
    }
    return undefined
  }

  /**
   * What is short goes out in one piece, since Bun tells the length of nothing else; of the rest so
   * much at once as there is room for.
   */
  async #sendable(
    body: StoredBlob['body'],
    { request, ask, bytes }: { request: Request; ask: Ask; bytes: number },
  ): Promise<Content['body']> {
    if (request.method === 'HEAD' || !(body instanceof ReadableStream)) return body
    if (bytes <= pieceBytesMax) {
      const piece = await uncut(new Response(body).blob())
      if (piece === undefined) throw blobNotFound()
      return piece
    }
    const { caller } = ask
    const key = 'did' in caller ? caller.did : caller.kind
    try {
      const withinMs = waitMsMax + (1000 * bytes) / bytesPerSecondMin
      return await this.#downloads.stream(key, async () => body, withinMs)
    } catch (error) {
      await body.cancel()
      throw error
    }
  }
}

interface Ask {
  readonly caller: Reader
  readonly asked: AskedBlob
  readonly requestId: string
}

export interface ContentAnswer {
  readonly body: Content
  readonly headers: Readonly<Record<string, string>>
}

export interface FoundBlob extends BlobRow {
  readonly isTakendown: boolean
}

interface Reading {
  readonly found: FoundBlob
  readonly range: ByteRange | undefined
}

/** A takedown counts before its bytes are in quarantine, and still when they are back. */
function placesOf(did: Did, { cid, tempKey, isTakendown }: FoundBlob): BlobPlace[] {
  if (tempKey !== null) return [{ kind: 'temporary', did, key: tempKey }]
  const permanent: BlobPlace = { kind: 'permanent', did, cid }
  return isTakendown ? [{ kind: 'quarantined', did, cid }, permanent] : [permanent]
}

/** Undefined as well where there are fewer bytes than there should be. */
async function uncut<Result>(reading: Promise<Result>): Promise<Result | undefined> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof BlobCut) return undefined
    throw error
  }
}

/** As large as what most pictures are. Larger ones tell their length by HEAD and by any range. */
const pieceBytesMax = 1024 * 1024
/** Nobody stands in the way of others for longer than this takes. Some phones are no faster. */
const bytesPerSecondMin = 16 * 1024
const waitMsMax = 60_000
/** Of larger ones: pages show few films at once, and each holds a file and a piece in memory. */
const downloadLimits = { ofCallerMax: 16, togetherMax: 128, what: 'large blobs' } as const

/** What no browser runs, whatever is in it; of all others none is told what they are. */
const harmless: ReadonlySet<string> = new Set([
  'image/png',
  'image/jpeg',
  'image/gif',
  'image/webp',
  'image/avif',
  'video/mp4',
  'video/webm',
])

function typeOf({ mimeType }: FoundBlob): string {
  return harmless.has(mimeType) ? mimeType : unknownType
}

/** They may be shown on any page that was given a way to them, and run nowhere. */
const contentHeaders = {
  'accept-ranges': 'bytes',
  'cache-control': 'private, no-cache',
  'content-security-policy': "default-src 'none'; sandbox",
  'cross-origin-resource-policy': 'cross-origin',
  'content-disposition': 'attachment',
} as const

function isKnown(known: string | null, etag: string): boolean {
  if (known === null) return false
  return known
    .split(',')
    .map((tag) => tag.trim().replace(/^W\//, ''))
    .some((tag) => tag === etag || tag === '*')
}

export function blobNotFound(): XrpcError {
  return new XrpcError(404, 'BlobNotFound', 'there is no such blob to see')
}

function blobTakendown(): XrpcError {
  return new XrpcError(403, 'BlobTakendown', 'this blob was taken down on this service')
}

function unsatisfiable(size: number): XrpcError {
  return new XrpcError(416, 'RangeNotSatisfiable', `the blob has ${size} bytes`, {
    headers: { 'content-range': `bytes */${size}` },
  })
}
