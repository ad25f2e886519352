import { randomBytes } from 'node:crypto'
import type { Cid } from '../atproto/cid.ts'
import type { Brand, Did } from '../atproto/syntax.ts'

/**
 * Where the bytes of private blobs are. It knows nothing of records, boundaries or takedowns: who
 * may see what, and which blob is still named, is decided by who calls.
 *
 * The way of a blob: `receive`, write, `finish`; then `keep`, and `remove` of the temporary place.
 * Every operation may be repeated after a crash at any step, with the same outcome. Calls for one
 * place come one after the other.
 */
export interface BlobStorage {
  receive(did: Did): Promise<IncomingBlob>
  /**
   * Copies temporary bytes to their permanent place, durable when it resolves. The temporary ones
   * stay until `remove`. What is done already is no error.
   * @throws BlobMissing when neither place has bytes
   */
  keep(did: Did, key: BlobKey, cid: Cid): Promise<void>
  /** Moves from the permanent place to quarantine. Done already, or nothing there: no error. */
  quarantine(did: Did, cid: Cid): Promise<void>
  /** Moves from quarantine to the permanent place. Done already, or nothing there: no error. */
  restore(did: Did, cid: Cid): Promise<void>
  /**
   * Undefined where nothing is there.
   * @throws BlobCut, here or from the stream, when there are fewer bytes than the range asks for
   */
  read(place: BlobPlace, range?: ByteRange): Promise<StoredBlob | undefined>
  /** Nothing there is no error. */
  remove(place: BlobPlace): Promise<void>
  /** Temporary, permanent and quarantined bytes, and unfinished uploads. */
  removeAll(did: Did): Promise<void>
  /**
   * What there is, in bounded memory, with when it was written. Among the temporary ones are
   * unfinished uploads: they can be removed, but not read or kept.
   */
  places(kind: BlobPlace['kind']): AsyncIterable<ListedBlob>
  /** Everybody who has or had bytes here; each at most once for each kind of place. */
  dids(): AsyncIterable<Did>
  close(): Promise<void>
}

export type BlobPlace =
  | { readonly kind: 'temporary'; readonly did: Did; readonly key: BlobKey }
  | { readonly kind: 'permanent' | 'quarantined'; readonly did: Did; readonly cid: Cid }

/** Name of temporary bytes: random, of `[a-z0-9]`. */
export type BlobKey = Brand<string, 'BlobKey'>

/** Bytes on their way to a temporary place. One call at a time. */
export interface IncomingBlob {
  readonly key: BlobKey
  /** Has copied or consumed `bytes` when it resolves. */
  write(bytes: Uint8Array): Promise<void>
  /** After it resolves the bytes can be read, and survive a power cut. */
  finish(): Promise<void>
  /** Leaves nothing behind. May be called after a failed write or finish. */
  abort(): Promise<void>
}

export interface StoredBlob {
  /** Of the whole blob, whatever the range. */
  readonly bytes: number
  /**
   * The range that was asked for. It holds a file or a connection: read it to its end, or cancel
   * it. It fails rather than ends early.
   */
  readonly body: Blob | ReadableStream<Uint8Array>
}

/** `start` is the first byte, `end` the one after the last. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

export interface ListedBlob {
  readonly place: BlobPlace
  readonly bytes: number
  readonly writtenAtMs: number
}

/** What only a move to another storage needs. */
export interface MovableBlobs extends BlobStorage {
  /** As `receive`, under a key that rows elsewhere know already. */
  receiveAs(did: Did, key: BlobKey): Promise<IncomingBlob>
  /** Names among the blobs that are none of ours. */
  strangers(): AsyncIterable<string>
}

/** Bytes that should have been kept are not there. */
export class BlobMissing extends Error {
  override readonly name = 'BlobMissing'
}

/** There were fewer bytes than were asked for, or they changed while they were read. */
export class BlobCut extends Error {
  override readonly name = 'BlobCut'
}

export function makeBlobKey(): BlobKey {
  const key = randomBytes(16).toString('hex')
  if (!isBlobKey(key)) throw new Error('hex digits are a blob key')
  return key
}

export function isBlobKey(text: string): text is BlobKey {
  return /^[a-z0-9]{1,64}$/.test(text)
}
