import type { Cid } from '../atproto/cid.ts'
import type { DataObject } from '../atproto/data.ts'
import type { AtUri, Did, Nsid, Rkey, Tid } from '../atproto/syntax.ts'
import type { OutboxEntry, OutboxKey, OutboxRow, View } from '../store/actor.ts'
import type { Targets } from './targets.ts'
import type { WriteAnswer, WriteCall } from './write.ts'

/** What may be asked of the owner of an actor. */
export type ActorCall =
  /** The signing key, made at first. */
  | { readonly kind: 'key' }
  /** Makes the repo at first; the outbox rows are queued either way. */
  | { readonly kind: 'open'; readonly outbox: readonly OutboxEntry[] }
  | ({ readonly kind: 'write' } & WriteCall)
  | ({ readonly kind: 'read' } & ReadCall)
  | ({ readonly kind: 'list' } & ListCall)
  /** Boundaries of those of the records that `view` may see. */
  | { readonly kind: 'targets'; readonly uris: readonly AtUri[]; readonly view: View }
  | { readonly kind: 'export' }
  | { readonly kind: 'queue'; readonly outbox: readonly OutboxEntry[] }
  | { readonly kind: 'outbox'; readonly limit: number }
  | { readonly kind: 'settle'; readonly row: OutboxKey; readonly pdsCid: string | null }
  | { readonly kind: 'postpone'; readonly row: OutboxKey; readonly nextAttemptAtMs: number }
  | { readonly kind: 'park'; readonly row: OutboxKey; readonly reason: string }

export interface ReadCall {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly cid?: Cid | undefined
  readonly view: View
}

export interface ListCall {
  readonly collection: Nsid
  readonly limit: number
  readonly cursor?: Rkey | undefined
  readonly order: 'ascending' | 'descending'
  readonly view: View
}

export interface RecordAnswer {
  readonly uri: AtUri
  readonly cid: Cid
  readonly value: DataObject
}

/** What each kind of call is answered with. `rev` is the head's. */
export interface ActorAnswers {
  key: { readonly signingKey: string }
  open: { readonly rev: Tid }
  write: WriteAnswer
  read: { readonly rev: Tid; readonly record: RecordAnswer | null }
  list: { readonly rev: Tid; readonly records: readonly RecordAnswer[]; readonly last?: Rkey }
  targets: { readonly boundaries: Targets }
  export: { readonly bytes: Uint8Array<ArrayBuffer> }
  queue: Record<string, never>
  outbox: { readonly rows: readonly OutboxRow[] }
  settle: Record<string, never>
  postpone: Record<string, never>
  park: Record<string, never>
}

/** Content of the records of a repo that is exported in one answer. */
export const exportBytesMax = 32 * 1024 * 1024

/** Asks the owner of an actor, wherever it runs. */
export type CallActor = <Call extends ActorCall>(
  did: Did,
  requestId: string,
  call: Call,
) => Promise<ActorAnswers[Call['kind']]>
