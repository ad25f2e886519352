import type { PendingQuery, Row } from 'postgres'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { unlessAborted } from '../lib/pause.ts'
import type { IndexSql } from './database.ts'
import type { IndexTransaction } from './session.ts'
import type { IndexWriter } from './writer.ts'

/**
 * Removes all that the index has of services that are not `followed`: nobody hears any more who may
 * see it, and their members would be told for ever that the index is stale. The members go first, and
 * with them everybody's sight of the rest; what a crash leaves is found by the next call.
 * @throws the reason of an aborted `signal`
 */
export async function removeUnfollowed(
  writer: IndexWriter,
  followed: readonly Did[],
  { log, signal }: { readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  const run: Run = async (work) => await unlessAborted(writer.task(work), signal)
  for (const service of await servicesIn(run)) {
    if (followed.some((did) => did === service)) continue
    log.warn('index.service.unfollowed', {
      service,
      hint: 'it is not among the services to follow: all that the index has of it is removed',
    })
    const rows = await removeService(run, service)
    log.info('index.service.removed', { service, rows })
  }
}

/** In a transaction of its own. */
type Run = (work: (transaction: IndexTransaction) => Promise<void>) => Promise<void>

/** All of which there are rows; places of posts are never without their post. */
async function servicesIn(run: Run): Promise<readonly string[]> {
  const found = new Set<string>()
  for (const table of tables) {
    // One look into the key for each service: the tables are long.
    await run(async (transaction) => {
      const { sql } = transaction
      const rows = await transaction.run(sql<{ service: string }[]>`
        with recursive found as (
          select min(service) as service from ${sql(table)}
          union all
          select (select min(t.service) from ${sql(table)} t where t.service > f.service)
          from found f where f.service is not null)
        select service from found where service is not null`)
      for (const { service } of rows) found.add(service)
    })
  }
  return [...found].toSorted()
}

/** @returns how many rows there were */
async function removeService(run: Run, service: string): Promise<number> {
  let removed = 0
  for (const step of steps) {
    for (;;) {
      const count = await removeSome(run, service, step)
      removed += count
      if (count < rowsMax) break
    }
  }
  return removed
}

async function removeSome(run: Run, service: string, [table, rowsOf]: Step): Promise<number> {
  let count = 0
  await run(async (transaction) => {
    const { sql } = transaction
    const rows = await transaction.run(sql`
      delete from ${sql(table)} where ctid = any (array(
        select ctid from ${sql(table)} where ${rowsOf(sql, service)} limit ${rowsMax}))
      returning 1`)
    count = rows.length
  })
  return count
}

const byService = (sql: IndexSql, service: string) => sql`service = ${service}`

/** A boundary begins with its service's DID; '0' follows '/'. */
const byBoundary = (sql: IndexSql, service: string) =>
  sql`boundary > ${`${service}/`} and boundary < ${`${service}0`}`

/** In the order in which they are removed. */
const tables = [
  'stratos_enrollment',
  'stratos_post',
  'stratos_takedown',
  'stratos_parked_event',
  'stratos_backfill_page',
  'stratos_sync_cursor',
  'stratos_service_state',
] as const

type Step = readonly [table: string, of: (sql: IndexSql, service: string) => PendingQuery<Row[]>]

const steps: readonly Step[] = tables.flatMap((table): readonly Step[] =>
  table === 'stratos_post'
    ? [
        ['stratos_post_boundary', byBoundary],
        [table, byService],
      ]
    : [[table, byService]],
)

/** In one transaction: what is followed does not wait for long. */
const rowsMax = 1_000
