import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Nsid, Rkey } from '../atproto/syntax.ts'
import type { View } from './actor.ts'
import { sharing } from './actor-view.ts'
import { parametersFor } from './parameters.ts'
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
 * what is hidden. Eyes of very many boundaries, for which little is hidden, read the records
 * themselves in order. The page is full whenever enough visible records exist.
 * @returns rows of `ListedRow`, without the content
 */
export function listStatement(query: ListQuery): { sql: string; args: readonly SqlValue[] } {
  const { did, collection, limit, cursor, order, view } = query
  const prefix = `at://${did}/${collection}/`
  const [compare, direction] = order === 'descending' ? ['<', 'desc'] : ['>', 'asc']
  // No record key has a character above '~', so all of them sort before '\x7f'.
  const from = cursor ?? (order === 'descending' ? '\x7f' : '')
  const boundaries = view === 'all' ? 'all' : view.boundaries
  if (boundaries === 'all' || isWide(boundaries)) {
    const [low, high] = order === 'descending' ? ['', from] : [from, '\x7f']
    const shared = sharing(boundaries, 4)
    const first = 4 + shared.args.length
    const { table, condition, args } = exceptKeys(view, { prefix, column: 'r.rkey', first })
    return {
      sql: `${table} select r.uri, r.cid, r.rkey, r."blockId", length(b.content) as bytes
        from stratos_record r join stratos_repo_block b on b.id = r."blockId"
        where r.uri > $1 and r.uri < $2 and ${shared.sql} ${condition}
        order by r.uri ${direction} limit $3`,
      args: [prefix + low, prefix + high, limit, ...shared.args, ...args],
    }
  }
  const first = 5 + boundaries.length
  const { table, condition, args } = exceptKeys(view, { prefix, column: 'rkey', first })
  const pages = boundaries.map(
    (_, index) => `select rkey from (select rkey from stratos_record_boundary
      where boundary = $${index + 5} and collection = $1 and rkey ${compare} $2 ${condition}
      order by rkey ${direction} limit $3) as page${index}`,
  )
  return {
    sql: `${table} select r.uri, r.cid, r.rkey, r."blockId", length(b.content) as bytes from (
        ${pages.join(' union ')} order by rkey ${direction} limit $3) as v
      join stratos_record r on r.uri = $4 || v.rkey
      join stratos_repo_block b on b.id = r."blockId"
      order by v.rkey ${direction}`,
    args: [collection, from, limit, prefix, ...boundaries, ...args],
  }
}

/** More boundaries than any person has. A query that names 500 SQLite refuses to merge. */
function isWide(boundaries: readonly string[]): boolean {
  return boundaries.length > 64
}

/** What `view` excepts of one collection, as a table of keys and a condition on them. */
function exceptKeys(
  view: View,
  list: { readonly prefix: string; readonly column: string; readonly first: number },
): { table: string; condition: string; args: readonly SqlValue[] } {
  const { prefix, column, first } = list
  const except = view === 'all' ? [] : (view.except ?? [])
  const keys = except.filter((uri) => uri.startsWith(prefix)).map((uri) => uri.slice(prefix.length))
  if (keys.length === 0) return { table: '', condition: '', args: [] }
  const { places, args } = parametersFor(keys, first)
  const rows = places.map((place) => `(${place})`)
  return {
    table: `with excepted (rkey) as (values ${rows.join(', ')})`,
    condition: `and ${column} not in (select excepted.rkey from excepted)`,
    args,
  }
}

/**
 * Names that may be collections with a visible record: a table `candidate` of names, and the
 * records `r` of each, still to be checked. Each step of the table is one look into an index, so
 * that the cost depends on the number of collections, not of records.
 */
export function candidateCollections(
  did: Did,
  view: View,
): { table: string; records: string; args: SqlValue[] } {
  const prefix = `at://${did}/`
  const boundaries = view === 'all' ? 'all' : view.boundaries
  if (boundaries === 'all' || isWide(boundaries)) {
    // '0' is the character after '/': no URI stands between a collection's last and this.
    return {
      table: `with recursive candidate (name) as (
        select (select collection from stratos_record order by uri limit 1)
        union all
        select (select n.collection from stratos_record n
            where n.uri > $1 || candidate.name || '0' order by n.uri limit 1)
          from candidate where candidate.name is not null)`,
      records: `stratos_record r
        where r.uri > $1 || candidate.name || '/' and r.uri < $1 || candidate.name || '0'`,
      args: [prefix],
    }
  }
  const starts = boundaries.map((_, index) => `($${index + 2}, '')`).join(', ')
  return {
    table: `with recursive candidate (boundary, name) as (
      values ${starts}
      union all
      select candidate.boundary, (select n.collection from stratos_record_boundary n
          where n.boundary = candidate.boundary and n.collection > candidate.name
          order by n.collection limit 1)
        from candidate where candidate.name is not null)`,
    records: `stratos_record_boundary o
      join stratos_record r on r.uri = $1 || o.collection || '/' || o.rkey
      where o.boundary = candidate.boundary and o.collection = candidate.name`,
    args: [prefix, ...boundaries],
  }
}
