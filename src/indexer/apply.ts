import type { PendingQuery, Row } from 'postgres'
import { clear } from './clearing.ts'
import type { IndexSql } from './database.ts'
import { type Actor, actorKey, type Changes, type Place } from './fold.ts'
import { rowsJson } from './post-row.ts'
import type { IndexTransaction } from './session.ts'

/**
 * Locks actors against whoever else changes their rows, and gives where they are. Those who are not
 * enrolled are left out.
 */
export async function lockActors(
  transaction: IndexTransaction,
  actors: readonly Actor[],
): Promise<Map<string, Place>> {
  const { sql } = transaction
  const named = rowsJson(actors)
  // A plan that was kept from when tables were small would read them whole when they have grown.
  await transaction.run(sql`set local plan_cache_mode = force_custom_plan`)
  // The locks first: a statement sees what was there when it began, and not what it waited for.
  await transaction.run(sql`
    select 1 from json_to_recordset(${named}::text::json) as a(service text, did text)
    join stratos_enrollment e on e.service = a.service and e.did = a.did
    order by e.service, e.did for no key update of e`)
  const found = await transaction.run(sql<(Actor & Place)[]>`
    select e.service, e.did, coalesce(c.seq, 0) as seq, exists (select from stratos_takedown t
      where t.service = e.service and t.did = e.did and t.path = '*') as "isClosed"
    from json_to_recordset(${named}::text::json) as a(service text, did text)
    join stratos_enrollment e on e.service = a.service and e.did = a.did
    left join stratos_sync_cursor c on c.service = a.service and c.did = a.did`)
  return new Map(found.map((row) => [actorKey(row), row]))
}

export async function applyChanges(
  transaction: IndexTransaction,
  changes: Changes,
  nowMs: number,
): Promise<void> {
  const { cleared, reset, touched, removed, posts, takedowns, parked, cursors } = changes
  const { sql } = transaction
  for (const actor of cleared) await clear(transaction, actor)
  const statements = reset.flatMap((actor) => resetStatements(sql, actor))
  if (touched.length > 0) {
    const named = sql`json_to_recordset(${rowsJson(touched)}::text::json)
      as t(service text, uri text)`
    statements.push(removePlaces(sql, named))
  }
  if (removed.length > 0) {
    statements.push(
      sql`
      delete from stratos_post p
      using json_to_recordset(${rowsJson(removed)}::text::json) as t(service text, uri text)
      where p.service = t.service and p.uri = t.uri`,
    )
  }
  if (posts.length > 0) {
    statements.push(storePosts(sql, sql`${rowsJson(posts)}::text`))
  }
  if (takedowns.length > 0) statements.push(...takedownStatements(sql, takedowns))
  if (parked.length > 0) statements.push(...parkStatements(sql, parked, nowMs))
  if (cursors.length > 0) statements.push(moveCursors(sql, cursors, nowMs))
  for (const statement of statements) await transaction.run(statement)
}

/**
 * Posts are no longer to be seen where they were: to be run before their rows change or go.
 * @param named an expression for a table `t` with their `service` and `uri`
 */
export function removePlaces(sql: IndexSql, named: PendingQuery<Row[]>): Statement {
  // One look into an index for each: a join may read a whole table instead, while the server has not
  // counted yet what it holds. The locks of the actors keep the rows where they are.
  return sql`
    delete from stratos_post_boundary where ctid = any (array(
      select b.ctid from ${named}
      cross join lateral (
        select p."sortAt", p.boundaries from stratos_post p
        where p.service = t.service and p.uri = t.uri offset 0
      ) p
      cross join lateral unnest(p.boundaries) as n(boundary)
      cross join lateral (
        select b.ctid from stratos_post_boundary b
        where b.boundary = n.boundary and b."sortAt" = p."sortAt" and b.uri = t.uri offset 0
      ) b))`
}

/** Not run yet. */
export type Statement = PendingQuery<Row[]>

/** What the index has of an actor beside posts, enrollment and cursor goes; who is closed stays so. */
export function resetStatements(sql: IndexSql, { service, did }: Actor): Statement[] {
  return [
    sql`delete from stratos_takedown where service = ${service} and did = ${did} and path <> '*'`,
    sql`delete from stratos_parked_event where service = ${service} and did = ${did}`,
  ]
}

/**
 * Posts that have no places: see `removePlaces`. One that is there keeps the time at which it was first
 * indexed, and with it its place in feeds.
 * @param rows an expression for a text: a JSON array of `PostRow`
 */
