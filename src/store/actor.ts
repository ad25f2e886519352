import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Nsid, Rkey, Tid } from '../atproto/syntax.ts'
import {
  candidateCollections,
  type ListedRow,
  type ListQuery,
  listStatement,
  pageBytesMax,
} from './actor-list.ts'
import {
  type Hydrated,
  hydrateStatement,
  type HydrateQuery,
  type HydratedRow,
} from './actor-hydrate.ts'
import { type Change, changeStatements, type Head, insertLink, type Links } from './actor-change.ts'
import { ActorBlobs, recordBlobStatements } from './actor-blobs.ts'
import { prunedStatement } from './actor-events.ts'
import { ActorOutbox } from './actor-outbox.ts'
import { sharing, visible } from './actor-view.ts'
import type { Sql } from './sql.ts'

/**
 * Whose eyes a read is for: everything there is, or the records that share one of these boundaries.
 * To eyes with `except`, those records are missing, whatever their boundaries.
 */
export type View =
  | 'all'
  | { readonly boundaries: 'all' | readonly string[]; readonly except?: readonly AtUri[] }

export interface StoredRecord {
  readonly uri: AtUri
  readonly cid: Cid
  readonly rkey: Rkey
  readonly content: Uint8Array
}

export interface PresentRecord {
  readonly uri: AtUri
  readonly cid: Cid
  /** Of the commit that put it there. */
  readonly rev: Tid
  readonly content: Uint8Array
}

/** Without its content where that is known. */
export interface FoundRecord extends Omit<StoredRecord, 'content'> {
  readonly content?: Uint8Array | undefined
}

/** Where a record stands in the tree. */
export interface RecordEntry {
  readonly uri: AtUri
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly cid: Cid
}

interface RecordBlock {
  readonly uri: AtUri
  readonly cid: Cid
  readonly content: Uint8Array
}

/** Some 5 ms to read and to build a tree of: what other actors of a thread may have to wait. */
const entriesPageSize = 2_000

/** Says of a content whether the caller has it by its hash, so that it need not be read. */
export type Known = (cid: Cid) => boolean

const nothingKnown: Known = () => false

export const selectHead =
  'select cid, rev, seq, "lastBlock", content from stratos_repo_root where did = $1'
const selectBlock = 'select content from stratos_repo_block where id = $1'
const selectBlocks = `select r.uri, r.cid, b.content from stratos_record r
  join stratos_repo_block b on b.id = r."blockId"`
const selectEntries = `select uri, collection, rkey, cid from stratos_record
  where uri > $1 order by uri limit $2`

/** The queries and reports of one actor's database. It keeps nothing in memory. */
export class ActorStore {
  readonly outbox: ActorOutbox
  readonly blobs: ActorBlobs
  readonly #sql: Sql
  readonly #did: Did

  constructor(sql: Sql, did: Did) {
    this.outbox = new ActorOutbox(sql)
    this.blobs = new ActorBlobs(sql)
    this.#sql = sql
    this.#did = did
  }

  /** @throws RowsMismatch when the head is not where the first Change expects it */
  async apply(changes: readonly Change[]): Promise<void> {
    await this.#sql.run(changeStatements(changes))
  }

  async head(): Promise<(Head & { readonly commit: Uint8Array }) | undefined> {
    const [row] = await this.#sql.all<Head & { content: Uint8Array }>(selectHead, this.#did)
    if (row === undefined) return undefined
    const { content, ...head } = row
    return { ...head, commit: content }
  }

  /**
   * Path and CID of every record, in the order of the tree. Each page is read when it is asked for:
   * what is written between two of them shows in the later one.
   */
  async *entries(pageSize = entriesPageSize): AsyncGenerator<readonly RecordEntry[], void> {
    let after: string | undefined = ''
    while (after !== undefined) {
      const page: RecordEntry[] = await this.#sql.all(selectEntries, after, pageSize)
      if (page.length > 0) yield page
      after = page.length < pageSize ? undefined : page.at(-1)?.uri
    }
  }

  async hasRecords(): Promise<boolean> {
    return (await this.#sql.all('select uri from stratos_record limit 1')).length > 0
  }

  /** The record at `uri`, when `view` may see it: one statement decides both. */
  async record(uri: AtUri, view: View): Promise<StoredRecord | undefined> {
    const condition = visible(view, 2)
    const [row] = await this.#sql.all<StoredRecord>(
      `select r.uri, r.cid, r.rkey, b.content from stratos_record r
        join stratos_repo_block b on b.id = r."blockId"
        where r.uri = $1 and ${condition.sql}`,
      uri,
      ...condition.args,
    )
    return row
  }

