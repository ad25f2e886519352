import { type Cid, parseCid } from '../atproto/cid.ts'
import { XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { CallActor } from '../service/calls.ts'
import { unknownType } from '../service/blob-type.ts'
import type { BlobRow } from '../store/actor-blobs.ts'
import type { BlobPlace, BlobStorage, ByteRange } from '../store/blob-storage.ts'
import { type AccessFacts, owns, type Reader, seesNothing, viewOf } from './caller.ts'
import { rangeOf } from './range.ts'
import { Content } from './xrpc.ts'

export interface ContentParts extends AccessFacts {
  readonly storage: BlobStorage
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

  constructor(parts: ContentParts) {
    this.#parts = parts
  }

  /**
   * @throws XrpcError 404 BlobNotFound; to the owner also 403 RepoTakendown, BlobTakendown
   */
  async find(caller: Reader, { did, cid }: AskedBlob, requestId: string): Promise<FoundBlob> {
    const view = await viewOf(caller, { did, isAbout: () => true }, this.#parts)
    if (view === undefined || seesNothing(view)) throw blobNotFound()
    const found = await this.#parts.call(did, requestId, { kind: 'blob', cid, view })
    if ('missing' in found) throw blobNotFound()
    const isTakendown = (await this.#parts.takedowns.of(did)).blobs.includes(cid)
    if (isTakendown && owns(caller, did)) throw blobTakendown()
    if (isTakendown && caller.kind !== 'admin') throw blobNotFound()
    return { ...found.row, isTakendown }
  }

  /** The whole of it, or the range that the request wants. */
  async answer(
    request: Request,
    { did, found, requestId }: { did: Did; found: FoundBlob; requestId: string },
  ): Promise<ContentAnswer> {
    const { cid, size } = found
    const etag = `"${cid}"`
    const headers = { ...contentHeaders, etag }
    if (isKnown(request.headers.get('if-none-match'), etag)) {
      return { body: new Content(null, { status: 304, type: typeOf(found) }), headers }
    }
    const range = rangeOf(request.headers, { size, etag })
    if (range === 'unsatisfiable') throw unsatisfiable(size)
    const body = await this.#read({ did, found, requestId }, range)
    const { start, end } = range ?? { start: 0, end: size }
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

  async #read({ did, found, requestId }: Reading, range: ByteRange | undefined) {
    const { storage, log } = this.#parts
    const { cid, size } = found
    const stored = await storage.read(placeOf(did, found), range)
    if (stored !== undefined && stored.bytes === size) return stored.body
    if (stored?.body instanceof ReadableStream) await stored.body.cancel()
    // Rows say that they are there: what is wrong is not for callers to know.
    log.error('blob.bytes-missing', { did, cid, requestId, advice: 'restore them from a backup' })
    throw blobNotFound()
  }
}

export interface ContentAnswer {
  readonly body: Content
  readonly headers: Readonly<Record<string, string>>
}

export interface FoundBlob extends BlobRow {
  readonly isTakendown: boolean
}

interface Reading {
  readonly did: Did
  readonly found: FoundBlob
  readonly requestId: string
}

function placeOf(did: Did, { cid, tempKey, isTakendown }: FoundBlob): BlobPlace {
  if (tempKey !== null) return { kind: 'temporary', did, key: tempKey }
  return { kind: isTakendown ? 'quarantined' : 'permanent', did, cid }
}

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
