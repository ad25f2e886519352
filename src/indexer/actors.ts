import type { Did } from '../atproto/syntax.ts'
import type { IndexSql } from './database.ts'

/** Where the index stands with somebody who is enrolled. */
export interface Standing {
  readonly did: Did
  /** Of the last event that is stored; 0 where there is none. */
  readonly seq: number
  /** Whether rows are missing, or may be. */
  readonly backfillDue: boolean
  readonly serviceUrl: string
  readonly boundaries: readonly string[]
}

/** Everybody who is enrolled with a service, in the order of DIDs after `after`. */
export async function standings(
  sql: IndexSql,
  service: Did,
  { after, limit }: { readonly after: string; readonly limit: number },
): Promise<readonly Standing[]> {
  return await sql<Standing[]>`
    select e.did, coalesce(c.seq, 0) as seq, coalesce(c."backfillDue", true) as "backfillDue",
      e."serviceUrl", e.boundaries
    from stratos_enrollment e
    left join stratos_sync_cursor c on c.service = e.service and c.did = e.did
    where e.service = ${service} and e.did > ${after} order by e.did limit ${limit}`
}
