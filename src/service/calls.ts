import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Nsid, Rkey, Tid } from '../atproto/syntax.ts'
import type { View } from '../store/actor.ts'
import type { Head } from '../store/actor-change.ts'
import type { HydrateQuery } from '../store/actor-hydrate.ts'
import type {
  Budget,
  OutboxEntry,
  OutboxKey,
  OutboxPlace,
  OutboxRow,
  OutboxState,
} from '../store/actor-outbox.ts'
import type { RepoNumbers } from '../store/departure.ts'
import type { BlobAnswers, BlobCall } from './blob-calls.ts'
import type { Eyes } from './event-view.ts'
import type { Targets } from './targets.ts'
import type { WriteAnswer, WriteCall } from './write.ts'

/** What may be asked of the owner of an actor. */
export type ActorCall =
  /** The signing key, made at first. */
  | { readonly kind: 'key' }
  /** Makes the repo at first, above `after` and with `budget`; the outbox rows are queued either way. */
  | {
      readonly kind: 'open'
      readonly outbox: readonly OutboxEntry[]
      readonly after?: RepoNumbers | undefined
      readonly budget?: Budget | undefined
    }
  | ({ readonly kind: 'write' } & WriteCall)
  | ({ readonly kind: 'read' } & ReadCall)
  /** One record with a proof, or a proof that there is none. */
  | ({ readonly kind: 'prove' } & ProofCall)
  /** The newest commit. */
  | { readonly kind: 'head' }
  | ({ readonly kind: 'list' } & ListCall)
  /** Those of some records that are there. */
  | ({ readonly kind: 'hydrate' } & HydrateQuery)
  /** Boundaries of those of the records that `view` may see. */
  | { readonly kind: 'targets'; readonly uris: readonly AtUri[]; readonly view: View }
  /** Collections with a record that `view` may see. */
  | { readonly kind: 'collections'; readonly view: View }
  /** All that was acknowledged stands in the database after this, for others to read there. */
  | { readonly kind: 'settle' }
  /** Leaves a repo without records to an import: until `return` nobody else writes to it. */
  | { readonly kind: 'lend' }
  /** Ends what `lend` began. */
  | { readonly kind: 'return' }
  /** A page of frames of the log. */
  | ({ readonly kind: 'events' } & EventsCall)
  /** Where the log ends. */
  | { readonly kind: 'last' }
  /** As `last`; and from now on nothing is logged up to `seq`. */
  | { readonly kind: 'vouch'; readonly seq: number }
  /** Forgets a slice of the events of before a time. */
  | { readonly kind: 'prune'; readonly time: string }
  | ({ readonly kind: 'status' } & StatusCall)
  | ({ readonly kind: 'ops' } & OpsCall)
  | { readonly kind: 'queue'; readonly outbox: readonly OutboxEntry[] }
  | { readonly kind: 'outbox'; readonly limit: number }
  /** What the outbox holds, with `parkedMax` of the rows that were given up. */
  | { readonly kind: 'outbox-state'; readonly parkedMax: number }
  /** What became of a row, and what that left of the budget. */
  | {
      readonly kind: 'report'
      readonly row: OutboxKey
      readonly outcome: RowOutcome
      readonly budget: Budget
    }
  | ({ readonly kind: 'restub' } & RestubCall)
  | BlobCall
  /** The last numbers and all keys on the PDS; from now on the repo is closed to everybody. */
  | { readonly kind: 'leave' }
  /** Takes `leave` back. */
  | { readonly kind: 'stay' }
  /** Data and key go, for good. */
  | { readonly kind: 'erase' }

export type RowOutcome =
  /** The CID that now stands at the key, or null. */
  | { readonly kind: 'settled'; readonly pdsCid: string | null }
  | { readonly kind: 'postponed'; readonly nextAttemptAtMs: number }
  | { readonly kind: 'parked'; readonly reason: string }

/** Brings stubs to what is wanted, a page at a time: in one collection each its own, or none at all. */
export type RestubCall = (
  | { readonly wanted: 'full'; readonly collection: Nsid }
  | { readonly wanted: 'off' }
) & {
  /** The `next` of the page before, empty at first. */
  readonly after: string
}

export interface ReadCall {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly cid?: Cid | undefined
  readonly view: View
}

export interface ProofCall {
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly view: View
  /**
   * Which keys beside the record's own the proof may show: all, to somebody who sees whole repos and
   * so may also learn that a key is absent; or those alone that their stubs have made public.
   */
  readonly neighbours: 'all' | 'stubbed'
}

