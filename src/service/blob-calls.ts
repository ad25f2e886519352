import type { Cid } from '../atproto/cid.ts'
import type { AtUri } from '../atproto/syntax.ts'
import type { View } from '../store/actor.ts'
import type {
  BlobQuery,
  BlobRow,
  BlobsWorked,
  BlobUse,
  BlobWork,
  UploadedBlob,
} from '../store/actor-blobs.ts'
import type { BlobKey } from '../store/blob-storage.ts'

/** What may be asked of the owner of an actor about blobs; their bytes are with whoever asks. */
export type BlobCall =
  /** One that came, unless there were more bytes than `quotaBytes` with it. */
  | {
      readonly kind: 'add-blob'
      readonly uploaded: UploadedBlob
      readonly quotaBytes: number
    }
  /** One that a record names which `view` may see. */
  | { readonly kind: 'blob'; readonly cid: Cid; readonly view: View }
  /** What all take. */
  | { readonly kind: 'blob-use' }
  /** Those that are here and that records name. */
  | ({ readonly kind: 'blobs' } & BlobQuery)
  /** Those that records name and that are not here. */
  | ({ readonly kind: 'missing-blobs' } & BlobQuery)
  /** Some of what is to be done about their bytes. */
  | { readonly kind: 'blob-work' }
  /** What of it was done. */
  | ({ readonly kind: 'blob-worked' } & BlobsWorked)
  /** Gives up what was uploaded before then and is named nowhere. */
  | { readonly kind: 'expire-blobs'; readonly beforeMs: number }

const kinds: ReadonlySet<string> = new Set([
  'add-blob',
  'blob',
  'blob-use',
  'blobs',
  'missing-blobs',
  'blob-work',
  'blob-worked',
  'expire-blobs',
] satisfies BlobCall['kind'][])

export function isBlobCall<Call extends { readonly kind: string }>(
  call: Call,
): call is Extract<Call, BlobCall> {
  return kinds.has(call.kind)
}

export interface BlobAnswers {
  'add-blob': AddedBlob
  blob: { readonly row: BlobRow } | { readonly missing: true }
  'blob-use': BlobUse
  blobs: { readonly cids: readonly Cid[] }
  'missing-blobs': { readonly missing: readonly { readonly cid: Cid; readonly uri: AtUri }[] }
  'blob-work': BlobWork
  'blob-worked': Record<string, never>
  /** The keys of all that is at temporary places now. */
  'expire-blobs': { readonly keys: readonly BlobKey[] }
}

interface AddedBlob {
  /** What records may say of it. */
  readonly mimeType: string
  /** Where its bytes are now: those that came, or others of before. */
  readonly place: 'new' | 'permanent'
  /** Where earlier bytes of the same are, which no row needs any more. */
  readonly left?: BlobKey
  readonly isNamed: boolean
}
