import type { AtUri } from '../atproto/syntax.ts'
import {
  lockActors,
  parkStatements,
  removePlaces,
  resetStatements,
  type Statement,
  storePosts,
} from './apply.ts'
import { clearOn, isPostOf } from './clearing.ts'
import type { IndexOptions, IndexSql } from './database.ts'
import { type Actor, actorKey, type Parked, postCollection } from './fold.ts'
import { type PostRow, postRow, type PutOp, RefusedPost, rowsJson } from './post-row.ts'
import { failureKind } from './refusal.ts'
import { IndexSession, type IndexTransaction } from './session.ts'

export interface BackfillPage {
  readonly records: readonly PutOp[]
  /** Cursor from which the stream goes on. */
  readonly seq: number
}

export type BackfillOutcome =
  | { readonly kind: 'replaced'; readonly posts: number; readonly parked: readonly Parked[] }
  /** They have left meanwhile: nothing was stored. */
  | { readonly kind: 'not-enrolled' }
  /** Events were stored that the backfill may lack: nothing was changed, and it has to begin anew. */
  | { readonly kind: 'outrun' }

interface BackfillOptions {
  readonly actor: Actor
  readonly now?: () => number
  /** Nothing is changed once it is aborted. */
  readonly signal?: AbortSignal
}

/**
 * Replaces all that the index has of one actor by what its repo holds now, and its cursor. Pages are
 * put aside as they come, one in memory at a time; then all take effect in one transaction. Events
 * of the actor are to be held back from when the first page is asked for.
 */
export async function backfill(
  index: IndexOptions,
  pages: AsyncIterable<BackfillPage>,
  { actor, now = Date.now, signal }: BackfillOptions,
): Promise<BackfillOutcome> {
  const { service, did } = actor
  const run = crypto.randomUUID()
  const staged: Staged = { actor: { service, did }, run, pages: 0, posts: 0, parked: [] }
  let seq = Number.POSITIVE_INFINITY
  await using session = new IndexSession(index)
  try {
    // What a run left that was cut off: posts of then, whoever may see them now.
    await session.begin(async (transaction) => {
      await transaction.run(transaction.sql`delete from stratos_backfill_page
        where service = ${service} and did = ${did}`)
    })
    for await (const page of pages) {
      signal?.throwIfAborted()
      seq = Math.min(seq, page.seq)
      for (let start = 0; start < page.records.length; start += rowsAtOnce) {
        await stage(session, page.records.slice(start, start + rowsAtOnce), { staged, seq, now })
      }
    }
    // Without a page there is no place in the log either.
    if (!Number.isFinite(seq)) return { kind: 'outrun' }
    while (!(await session.begin((transaction) => clearOn(transaction, actor)))) {
      signal?.throwIfAborted()
    }
    signal?.throwIfAborted()
    return await session.begin((transaction) => replace(transaction, { staged, seq, nowMs: now() }))
  } finally {
    await session.begin(async (transaction) => {
      await transaction.run(transaction.sql`delete from stratos_backfill_page
        where service = ${service} and did = ${did} and run = ${run}`)
    })
  }
}

interface Staged {
  readonly actor: Actor
  readonly run: string
  pages: number
  posts: number
  parked: Parked[]
}

async function stage(
  session: IndexSession,
  records: readonly PutOp[],
  {
    staged,
    seq,
    now,
  }: { readonly staged: Staged; readonly seq: number; readonly now: () => number },
): Promise<void> {
  const { actor, run } = staged
  const rows = new Map<AtUri, PostRow>()
  for (const record of records) {
    if (record.collection !== postCollection) continue
    try {
      const { row, foreign } = postRow(actor, record, now())
      rows.set(row.uri, row)
      if (foreign > 0) park(staged, { seq, error: 'a post names boundaries of another service' })
    } catch (error) {
      if (!(error instanceof RefusedPost)) throw error
      park(staged, { seq, error: error.message })
    }
  }
  if (rows.size === 0) return
  const uris = rowsJson([...rows.keys()].map((uri) => ({ uri })))
  const all = rowsJson([...rows.values()])
  await session.begin(async (transaction) => {
    await transaction.run(transaction.sql`
      insert into stratos_backfill_page (service, did, run, page, rows, uris)
      select ${actor.service}, ${actor.did}, ${run}, ${staged.pages}, ${all}::text,
        array(select uri from json_to_recordset(${uris}::text::json) as u(uri text))`)
  })
  staged.pages += 1
  staged.posts += rows.size
}