export interface ListCall {
  readonly collection: Nsid
  readonly limit: number
  readonly cursor?: Rkey | undefined
  readonly order: 'ascending' | 'descending'
  readonly view: View
}

/**
 * Records as JSON, each the text of `{"uri", "cid", "value"}`. It is made once, by the owner of the
 * actor, and goes into an answer as it is.
 */
interface RecordTexts {
  readonly texts: readonly string[]
}

/** Places in the `uris` of the call: of the records, in their order, and of what is no record. */
export interface HydrateAnswer extends RecordTexts {
  readonly found: readonly number[]
  readonly hidden: readonly number[]
  readonly unread: readonly number[]
  /** Of all records, as stored. */
  readonly contentBytes: number
}

/** A CAR of commit, path and record; or nothing, of what is not there or not to be seen. */
export type ProofAnswer =
  | { readonly rev: Tid; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly missing: true }

/** What of a log a reader wants, and with whose eyes. */
export interface EventsCall {
  /** The last seq that the reader has. */
  readonly after: number
  readonly eyes: Eyes
  /** Records whose content is withheld. */
  readonly except: readonly AtUri[] | 'all'
}

/** Frames one after another, and what they are. */
export interface EventsAnswer {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly seqs: readonly number[]
  readonly lengths: readonly number[]
  /** Up to where the log was read, be it that the rest is not for these eyes. */
  readonly last: number
  /** Where the log ends. */
  readonly head: number
  /** Up to where it is no longer kept. */
  readonly pruned: number
}

/** A page of what a repo holds, or of what was done to it. */
export interface OpsCall {
  readonly from: OpsFrom
  readonly limit: number
  readonly eyes: Eyes
  readonly values: 'along' | 'left-out'
  /** Records whose content is withheld. */
  readonly except: readonly AtUri[] | 'all'
}

export type OpsFrom =
  /** Records after a URI; `start` is what is told of where the repo stood at the first page. */
  | { readonly kind: 'present'; readonly after: string; readonly start?: OpsStart | undefined }
  | { readonly kind: 'since'; readonly rev: Tid }
  /** The event at `seq`, of which `count` operations are known, and what follows it. */
  | { readonly kind: 'after'; readonly seq: number; readonly count: number }

export interface OpsStart {
  /** From where a stream goes on after the last page. */
  readonly seq: number
  readonly commit?: { readonly cid: Cid; readonly rev: Tid } | undefined
}

export interface RepoOp {
  readonly rev: Tid
  readonly collection: string
  readonly rkey: string
  readonly cid: Cid | null
  readonly prev: Cid | null
  readonly value?: object
}

interface OpsAnswer extends OpsStart {
  readonly ops: readonly RepoOp[]
  readonly next: OpsFrom | undefined
}

/** Something was taken down, or is back: a record, or the whole repo where no path is given. */
export interface StatusCall {
  readonly path?: string | undefined
  readonly takendown: boolean
  readonly nowMs: number
}

/** What each kind of call is answered with. `rev` is the head's. */
export interface ActorAnswers extends BlobAnswers {
  key: { readonly signingKey: string }
  open: { readonly rev: Tid }
  write: WriteAnswer
  /** One record with its CID, or none. */
  read: { readonly rev: Tid; readonly cid: Cid | null } & RecordTexts
  prove: ProofAnswer
  head: { readonly cid: Cid; readonly rev: Tid }
  list: { readonly rev: Tid; readonly last?: Rkey } & RecordTexts
  hydrate: HydrateAnswer
  targets: { readonly boundaries: Targets }
  collections: { readonly collections: readonly Nsid[] }
  settle: { readonly signingKey: string }
  /** What is logged comes after `vouched`. */
  lend: { readonly head: Head; readonly vouched: number }
  return: Record<string, never>
  events: EventsAnswer
  last: { readonly seq: number }
  vouch: { readonly seq: number }
  prune: { readonly pruned: number }
  status: Record<string, never>
  ops: OpsAnswer
  queue: Record<string, never>
  outbox: { readonly rows: readonly OutboxRow[]; readonly budget?: Budget }
  'outbox-state': OutboxState
  report: Record<string, never>
  restub: { readonly queued: number; readonly next?: string }
  leave: {
    readonly numbers: RepoNumbers
    readonly keys: readonly OutboxPlace[]
    readonly budget?: Budget
  }
  stay: Record<string, never>
  erase: Record<string, never>
}

/** Asks the owner of an actor, wherever it runs. */
export type CallActor = <Call extends ActorCall>(
  did: Did,
  requestId: string,
  call: Call,
) => Promise<ActorAnswers[Call['kind']]>
