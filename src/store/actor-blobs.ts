import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Tid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { View } from './actor.ts'
import { visible } from './actor-view.ts'
import type { BlobKey } from './blob-storage.ts'
import { parametersFor } from './parameters.ts'
import type { Sql, SqlValue, Statement } from './sql.ts'

/** A blob as its bytes are: what they were found to be, and how many there are. */
export interface BlobFacts {
  readonly cid: Cid
  readonly mimeType: string
  readonly size: number
}

/** Bytes that came, at a temporary place. */
export interface UploadedBlob extends BlobFacts {
  readonly tempKey: BlobKey
  readonly uploadedAtMs: number
}

export interface BlobRow extends BlobFacts {
  /** Where its bytes stand until they are at their permanent place. */
  readonly tempKey: BlobKey | null
}

/** What blobs take. */
export interface BlobUse {
  readonly usedBytes: number
  readonly temporary: number
}

/** What is to be done about bytes, so that they are where the rows say. */
export interface BlobWork {
  /** To their permanent place. */
  readonly moves: readonly { readonly cid: Cid; readonly tempKey: BlobKey }[]
  /** Nothing names them any more. */
  readonly gone: readonly Cid[]
}

/** What became of that. */
export interface BlobsWorked extends BlobWork {
  /** Their bytes are nowhere. */
  readonly lost: BlobWork['moves']
}

/** A page in the order of CIDs, of what records say that `view` may see. */
export interface BlobQuery {
  readonly after: string
  readonly limit: number
  readonly view: View
  /** Only what records of after this commit name. */
  readonly since?: Tid | undefined
  /** To be left out. */
  readonly except: readonly Cid[]
}

/** Whether a record names the blob `b`. */
const isNamed = 'exists (select 1 from stratos_record_blob n where n."blobCid" = b.cid)'
const selectRow = `select b.cid, b."mimeType", b.size, b."tempKey", ${isNamed} as named
  from stratos_blob b where b.cid = $1`
const selectUse = `select coalesce(sum(size), 0) as "usedBytes",
  count(*) filter (where "tempKey" is not null) as temporary from stratos_blob`
const selectUseBeside = `${selectUse} where cid <> $1`
const putBlob = `insert into stratos_blob (cid, "mimeType", size, "tempKey", "uploadedAtMs")
  values ($1, $2, $3, $4, $5)
  on conflict (cid) do update set "mimeType" = excluded."mimeType", size = excluded.size,
    "tempKey" = excluded."tempKey", "uploadedAtMs" = excluded."uploadedAtMs"`
const selectMoves = `select b.cid, b."tempKey" from stratos_blob b
  where b."tempKey" is not null and ${isNamed} order by b.cid limit $1`
const selectGone = `select b.cid from stratos_blob b
  where b."tempKey" is null and not ${isNamed} order by b.cid limit $1`
const updateMoved = 'update stratos_blob set "tempKey" = null where cid = $1 and "tempKey" = $2'
const deleteGone = `delete from stratos_blob as b
  where b.cid = $1 and b."tempKey" is null and not ${isNamed}`
const deleteLost = 'delete from stratos_blob where cid = $1 and "tempKey" = $2'
const expireOld = `update stratos_blob as b set "tempKey" = null
  where b."tempKey" is not null and b."uploadedAtMs" < $1 and not ${isNamed}`
const selectTemporary = 'select "tempKey" from stratos_blob where "tempKey" is not null'
const insertNamed = 'insert into stratos_record_blob ("recordUri", "blobCid") values ($1, $2)'
const deleteNamed = 'delete from stratos_record_blob where "recordUri" = $1 and "blobCid" = $2'

/** What changes about the blobs that a record names; part of the transaction of the record. */
export function recordBlobStatements(
  uri: AtUri,
  { before, after }: { readonly before: readonly Cid[]; readonly after: readonly Cid[] },
): Statement[] {
  const statement = (sql: string) => (cid: Cid) => ({ sql, args: [uri, cid], rows: 1 })
  return [
    ...before.filter((cid) => !after.includes(cid)).map(statement(deleteNamed)),
    ...after.filter((cid) => !before.includes(cid)).map(statement(insertNamed)),
  ]
}

/** The blobs of one actor: which there are, and which records name them. It has none of the bytes. */
export class ActorBlobs {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** One that is there for records to name; `named` where one does already. */
  async find(cid: Cid): Promise<(BlobRow & { readonly named: boolean }) | undefined> {
    const [row] = await this.#sql.all<BlobRow & { named: number }>(selectRow, cid)
    if (row === undefined) return undefined
    const found = { ...row, named: row.named === 1 }
    return isThere(found) ? found : undefined
  }

