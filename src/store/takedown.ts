import { type Cid, isCid } from '../atproto/cid.ts'
import type { AtUri, Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import { Lru } from '../lib/lru.ts'
import type { Sql } from './sql.ts'

/**
 * A whole repo, one record of it by its URI, whichever content is or will be there, or one blob of
 * it, whichever records name that.
 */
export type TakedownSubject =
  | { readonly kind: 'repo'; readonly did: Did }
  | { readonly kind: 'blob'; readonly did: Did; readonly cid: Cid }
  | { readonly kind: 'record'; readonly did: Did; readonly uri: AtUri; readonly cid: Cid }

export interface Takedown {
  /** As the takedown named it: a record may since be another, or gone. Null for a repo. */
  readonly cid: Cid | null
  /** What whoever applied it calls it. */
  readonly ref: string | null
  readonly appliedAt: string
}

/** How rows name what is taken down: a DID, a URI, or a DID and a CID with a slash between them. */
export type SubjectText = string

/** What of a repo is taken down. */
export interface RepoTakedowns {
  readonly repo: boolean
  readonly records: readonly AtUri[]
  readonly blobs: readonly Cid[]
}

/** Records and blobs of one repo: they travel with reads of it. Where more is bad, the repo is. */
export const recordTakedownsMax = 1000

const upsertTakedown = `insert into takedown (subject, did, cid, ref, "appliedAt")
  select $1, $2, $3, $4, $5
  where $1 = $2 or exists (select 1 from takedown where subject = $1)
    or (select count(*) from takedown where did = $2 and subject <> $2) < $6
  on conflict (subject) do update
    set cid = excluded.cid, ref = coalesce(excluded.ref, takedown.ref)
  returning subject`
const deleteTakedown = 'delete from takedown where subject = $1 returning subject'
const selectTakedown = 'select cid, ref, "appliedAt" from takedown where subject = $1'
const selectSubjects = 'select subject from takedown where did = $1 order by subject'

/**
 * The takedowns of service.sqlite, the only authority on them. They do not depend on what is there:
 * they come before a record, outlive it, and outlive a membership.
 */
export class TakedownStore {
  readonly #sql: Sql
  /** By repo. This process alone writes, and each write forgets what it changed. */
  readonly #known = new Lru<Did, RepoTakedowns>(knownMax)
  /** Counts writes, so that what was read before one is not kept after it. */
  #writes = 0

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Grows with every change. */
  get writes(): number {
    return this.#writes
  }

  async of(did: Did): Promise<RepoTakedowns> {
    const known = this.#known.get(did)
    if (known !== undefined) return known
    const writes = this.#writes
    const rows = await this.#sql.all<{ subject: SubjectText }>(selectSubjects, did)
    const found = rows.length === 0 ? none : takedownsOf(did, rows)
    if (writes === this.#writes)
      this.#known.set(did, found, 1 + found.records.length + found.blobs.length)
    return found
  }

  /** Whether it is known, without a look, that nothing of this repo is taken down. */
  hasNone(did: Did): boolean {
    return this.#known.get(did) === none
  }

  async find(subject: SubjectText): Promise<Takedown | undefined> {
    return (await this.#sql.all<Takedown>(selectTakedown, subject))[0]
  }

  /**
   * A second time keeps the first time, and the first `ref` where it brings none.
   * @returns false where the repo already has as many records and blobs taken down as there may be
   */
  async apply(
    subject: TakedownSubject,
    { ref, nowMs }: { readonly ref: string | undefined; readonly nowMs: number },
  ): Promise<boolean> {
    const { did } = subject
    const cid = subject.kind === 'repo' ? null : subject.cid
    const appliedAt = new Date(nowMs).toISOString()
    const args = [subjectOf(subject), did, cid, ref ?? null, appliedAt, recordTakedownsMax]
    return await this.#write(did, upsertTakedown, args)
  }

  /**
   * To be said before a change: whatever then becomes of it, what follows from it is done.
   * @returns false where something is still to be told of it
   */
  async markNews(subject: TakedownSubject): Promise<boolean> {
    const sql = `insert into takedown_news (subject, did) values ($1, $2)
      on conflict do nothing returning 1 as one`
    return (await this.#sql.all(sql, subjectOf(subject), subject.did)).length > 0
  }

  async hasNews(subject: SubjectText): Promise<boolean> {
    const sql = 'select 1 as one from takedown_news where subject = $1'
    return (await this.#sql.all(sql, subject)).length > 0
  }

  async clearNews(subject: SubjectText): Promise<void> {
    const sql = 'delete from takedown_news where subject = $1'
    await this.#sql.run([{ sql, args: [subject] }])
  }

  /** Whether a repo or record was taken down, or is back, and its log does not say so yet. */
  async hasUntold(): Promise<boolean> {
    const sql = `select 1 as one from takedown_news
      where subject = did or subject like 'at://%' limit 1`
    return (await this.#sql.all(sql)).length > 0
  }

  /** What is still to be followed up, in the order of subjects after `after`. */
  async news(
    after: string,
    limit: number,
  ): Promise<{ readonly subject: SubjectText; readonly did: Did }[]> {
    const sql =
      'select subject, did from takedown_news where subject > $1 order by subject limit $2'
    return await this.#sql.all(sql, after, limit)
  }

  /** @returns false where there was none */
  async lift(subject: TakedownSubject): Promise<boolean> {
    return await this.#write(subject.did, deleteTakedown, [subjectOf(subject)])
  }

  async #write(did: Did, sql: string, args: readonly (string | number | null)[]): Promise<boolean> {
    try {
      return (await this.#sql.all(sql, ...args)).length === 1
    } finally {
      // Also when it failed: who knows what of it was stored.
      this.#writes += 1
      this.#known.delete(did)
    }
  }
}

/** Repos, records and blobs together, of some 200 bytes each. */
const knownMax = 50_000

const none: RepoTakedowns = { repo: false, records: [], blobs: [] }

function takedownsOf(did: Did, rows: readonly { readonly subject: SubjectText }[]): RepoTakedowns {
  const records: AtUri[] = []
  const blobs: Cid[] = []
  for (const { subject } of rows) {
    const cid = blobOf(subject, did)
    if (cid !== undefined) blobs.push(cid)
    else if (isUri(subject)) records.push(subject)
  }
  return { repo: records.length + blobs.length < rows.length, records, blobs }
}

function isUri(subject: SubjectText): subject is AtUri {
  return subject.startsWith('at://')
}

/** The blob that a text names, if it names one. */
export function blobOf(subject: SubjectText, did: Did): Cid | undefined {
  const cid = subject.startsWith(`${did}/`) ? subject.slice(did.length + 1) : ''
  return isCid(cid) ? cid : undefined
}

export function subjectOf(subject: TakedownSubject): SubjectText {
  switch (subject.kind) {
    case 'repo':
      return subject.did
    case 'record':
      return subject.uri
    case 'blob':
      return `${subject.did}/${subject.cid}`
    default:
      return unreachable(subject)
  }
}
