import { Database } from 'bun:sqlite'
import { decode } from '../../src/atproto/cbor.ts'
import { isDataObject } from '../../src/atproto/data.ts'

export interface Stored {
  readonly cid: string
  readonly content: Uint8Array
  readonly record: Readonly<Record<string, unknown>>
}

/** The records of an actor's database by their keys, read past all of our stores. */
export function contentsOf(path: string): Map<string, Stored> {
  using database = new Database(path, { readonly: true })
  const rows = database
    .query<{ rkey: string; cid: string; content: Uint8Array }, []>(
      `select rkey, cid, content from stratos_record
        join stratos_repo_block on id = "blockId" order by uri`,
    )
    .all()
  return new Map(
    rows.map(({ rkey, cid, content }) => {
      const record = decode(content)
      if (!isDataObject(record)) throw new Error(`${rkey} is no record`)
      return [rkey, { cid, content, record }]
    }),
  )
}
