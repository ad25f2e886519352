import { decode } from '../atproto/cbor.ts'
import type { DataValue } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import { noHandle } from '../remote/account.ts'
import { type BlobView, blobViews } from './blobs.ts'

/** A post as the index has it. */
export interface PostRow {
  readonly uri: string
  readonly cid: string
  readonly creator: string
  /** DAG-CBOR. */
  readonly record: Uint8Array
  readonly indexedAt: Date
  /** Of the service that has it. */
  readonly serviceUrl: string
}

/** @see lexicon zone.stratos.feed.defs#postView */
export interface PostView {
  readonly uri: string
  readonly cid: string
  readonly author: { readonly did: Did; readonly handle: string }
  readonly record: DataValue
  readonly indexedAt: string
  /** Undefined, which JSON leaves out, where the record names none. */
  readonly blobs?: readonly BlobView[] | undefined
}

/** @param handles of the authors */
export function postView(post: PostRow, handles: ReadonlyMap<Did, string>): PostView {
  const { uri, cid, creator, indexedAt, serviceUrl } = post
  const did = parseDid(creator)
  const record = decode(post.record)
  const blobs = blobViews(record, { did, serviceUrl })
  return {
    uri,
    cid,
    author: { did, handle: handles.get(did) ?? noHandle },
    record,
    indexedAt: indexedAt.toISOString(),
    blobs: blobs.length === 0 ? undefined : blobs,
  }
}

export function authorsOf(posts: readonly PostRow[]): Set<Did> {
  return new Set(posts.map(({ creator }) => parseDid(creator)))
}

/**
 * Of the one row that every answer has at least.
 * @throws XrpcError 503 IndexStale where it says so
 */
export function checkFresh([row]: readonly { readonly stale: boolean }[]): void {
  if (row?.stale === false) return
  throw new XrpcError(503, 'IndexStale', 'a service of yours has not been heard, try again', {
    headers: { 'retry-after': '5' },
  })
}
