import type { PendingQuery, Row } from 'postgres'
import { sleep, unlessAborted } from '../lib/pause.ts'
import type { IndexSql } from './database.ts'
import type { Actor } from './fold.ts'
import type { IndexTransaction } from './session.ts'
import type { IndexWriter } from './writer.ts'

/**
 * All posts of an account go, who is to be locked by the transaction. Where these are many, so that
 * everybody would wait for one who leaves, the account is closed and the rest goes later, a slice in
 * a transaction: no row of a closed account is seen, as if all of it was taken down, and none is added.
 * It opens with the last slice.
 *
 * For example: somebody with a million posts leaves and enrolls again at once. What they write then
 * is passed over while old rows go, and is read with their repo after it.
 */
export async function clear(transaction: IndexTransaction, actor: Actor): Promise<void> {
  if (await removeSlice(transaction, actor)) return
  const { service, did } = actor
  await transaction.run(transaction.sql`
    insert into stratos_takedown (service, did, path) values (${service}, ${did}, '*')
    on conflict (service, did, path) do nothing`)
}

/** The next slice of one account. @returns whether it is open */
export async function clearOn(transaction: IndexTransaction, actor: Actor): Promise<boolean> {
  const { service, did } = actor
  const { sql } = transaction
  // A plan that was kept from when tables were small would read them whole when they have grown.
  await transaction.run(sql`set local plan_cache_mode = force_custom_plan`)
  // Of several who go on at the same time none removes what was added after the last slice.
  const closed = await transaction.run(sql`
    select 1 from stratos_takedown where service = ${service} and did = ${did} and path = '*'
    for update`)
  if (closed.length === 0) return true
  if (!(await removeSlice(transaction, actor))) return false
  await transaction.run(sql`
    delete from stratos_takedown where service = ${service} and did = ${did} and path = '*'`)
  return true
}

/**
 * Goes on with whatever is closed, between what streams tell.
 * @throws the reason of an aborted `signal`
 */
export async function clearClosed(writer: IndexWriter, signal: AbortSignal): Promise<never> {
  for (;;) {
    let closed: Actor | undefined
    const slice = async (transaction: IndexTransaction) => {
      const { sql } = transaction
      const [found] = await transaction.run(sql<Actor[]>`
        select service, did from stratos_takedown where path = '*' limit 1`)
      closed = found
      if (found !== undefined) await clearOn(transaction, found)
    }
    await unlessAborted(writer.task(slice), signal)
    if (closed === undefined) await sleep(everyMs, signal)
  }
}

/** @returns whether nothing is left */
async function removeSlice(transaction: IndexTransaction, actor: Actor): Promise<boolean> {
  const { sql } = transaction
  const { service, did } = actor
  const places = await transaction.run(sql`
    delete from stratos_post_boundary where ctid = any (array(
      select ctid from stratos_post_boundary where creator = ${did} and service = ${service}
      limit ${rowsMax})) returning 1`)
  if (places.length === rowsMax) return false
  const posts = await transaction.run(sql`
    delete from stratos_post where ctid = any (array(
      select p.ctid from stratos_post p where ${isPostOf(sql, actor)} limit ${rowsMax}))
    returning 1`)
  if (posts.length === rowsMax) return false
  // Fewer may have gone because somebody else removed some of them meanwhile, and others are there.
  const [left] = await transaction.run(sql<{ isLeft: boolean }[]>`
    select exists (select from stratos_post_boundary where creator = ${did} and service = ${service})
      or exists (select from stratos_post p where ${isPostOf(sql, actor)}) as "isLeft"`)
  return left?.isLeft === false
}

/** Whether a row `p` of `stratos_post` is of the actor, by the order of its key: '0' follows '/'. */
export function isPostOf(sql: IndexSql, { service, did }: Actor): PendingQuery<Row[]> {
  return sql`p.service = ${service} and p.uri > ${`at://${did}/`} and p.uri < ${`at://${did}0`}`
}

/** In one transaction: others wait for some tens of milliseconds. */
const rowsMax = 1_000
/** A look into a table that is empty as good as always. */
const everyMs = 1_000
