import type { Fault } from '../atproto/errors.ts'
import type { AtUri, Did, Nsid, Tid } from '../atproto/syntax.ts'
import type { LogLevel } from '../lib/log.ts'
import type { Targets } from '../service/targets.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { View } from '../store/actor.ts'
import type { Head } from '../store/actor-change.ts'
import type { Pace } from './flow.ts'

/** What the bulk thread needs to know once, at its start. */
export interface BulkBoot {
  readonly role: 'bulk'
  readonly dataDir: string
  readonly logLevel: LogLevel
  /** Trees of all exports together, by estimate. */
  readonly treeBytesMax: number
  /** Of those who read exports. */
  readonly pace: Pace
  /** How long the thread stays without a job. */
  readonly idleMs: number
  /** Lexicon documents, as JSON. */
  readonly schemas: string
  readonly rules: WriteRules
}

/** A repo to be read as a CAR. */
export interface ExportAsk {
  readonly kind: 'export'
  readonly did: Did
  readonly view: View
  readonly since?: Tid | undefined
  /** `did:key` of the person, by which the commit is signed. */
  readonly signingKey: string
}

/** A CAR to fill an empty repo with. */
export interface ImportAsk {
  readonly kind: 'import'
  readonly did: Did
  /** Of the file. */
  readonly path: string
  /** The person's, qualified. */
  readonly boundaries: readonly string[]
  /** From boundaries of another service to these. */
  readonly boundaryMap: readonly (readonly [from: string, to: string])[]
  readonly takendown: readonly AtUri[]
  /** Collections in which each record gets a stub. */
  readonly stubs: readonly Nsid[]
  /** Of all records together, with their names. */
  readonly bytesMax: number
}

export interface Imported {
  readonly records: number
  /** Of these, how many have another CID than they came with. */
  readonly rewritten: number
}

export type JobAsk = ExportAsk | ImportAsk

/** What a job wants to know, or to have done, before it goes on. */
export type Question =
  | { readonly kind: 'lend' }
  | { readonly kind: 'targets'; readonly uris: readonly string[] }

export interface QuestionAnswers {
  lend: { readonly head: Head; readonly vouched: number }
  targets: { readonly boundaries: Targets }
}

/** What the thread is told; `id` is the job's. */
export type BulkOrder =
  | { readonly id: number; readonly ask: JobAsk }
  /** So many bytes of a job were taken: as many more may be sent. */
  | { readonly id: number; readonly taken: number }
  | { readonly id: number; readonly cancel: true }
  /** To the question that was asked last. */
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly refusal: Fault }
  | { readonly close: true }

/** What the thread says. */
export type BulkSign =
  | { readonly id: number; readonly piece: Uint8Array<ArrayBuffer> }
  | { readonly id: number; readonly question: Question }
  /** The last that is heard of a job: its result, why it failed, or that it was cancelled. */
  | { readonly id: number; readonly end: Imported | true }
  | { readonly id: number; readonly fault: Fault }
  | { readonly id: number; readonly cancelled: true }
  | { readonly closed: true }
