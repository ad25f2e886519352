import type { Fault } from '../atproto/errors.ts'
import type { Did, Tid } from '../atproto/syntax.ts'
import type { LogLevel } from '../lib/log.ts'
import type { View } from '../store/actor.ts'

/** What the bulk thread needs to know once, at its start. */
export interface BulkBoot {
  readonly role: 'bulk'
  readonly dataDir: string
  readonly logLevel: LogLevel
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

export type JobAsk = ExportAsk

/** What the thread is told; `id` is the job's. */
export type BulkOrder =
  | { readonly id: number; readonly ask: JobAsk }
  /** So many bytes of a job were taken: as many more may be sent. */
  | { readonly id: number; readonly taken: number }
  | { readonly id: number; readonly cancel: true }
  | { readonly close: true }

/** What the thread says. */
export type BulkSign =
  | { readonly id: number; readonly piece: Uint8Array<ArrayBuffer> }
  | { readonly id: number; readonly end: true }
  | { readonly id: number; readonly fault: Fault }
  | { readonly closed: true }

/** Bytes of one job that were sent and not taken. @see architecture.md, Threads */
export const unackedBytesMax = 1024 * 1024
