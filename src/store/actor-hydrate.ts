import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Rkey } from '../atproto/syntax.ts'
import type { StoredRecord, View } from './actor.ts'
import { excepting, sharing } from './actor-view.ts'
import { parametersFor } from './parameters.ts'
import type { SqlValue } from './sql.ts'

export interface HydrateQuery {
  readonly uris: readonly AtUri[]
  readonly view: View
  /** A record of another version is missing. */
  readonly cid?: Cid | undefined
  /** Whether a record that `view` may not see is named as such, or is missing as it is elsewhere. */
  readonly hidden: 'named' | 'missing'
  /** Content at most. */
  readonly bytesMax: number
}

/** Numbers are places in the `uris` of the query. */
export interface Hydrated {
  readonly records: readonly StoredRecord[]
  readonly found: readonly number[]
  /** There, and not for these eyes. What is excepted from the view is never among them. */
  readonly hidden: readonly number[]
  /** For these eyes, and past `bytesMax`. */
  readonly unread: readonly number[]
  /** Of all `records`. */
  readonly contentBytes: number
}

export interface HydratedRow {
  readonly uri: AtUri
  readonly cid: Cid
  readonly rkey: Rkey
  readonly blockId: number
  /** Of the content; null where the record is hidden. */
  readonly bytes: number | null
  /** Null also where it is long. */
  readonly content: Uint8Array | null
}

/** Longer content is read by itself, so that no statement holds more than a hundred times this. */
const shortBytesMax = 16 * 1024

/** Rows of those of `uris` that are there, in no order. Hidden ones come without content. */
export function hydrateStatement({ uris, view, hidden }: HydrateQuery): {
  sql: string
  args: readonly SqlValue[]
} {
  const wanted = parametersFor(uris, 1)
  const shared = sharing(view === 'all' ? 'all' : view.boundaries, 1 + wanted.args.length)
  const args = [...wanted.args, ...shared.args]
  const rest = excepting(view, 1 + args.length)
  // The access rule stands where the content is joined: a row that breaks it has none.
  return {
    sql: `select r.uri, r.cid, r.rkey, r."blockId", length(b.content) as bytes,
        case when length(b.content) <= ${shortBytesMax} then b.content end as content
      from stratos_record r ${hidden === 'named' ? 'left join' : 'join'} stratos_repo_block b
        on b.id = r."blockId" and ${shared.sql}
      where r.uri in (${wanted.places.join(', ')}) and ${rest.sql}`,
    args: [...args, ...rest.args],
  }
}
