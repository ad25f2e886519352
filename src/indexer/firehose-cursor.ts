import type { IndexSql } from './database.ts'

/** Of the last event that counts; undefined where none does. */
export async function firehoseCursor(sql: IndexSql, url: string): Promise<number | undefined> {
  const [row] = await sql<{ seq: number }[]>`
    select seq from stratos_firehose_cursor where url = ${url}`
  return row?.seq
}

/** It may lie before the one of before: a stream that began anew counts from its start again. */
export async function keepFirehoseCursor(
  sql: IndexSql,
  { url, seq, nowMs }: { readonly url: string; readonly seq: number; readonly nowMs: number },
): Promise<void> {
  await sql`
    insert into stratos_firehose_cursor (url, seq, "updatedAt")
    values (${url}, ${seq}, ${new Date(nowMs)})
    on conflict (url) do update set seq = excluded.seq, "updatedAt" = excluded."updatedAt"`
}
