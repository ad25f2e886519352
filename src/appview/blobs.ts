import { isCid, isRawCid } from '../atproto/cid.ts'
import { type DataObject, type DataValue, isDataObject } from '../atproto/data.ts'

/** @see lexicon zone.stratos.feed.defs#blobView */
export interface BlobView {
  readonly cid: string
  readonly mimeType: string
  readonly size: number
  readonly url: string
}

/**
 * The blobs that a record names, each once, with where their bytes are: at the service that has the
 * record, which looks anew at whether the viewer may have them. What has not the form of a blob is
 * none: the record is as somebody else's service sent it.
 * @param home.serviceUrl without which no blob has an address
 */
export function blobViews(
  record: DataValue,
  { did, serviceUrl }: { readonly did: string; readonly serviceUrl: string },
): BlobView[] {
  const base = URL.parse(serviceUrl)
  if (base === null || !webProtocols.has(base.protocol)) return []
  if (base.origin.length + did.length > homeCharsMax) return []
  const found = new Map<string, BlobView>()
  const ahead: DataValue[] = [record]
  for (let seen = 0; seen < valuesMax && found.size < blobsMax; seen++) {
    const value = ahead.pop()
    if (value === undefined) break
    const blob = isDataObject(value) ? blobOf(value) : undefined
    if (blob !== undefined) {
      if (!found.has(blob.cid)) found.set(blob.cid, { ...blob, url: urlOf(base, did, blob.cid) })
      continue
    }
    // The last one is looked at next: the first member comes first.
    for (const member of membersOf(value).toReversed()) ahead.push(member)
  }
  return [...found.values()]
}

function blobOf({ $type, ref, mimeType, size }: DataObject): Omit<BlobView, 'url'> | undefined {
  const cid = isDataObject(ref) ? ref['$link'] : undefined
  if ($type !== 'blob' || typeof cid !== 'string' || !isCid(cid) || !isRawCid(cid)) return undefined
  if (typeof mimeType !== 'string' || mimeType.length > mimeTypeCharsMax) return undefined
  if (typeof size !== 'number' || size < 0) return undefined
  return { cid, mimeType, size }
}

function membersOf(value: DataValue): readonly DataValue[] {
  if (Array.isArray(value)) return value
  return isDataObject(value) ? Object.values(value) : []
}

function urlOf(base: URL, did: string, cid: string): string {
  const url = new URL('/xrpc/com.atproto.sync.getBlob', base.origin)
  url.searchParams.set('did', did)
  url.searchParams.set('cid', cid)
  return url.href
}

const webProtocols: ReadonlySet<string> = new Set(['https:', 'http:'])
/** A post has four images or a video, and one image of a link. */
const blobsMax = 16
/** As many as the data model lets a record have. */
const valuesMax = 20_000
/** Two names of the longest that DNS has, and what stands before them: longer ones lead nowhere. */
const homeCharsMax = 530
/** 127 for each of its two names. @see https://www.rfc-editor.org/rfc/rfc6838#section-4.2 */
const mimeTypeCharsMax = 255