export function storePosts(sql: IndexSql, rows: PendingQuery<Row[]>): Statement {
  return sql`
    with stored as (
      insert into stratos_post (service, uri, cid, rkey, creator, text,
        "replyRoot", "replyRootCid", "replyParent", "replyParentCid",
        embed, facets, langs, labels, tags, boundaries, record, "createdAt", "indexedAt")
      select service, uri, cid, rkey, creator, text,
        "replyRoot", "replyRootCid", "replyParent", "replyParentCid",
        embed, facets, langs, labels, tags, boundaries, decode(record, 'base64'),
        "createdAt", "indexedAt"
      from json_to_recordset((${rows})::json) as given(
        service text, uri text, cid text, rkey text, creator text, text text,
        "replyRoot" text, "replyRootCid" text, "replyParent" text, "replyParentCid" text,
        embed jsonb, facets jsonb, langs text[], labels jsonb, tags text[], boundaries text[],
        record text, "createdAt" timestamptz, "indexedAt" timestamptz)
      on conflict (service, uri) do update set cid = excluded.cid, text = excluded.text,
        "replyRoot" = excluded."replyRoot", "replyRootCid" = excluded."replyRootCid",
        "replyParent" = excluded."replyParent", "replyParentCid" = excluded."replyParentCid",
        embed = excluded.embed, facets = excluded.facets, langs = excluded.langs,
        labels = excluded.labels, tags = excluded.tags,
        boundaries = excluded.boundaries, record = excluded.record,
        "createdAt" = excluded."createdAt"
      returning service, uri, creator, "sortAt", boundaries
    )
    insert into stratos_post_boundary (service, boundary, "sortAt", uri, creator)
    select s.service, b.boundary, s."sortAt", s.uri, s.creator
    from stored s cross join unnest(s.boundaries) as b(boundary)`
}

function takedownStatements(sql: IndexSql, takedowns: Changes['takedowns']): Statement[] {
  const named = rowsJson(takedowns)
  return [
    sql`insert into stratos_takedown (service, did, path)
      select service, did, path from json_to_recordset(${named}::text::json)
        as t(service text, did text, path text, takendown boolean)
      where takendown on conflict (service, did, path) do nothing`,
    sql`delete from stratos_takedown d
      using json_to_recordset(${named}::text::json)
        as t(service text, did text, path text, takendown boolean)
      where d.service = t.service and d.did = t.did and d.path = t.path
        and not t.takendown`,
  ]
}

/** The newest are kept, since frames hold what was written for few. */
export function parkStatements(
  sql: IndexSql,
  parked: Changes['parked'],
  nowMs: number,
): Statement[] {
  const inserts = parked.map(
    ({ service, did, seq, error, frame }) =>
      sql`insert into stratos_parked_event (service, did, seq, error, frame, "parkedAt")
      values (${service}, ${did}, ${seq}, ${error.replaceAll('\0', '').slice(0, errorCharsMax)},
        ${frame === undefined || frame.length > frameBytesMax ? null : frame}, ${new Date(nowMs)})
      on conflict (service, did, seq) do nothing`,
  )
  const services = new Set(parked.map(({ service }) => service))
  // Those that another transaction removes at this time need not be waited for.
  const removals = [...services].map(
    (service) => sql`delete from stratos_parked_event where ctid = any (array(
      select ctid from stratos_parked_event where service = ${service}
      order by "parkedAt" desc, did, seq offset ${parkedMax} for update skip locked))`,
  )
  return [...inserts, ...removals]
}

/** Of one service: enough to see what is wrong. */
const parkedMax = 1_000
/** Far more than a post takes. What is larger is left out: the half of a frame cannot be read. */
const frameBytesMax = 64 * 1024
const errorCharsMax = 1_000

/** Once it is due, a backfill stays due until there was one. */
function moveCursors(sql: IndexSql, cursors: Changes['cursors'], nowMs: number): Statement {
  return sql`
    insert into stratos_sync_cursor as c (service, did, seq, "backfillDue", "updatedAt")
    select service, did, seq, "backfillDue", ${new Date(nowMs)}::timestamptz
    from json_to_recordset(${rowsJson(cursors)}::text::json)
      as m(service text, did text, seq bigint, "backfillDue" boolean)
    on conflict (service, did) do update set seq = excluded.seq,
      "backfillDue" = c."backfillDue" or excluded."backfillDue",
      "updatedAt" = excluded."updatedAt"`
}