/** What a listing has has no number of its own: one event stands for all, and its reasons are one. */
function park(
  staged: Staged,
  { seq, error }: { readonly seq: number; readonly error: string },
): void {
  const [before] = staged.parked
  if (before?.error.includes(error) === true) return
  const reasons = before === undefined ? error : `${before.error}; ${error}`
  staged.parked = [{ ...staged.actor, seq, error: reasons, frame: undefined }]
}

async function replace(
  transaction: IndexTransaction,
  { staged, seq, nowMs }: { readonly staged: Staged; readonly seq: number; readonly nowMs: number },
): Promise<BackfillOutcome> {
  const { actor } = staged
  const { service, did } = actor
  const place = (await lockActors(transaction, [actor])).get(actorKey(actor))
  if (place === undefined) return { kind: 'not-enrolled' }
  const { sql } = transaction
  const [found] = await transaction.run(sql<{ pages: number }[]>`
    select count(*)::integer as pages from stratos_backfill_page where ${ofRun(sql, staged)}`)
  // Beyond the cursor there may be changes that the pages lack; and what was put aside may be lost.
  const isOutrun = place.seq > seq || found?.pages !== staged.pages
  if (isOutrun || place.isClosed) return { kind: 'outrun' }
  await removeOthers(transaction, staged)
  for (let page = 0; page < staged.pages; page++) {
    await storePage(transaction, { staged, page, seq })
  }
  for (const statement of parkStatements(sql, staged.parked, nowMs)) {
    await transaction.run(statement)
  }
  await transaction.run(sql`
    insert into stratos_sync_cursor (service, did, seq, "backfillDue", "updatedAt")
    values (${service}, ${did}, ${seq}, false, ${new Date(nowMs)})
    on conflict (service, did) do update set seq = excluded.seq, "backfillDue" = false,
      "updatedAt" = excluded."updatedAt"`)
  return { kind: 'replaced', posts: staged.posts, parked: staged.parked }
}

/** Posts that stay are replaced where they are, and so keep when they were first indexed. */
async function removeOthers(transaction: IndexTransaction, staged: Staged): Promise<void> {
  const { service, did } = staged.actor
  const { sql } = transaction
  const statements = [
    sql`delete from stratos_post_boundary where creator = ${did} and service = ${service}`,
    sql`delete from stratos_post p where ${isPostOf(sql, staged.actor)}
      and not exists (select from (
        select unnest(uris) as uri from stratos_backfill_page where ${ofRun(sql, staged)}
      ) as given where given.uri = p.uri)`,
    // What is taken down now was withheld from the pages.
    ...resetStatements(sql, staged.actor),
  ]
  for (const statement of statements) await transaction.run(statement)
}

async function storePage(
  transaction: IndexTransaction,
  { staged, page, seq }: { readonly staged: Staged; readonly page: number; readonly seq: number },
): Promise<void> {
  const { service } = staged.actor
  const { sql } = transaction
  const ofPage = () => sql`${ofRun(sql, staged)} and page = ${page}`
  // A listing may name a post again on a later page.
  const named = sql`(select ${service}::text as service, unnest(uris) as uri
    from stratos_backfill_page where ${ofPage()}) as t`
  await transaction.run(removePlaces(sql, named))
  const rowsOfPage = sql`select rows from stratos_backfill_page where ${ofPage()}`
  if (await isStored(transaction, storePosts(sql, rowsOfPage))) return
  // One row at a time: those that are refused are left out, and what was there in their place goes.
  const rows = await transaction.run(sql<{ uri: string; row: string }[]>`
    select r ->> 'uri' as uri, r::text as row from stratos_backfill_page,
      json_array_elements(rows::json) as r where ${ofPage()}`)
  for (const { uri, row } of rows) {
    if (await isStored(transaction, storePosts(sql, sql`${`[${row}]`}::text`))) continue
    await transaction.run(sql`
      delete from stratos_post where service = ${service} and uri = ${uri}`)
    park(staged, { seq, error: 'refused by the database' })
  }
}

/** @returns false where the database refuses the rows */
async function isStored(transaction: IndexTransaction, statement: Statement): Promise<boolean> {
  try {
    await transaction.savepoint((inner) => inner.run(statement))
    return true
  } catch (error) {
    if (failureKind(error) === 'refused') return false
    throw error
  }
}

function ofRun(sql: IndexSql, { actor: { service, did }, run }: Staged) {
  return sql`service = ${service} and did = ${did} and run = ${run}`
}

/** In one statement. */
const rowsAtOnce = 500