  /** One page of the records that `query.view` may see, shorter where they are large. */
  async list(query: Omit<ListQuery, 'did'>, known: Known = nothingKnown): Promise<FoundRecord[]> {
    const { view } = query
    if (view !== 'all' && view.boundaries.length === 0) return []
    const { sql, args } = listStatement({ ...query, did: this.#did })
    const page: FoundRecord[] = []
    let left = pageBytesMax
    for (const { blockId, bytes, ...row } of await this.#sql.all<ListedRow>(sql, ...args)) {
      left -= bytes
      if (left < 0 && page.length > 0) break
      const found = known(row.cid) ? row : await this.#withContent({ ...row, blockId }, view)
      if (found !== undefined) page.push(found)
    }
    return page
  }

  /**
   * Those of some records that are there, in the order of the query; `bytesMax` of content at most.
   * One statement, but for records that are larger than most.
   */
  async hydrate(query: HydrateQuery): Promise<Hydrated> {
    const { sql, args } = hydrateStatement(query)
    const rows = new Map<AtUri, HydratedRow>()
    for (const row of await this.#sql.all<HydratedRow>(sql, ...args)) rows.set(row.uri, row)
    const records: StoredRecord[] = []
    const [found, hidden, unread]: [number[], number[], number[]] = [[], [], []]
    let left = query.bytesMax
    for (const [index, uri] of query.uris.entries()) {
      const row = rows.get(uri)
      if (row === undefined) continue
      const { cid, rkey, bytes, content } = row
      if (bytes === null) hidden.push(index)
      else if (query.cid !== undefined && query.cid !== cid) continue
      else if (bytes > left) unread.push(index)
      else {
        const one =
          content === null ? await this.#withContent(row, query.view) : { uri, cid, rkey, content }
        if (one === undefined || (query.cid ?? one.cid) !== one.cid) continue
        left -= one.content.length
        found.push(index)
        records.push(one)
      }
    }
    return { records, found, hidden, unread, contentBytes: query.bytesMax - left }
  }

  /**
   * A record whose row was read, with its content. Where its block went meanwhile it was written
   * anew or deleted: then all is decided again, in one statement.
   */
  async #withContent(
    { uri, cid, rkey, blockId }: Pick<ListedRow, 'uri' | 'cid' | 'rkey' | 'blockId'>,
    view: View,
  ): Promise<StoredRecord | undefined> {
    const [block] = await this.#sql.all<{ content: Uint8Array }>(selectBlock, blockId)
    return block === undefined
      ? await this.record(uri, view)
      : { uri, cid, rkey, content: block.content }
  }

  /** Collections with a record that `view` may see. */
  async collections(view: View): Promise<Nsid[]> {
    if (view !== 'all' && view.boundaries.length === 0) return []
    const { table, records, args } = candidateCollections(this.#did, view)
    const condition = visible(view, args.length + 1)
    const sql = `${table} select distinct name from candidate
      where exists (select 1 from ${records} and ${condition.sql}) order by name`
    const rows = await this.#sql.all<{ name: Nsid }>(sql, ...args, ...condition.args)
    return rows.map(({ name }) => name)
  }

  /** Records after a URI, in the order of the tree, of those that `eyes` may see. */
  async present(query: {
    readonly after: string
    readonly eyes: 'all' | readonly string[]
    readonly limit: number
  }): Promise<PresentRecord[]> {
    const shared = sharing(query.eyes, 3)
    const sql = `select r.uri, r.cid, r."repoRev" as rev, b.content from stratos_record r
      join stratos_repo_block b on b.id = r."blockId"
      where r.uri > $1 and ${shared.sql} order by r.uri limit $2`
    return await this.#sql.all(sql, query.after, query.limit, ...shared.args)
  }

  /** All records, in the order of the tree. */
  async blocks(): Promise<RecordBlock[]> {
    return await this.#sql.all(`${selectBlocks} order by r.uri`)
  }

  /** Those in whose bytes these are, somewhere. */
  async blocksWith(bytes: Uint8Array): Promise<RecordBlock[]> {
    return await this.#sql.all(`${selectBlocks} where instr(b.content, $1) > 0`, bytes)
  }

  /** Records that answer or quote one of these, as far as they are here. */
  async backlinks(linkTo: string): Promise<{ readonly uri: AtUri; readonly path: string }[]> {
    const sql = 'select uri, path from stratos_backlink where "linkTo" = $1 order by uri, path'
    return await this.#sql.all(sql, linkTo)
  }

  /** Work that a migration left to be done by the program. */
  async due(): Promise<readonly string[]> {
    return (await this.#sql.all<{ name: string }>('select name from stratos_due')).map(
      ({ name }) => name,
    )
  }

  /** Sets anew what all records answer and quote, which then is no longer due. */
  async relink(records: readonly { readonly uri: AtUri; readonly links: Links }[]): Promise<void> {
    const inserts = records.flatMap(({ uri, links }) =>
      links.map((link) => ({ sql: insertLink, args: [uri, link.path, link.uri] })),
    )
    await this.#sql.run([
      { sql: 'delete from stratos_backlink', args: [] },
      ...inserts,
      { sql: `delete from stratos_due where name = 'backlinks'`, args: [] },
    ])
  }

  /** Sets which blobs these records name, and no others do, which then is no longer due. */
  async nameBlobs(
    records: readonly { readonly uri: AtUri; readonly blobs: readonly Cid[] }[],
  ): Promise<void> {
    await this.#sql.run([
      { sql: 'delete from stratos_record_blob', args: [] },
      ...records.flatMap(({ uri, blobs }) =>
        recordBlobStatements(uri, { before: [], after: blobs }),
      ),
      { sql: `delete from stratos_due where name = 'record-blobs'`, args: [] },
    ])
  }

  /** Nothing up to `seq` is in the log. */
  async pruneTo(seq: number): Promise<void> {
    await this.#sql.run([prunedStatement(seq)])
  }

  async close(): Promise<void> {
    await this.#sql.close()
  }
}
