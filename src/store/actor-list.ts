import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Nsid, Rkey } from '../atproto/syntax.ts'
import type { View } from './actor.ts'
import type { SqlValue } from './sql.ts'

export interface ListQuery {
  readonly did: Did
  readonly collection: Nsid
  readonly limit: number
  /** The last record key of the page before. */
  readonly cursor?: Rkey | undefined
  /** Newest first is `descending`: record keys are times. */
  readonly order: 'ascending' | 'descending'
  readonly view: View
}

export interface ListedRow {
  readonly uri: AtUri
  readonly cid: Cid
  readonly rkey: Rkey
  readonly blockId: number
  /** Of the content. */
  readonly bytes: number
}

/** Content of one page; in JSON it may grow sixfold, and a PDS passes on 10 MiB at most. */
export const pageBytesMax = 1024 * 1024

/**
 * One page of a collection. The boundary rule drives the query: each boundary is read in key order
 * up to the limit and the pages are merged, so that the cost depends on what is visible, not on
 * what is hidden. The page is full whenever enough visible records exist.
 * @returns rows of `ListedRow`, without the content
 */
export function listStatement(query: ListQuery): { sql: string; args: SqlValue[] } {
  const { did, collection, limit, cursor, order, view } = query
  const prefix = `at://${did}/${collection}/`
  const [compare, direction] = order === 'descending' ? ['<', 'desc'] : ['>', 'asc']
  // No record key has a character above '~', so all of them sort before '\x7f'.
  const from = cursor ?? (order === 'descending' ? '\x7f' : '')
  if (view === 'all') {
    const [low, high] = order === 'descending' ? ['', from] : [from, '\x7f']
    return {
      sql: `select r.uri, r.cid, r.rkey, r."blockId", length(b.content) as bytes
        from stratos_record r join stratos_repo_block b on b.id = r."blockId"
        where r.uri > $1 and r.uri < $2 order by r.uri ${direction} limit $3`,
      args: [prefix + low, prefix + high, limit],
    }
  }
  const pages = view.boundaries.map(
    (_, index) => `select rkey from (select rkey from stratos_record_boundary
      where boundary = $${index + 5} and collection = $1 and rkey ${compare} $2
      order by rkey ${direction} limit $3) as page${index}`,
  )
  return {
    sql: `select r.uri, r.cid, r.rkey, r."blockId", length(b.content) as bytes from (
        ${pages.join(' union ')} order by rkey ${direction} limit $3) as v
      join stratos_record r on r.uri = $4 || v.rkey
      join stratos_repo_block b on b.id = r."blockId"
      order by v.rkey ${direction}`,
    args: [collection, from, limit, prefix, ...view.boundaries],
  }
}
