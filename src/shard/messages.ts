import type { Fault } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { LogLevel } from '../lib/log.ts'
import type { ActorAnswers, ActorCall } from '../service/calls.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { Migrations } from '../store/migrate.ts'
import type { Synchronous } from '../store/sqlite.ts'

/** What a shard needs to know once, at its start. */
export interface ShardBoot {
  readonly role: 'shard'
  readonly name: string
  readonly dataDir: string
  readonly synchronous: Synchronous
  /** Of each of the two files of its journal. */
  readonly journalBytes: number
  readonly handlesMax: number
  readonly treeBytesMax: number
  /** Differs between the shards of a process, so that two of them never make the same TID. */
  readonly clockId: number
  /** Up to where processes before have vouched that nothing more is logged. */
  readonly vouched: number
  readonly logLevel: LogLevel
  readonly migrations: Migrations
  /** Lexicon documents, as JSON. */
  readonly schemas: string
  readonly rules: WriteRules
}

/** A call as it travels, several to a batch. */
export type ShardRequest = ActorCall & {
  readonly id: number
  readonly did: Did
  readonly requestId: string
}

/** One reply of the batch that a shard sends back; `id` is the request's. */
export type ShardReply =
  | { readonly id: number; readonly ok: ActorAnswers[keyof ActorAnswers] }
  | { readonly id: number; readonly error: Fault }

/** What was stored, for streams: in the order of each actor, with the frames one after another. */
export interface EventPush {
  readonly events: readonly {
    readonly did: Did
    /** Of the event before; -1 where the log has to be looked at. */
    readonly prev: number
    readonly seq: number
    /** Of its frame. */
    readonly length: number
    /** Whether the frame is right for whoever may see all boundaries that the service has, too. */
    readonly isWhole: boolean
  }[]
}

/** Replies travel as one text a batch, see `joinReplies`; what has bytes travels alone. */
export type ShardMessage =
  | string
  | ({ readonly id: number; readonly bytes: Uint8Array<ArrayBuffer> } & object)
  | { readonly push: EventPush; readonly bytes: Uint8Array<ArrayBuffer> }

/** What a worker says beside answers. */
export interface WorkerSign {
  readonly sign: 'ready' | 'closed'
}

/** What a worker is told after its boot: batches, whether anybody follows, in the end to close. */
export type WorkerOrder = string | { readonly follow: boolean } | { readonly close: true }