  /** Whether a record names it, be it here or not. */
  async isNamed(cid: Cid): Promise<boolean> {
    const sql = 'select 1 from stratos_record_blob where "blobCid" = $1 limit 1'
    return (await this.#sql.all(sql, cid)).length > 0
  }

  /** One that a record names which `view` may see: one statement decides both. */
  async read(cid: Cid, view: View): Promise<BlobRow | undefined> {
    const condition = visible(view, 2)
    const [row] = await this.#sql.all<BlobRow>(
      `select b.cid, b."mimeType", b.size, b."tempKey" from stratos_blob b
        where b.cid = $1 and exists (select 1 from stratos_record_blob n
          join stratos_record r on r.uri = n."recordUri"
          where n."blobCid" = b.cid and ${condition.sql})`,
      cid,
      ...condition.args,
    )
    return row
  }

  /** Of all, with those on their way out. */
  async use(): Promise<BlobUse> {
    return first(await this.#sql.all<BlobUse>(selectUse))
  }

  /** Of all but one. */
  async useBeside(cid: Cid): Promise<BlobUse> {
    return first(await this.#sql.all<BlobUse>(selectUseBeside, cid))
  }

  async put({ cid, mimeType, size, tempKey, uploadedAtMs }: UploadedBlob): Promise<void> {
    const args = [cid, mimeType, size, tempKey, uploadedAtMs]
    await this.#sql.run([{ sql: putBlob, args, rows: 1 }])
  }

  async work(limit: number): Promise<BlobWork> {
    const moves = await this.#sql.all<BlobWork['moves'][number]>(selectMoves, limit)
    const gone = await this.#sql.all<{ cid: Cid }>(selectGone, limit)
    return { moves, gone: gone.map(({ cid }) => cid) }
  }

  /**
   * What was done of `work`. A blob that was uploaded anew meanwhile stays as that; one that is lost
   * is missing from now on, for its owner to upload it again.
   */
  async worked({ moves, gone, lost }: BlobsWorked): Promise<void> {
    await this.#sql.run([
      ...moves.map(({ cid, tempKey }) => ({ sql: updateMoved, args: [cid, tempKey] })),
      ...gone.map((cid) => ({ sql: deleteGone, args: [cid] })),
      ...lost.map(({ cid, tempKey }) => ({ sql: deleteLost, args: [cid, tempKey] })),
    ])
  }

  /**
   * Gives up what was uploaded before then and is named nowhere: it is on its way out, with what a
   * move that was cut off may have left at the permanent place. @returns the keys that are left
   */
  async expire(beforeMs: number): Promise<BlobKey[]> {
    await this.#sql.run([{ sql: expireOld, args: [beforeMs] }])
    const rows = await this.#sql.all<{ tempKey: BlobKey }>(selectTemporary)
    return rows.map(({ tempKey }) => tempKey)
  }

  /** Named ones that are here. */
  async list(query: BlobQuery): Promise<Cid[]> {
    const { sql, args } = namedBy(query, 'exists')
    const rows = await this.#sql.all<{ cid: Cid }>(sql, ...args)
    return rows.map(({ cid }) => cid)
  }

  /** Named ones that are not here, each with the first record that names it. */
  async missing(query: BlobQuery): Promise<{ readonly cid: Cid; readonly uri: AtUri }[]> {
    const { sql, args } = namedBy(query, 'not exists')
    return await this.#sql.all(sql, ...args)
  }
}

function first([use]: readonly BlobUse[]): BlobUse {
  assert(use !== undefined, 'a sum has a row')
  return use
}

/** Of those without a record only what is at its temporary place counts as there. */
function isThere({ named, tempKey }: { readonly named: boolean } & Pick<BlobRow, 'tempKey'>) {
  return named || tempKey !== null
}

function namedBy(query: BlobQuery, there: 'exists' | 'not exists') {
  const { after, limit, view, since, except } = query
  const args: SqlValue[] = [after, limit]
  const bound = (part: { readonly sql: string; readonly args: readonly SqlValue[] }) => {
    args.push(...part.args)
    return part.sql
  }
  const seen = bound(visible(view, args.length + 1))
  const { places, args: left } = parametersFor(except, args.length + 1)
  const others = except.length === 0 ? '' : `and n."blobCid" not in (${places.join(', ')})`
  const rest = bound({ sql: others, args: left })
  const later = since === undefined ? '' : `and r."repoRev" > $${args.push(since)}`
  const sql = `select n."blobCid" as cid, min(n."recordUri") as uri from stratos_record_blob n
    join stratos_record r on r.uri = n."recordUri"
    where n."blobCid" > $1 and ${seen} ${rest} ${later}
      and ${there} (select 1 from stratos_blob b where b.cid = n."blobCid")
    group by n."blobCid" order by n."blobCid" limit $2`
  return { sql, args }
}
