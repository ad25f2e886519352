import type { Cid } from '../atproto/cid.ts'
import type { DataObject } from '../atproto/data.ts'
import type { Did, Nsid, Rkey } from '../atproto/syntax.ts'

export type IndexedOp =
  | {
      readonly action: 'create' | 'update'
      readonly collection: Nsid
      readonly rkey: Rkey
      readonly cid: Cid
      /** DAG-CBOR. */
      readonly content: Uint8Array
      /** The same decoded. */
      readonly record: DataObject
    }
  /** Of what was withheld, or has changed since, too: the index does not have it. */
  | { readonly action: 'delete'; readonly collection: Nsid; readonly rkey: Rkey }

/** Of the frame that is kept with it. */
export function frameBytes(event: IndexEvent): number {
  if (event.kind === 'commit') return event.frame?.length ?? 0
  return event.kind === 'reset' ? (event.refused?.frame.length ?? 0) : 0
}

/** What the stream of a service says of one actor, at its place in that actor's log. */
export type IndexEvent =
  | {
      readonly kind: 'commit'
      readonly service: Did
      readonly did: Did
      readonly seq: number
      readonly ops: readonly IndexedOp[]
      /** As it came, for the operator to look at should it be refused. */
      readonly frame?: Uint8Array | undefined
    }
  | {
      readonly kind: 'status'
      readonly service: Did
      readonly did: Did
      readonly seq: number
      /** `collection/rkey`, or empty for the whole repo. */
      readonly path: string
      readonly takendown: boolean
    }
  /**
   * The log began anew, or is gone in between: what the index has of the actor goes, and is replaced
   * by a backfill. Events go on after `seq`, which may lie before those that came last; undefined
   * where they go on as they were.
   */
  | {
      readonly kind: 'reset'
      readonly service: Did
      readonly did: Did
      readonly seq: number | undefined
      /** An event that could not be read, where that is why. */
      readonly refused?: { readonly error: string; readonly frame: Uint8Array } | undefined
    }
