import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Nsid, Rkey, Tid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { recordBlobStatements } from './actor-blobs.ts'
import { type OutboxEntry, queueStatement } from './actor-outbox.ts'
import type { Statement } from './sql.ts'

/** The newest commit of a repo and the numbers that the next Change continues. */
export interface Head {
  readonly cid: Cid
  readonly rev: Tid
  readonly seq: number
  readonly lastBlock: number
}

/** What a record answers and quotes, and where it says so. */
export type Links = readonly { readonly path: string; readonly uri: string }[]

export interface RecordOp {
  readonly action: 'create' | 'update' | 'delete'
  readonly uri: AtUri
  readonly collection: Nsid
  readonly rkey: Rkey
  /** The new record; absent for a delete. */
  readonly put?: {
    readonly cid: Cid
    readonly content: Uint8Array
    readonly blockId: number
    /** What it answers and quotes. */
    readonly links: Links
    /** The blobs that it names, each once; absent for none. */
    readonly blobs?: readonly Cid[]
  }
  readonly prev?: Cid
  /** The blobs that the record named which goes; absent for none. */
  readonly prevBlobs?: readonly Cid[]
  readonly before: readonly string[]
  readonly after: readonly string[]
}

/** One commit with everything that belongs to it. It is stored whole, on `before`, or not at all. */
export interface Change {
  readonly did: Did
  readonly before: Head | undefined
  readonly after: Head
  readonly commit: Uint8Array
  /** ISO 8601, UTC. */
  readonly time: string
  readonly ops: readonly RecordOp[]
  readonly outbox: readonly OutboxEntry[]
}

const insertHead = `insert into stratos_repo_root
  (did, cid, rev, seq, "lastBlock", content, "indexedAt") values ($1, $2, $3, $4, $5, $6, $7)
  on conflict (did) do nothing`
const updateHead = `update stratos_repo_root
  set cid = $3, rev = $4, seq = $5, "lastBlock" = $6, content = $7, "indexedAt" = $8
  where did = $1 and rev = $2`
export const insertEvent =
  'insert into stratos_seq (seq, did, time, rev, event) values ($1, $2, $3, $4, $5)'
const insertBlock = 'insert into stratos_repo_block (id, content) values ($1, $2)'
const insertRecord = `insert into stratos_record
  (uri, cid, collection, rkey, "repoRev", "indexedAt", "takedownRef", "blockId")
  values ($1, $2, $3, $4, $5, $6, null, $7)`
const updateRecord = `update stratos_record
  set cid = $3, "repoRev" = $4, "indexedAt" = $5, "blockId" = $6 where uri = $1 and cid = $2`
const deleteRecord = 'delete from stratos_record where uri = $1 and cid = $2'
const deleteBlock = `delete from stratos_repo_block
  where id = (select "blockId" from stratos_record where uri = $1)`
const insertBoundary =
  'insert into stratos_record_boundary (boundary, collection, rkey) values ($1, $2, $3)'
const deleteBoundary = `delete from stratos_record_boundary
  where boundary = $1 and collection = $2 and rkey = $3`
export const insertLink = 'insert into stratos_backlink (uri, path, "linkTo") values ($1, $2, $3)'
const deleteLinks = 'delete from stratos_backlink where uri = $1'
/**
 * Stores Changes that follow one another. The first statement moves the head, past all of them, and
 * refuses where it is not `before` the first.
 */
export function changeStatements(changes: readonly Change[]): Statement[] {
  const [first, last] = [changes[0], changes.at(-1)]
  if (first === undefined || last === undefined) return []
  for (const [index, { before }] of changes.entries()) {
    assert(index === 0 || before?.rev === changes[index - 1]?.after.rev, 'one follows the other')
  }
  return [moveHead(first.before, last), ...changes.flatMap(rowStatements)]
}

/** Refuses where the head is not `before`. */
export function moveHead(
  before: Head | undefined,
  { did, after, commit, time }: Pick<Change, 'did' | 'after' | 'commit' | 'time'>,
): Statement {
  const place = [after.cid, after.rev, after.seq, after.lastBlock, commit, time]
  return before === undefined
    ? { sql: insertHead, args: [did, ...place], rows: 1 }
    : { sql: updateHead, args: [did, before.rev, ...place], rows: 1 }
}

function rowStatements({ did, after, time, ops, outbox }: Change): Statement[] {
  return [
    eventStatement({ did, after, time }, ops.map(eventOp)),
    ...ops.flatMap((op) => opStatements(op, { rev: after.rev, time })),
    ...outbox.map(queueStatement),
  ]
}

/** What one commit did, for those who follow the repo. */
export function eventStatement(
  at: Pick<Change, 'did' | 'time'> & { readonly after: Pick<Head, 'rev' | 'seq'> },
  ops: readonly EventOp[],
): Statement {
  const { did, after, time } = at
  const args = [after.seq, did, time, after.rev, JSON.stringify({ ops })]
  return { sql: insertEvent, args, rows: 1 }
}

/** The links of an earlier record go, those of the new one come. */
function linkStatements({ uri, put, prev }: RecordOp): Statement[] {
  const gone = prev === undefined ? [] : [{ sql: deleteLinks, args: [uri] }]
  const links = put?.links ?? []
  return [...gone, ...links.map((link) => ({ sql: insertLink, args: [uri, link.path, link.uri] }))]
}

/** The rows of one record. */
export function opStatements(
  op: RecordOp,
  at: { readonly rev: Tid; readonly time: string },
): Statement[] {
  const { uri, collection, rkey, put } = op
  const boundaryRows = [
    ...op.before.map((name) => ({ sql: deleteBoundary, args: [name, collection, rkey], rows: 1 })),
    ...op.after.map((name) => ({ sql: insertBoundary, args: [name, collection, rkey], rows: 1 })),
    ...linkStatements(op),
    ...recordBlobStatements(uri, { before: op.prevBlobs ?? [], after: put?.blobs ?? [] }),
  ]
  const dropBlock = { sql: deleteBlock, args: [uri], rows: 1 }
  if (put === undefined) {
    const drop = { sql: deleteRecord, args: [uri, op.prev ?? null], rows: 1 }
    return [dropBlock, drop, ...boundaryRows]
  }
  const block = { sql: insertBlock, args: [put.blockId, put.content], rows: 1 }
  if (op.prev === undefined) {
    const args = [uri, put.cid, collection, rkey, at.rev, at.time, put.blockId]
    return [block, { sql: insertRecord, args, rows: 1 }, ...boundaryRows]
  }
  const args = [uri, op.prev, put.cid, at.rev, at.time, put.blockId]
  return [dropBlock, block, { sql: updateRecord, args, rows: 1 }, ...boundaryRows]
}

/** Facts of one operation as an event has them. */
export interface EventOp {
  readonly action: RecordOp['action']
  /** `collection/rkey` */
  readonly path: string
  readonly cid: Cid | null
  readonly prev: Cid | null
  readonly before: readonly string[]
  readonly after: readonly string[]
}

export function eventOp(op: RecordOp): EventOp {
  return {
    action: op.action,
    path: `${op.collection}/${op.rkey}`,
    cid: op.put?.cid ?? null,
    prev: op.prev ?? null,
    before: op.before,
    after: op.after,
  }
}
