import type { DataObject, DataValue } from '../atproto/data.ts'
import { isDataObject } from '../atproto/data.ts'
import { type AtUri, type Did, recordUri } from '../atproto/syntax.ts'
import type { IndexedOp } from './event.ts'

export type PutOp = Extract<IndexedOp, { readonly content: Uint8Array }>

/** A row of `stratos_post` by the names of its columns, and where it is to be seen. */
export interface PostRow {
  readonly service: Did
  readonly uri: AtUri
  readonly cid: string
  readonly rkey: string
  readonly creator: Did
  readonly text: string
  readonly replyRoot: string | null
  readonly replyRootCid: string | null
  readonly replyParent: string | null
  readonly replyParentCid: string | null
  readonly embed: DataValue
  readonly facets: DataValue
  readonly langs: readonly string[] | null
  readonly labels: DataValue
  readonly tags: readonly string[] | null
  /** Base64. */
  readonly record: string
  readonly createdAt: string
  readonly indexedAt: string
  readonly boundaries: readonly string[]
}

/**
 * @returns the row, and how many boundaries were left out for not belonging to the service
 * @throws RefusedPost where the record is no post
 */
export function postRow(
  { service, did }: { readonly service: Did; readonly did: Did },
  { collection, rkey, cid, content, record }: PutOp,
  indexedAtMs: number,
): { readonly row: PostRow; readonly foreign: number } {
  const { text, reply } = record
  if (record['$type'] !== collection) throw new RefusedPost('the record is of another type')
  if (typeof text !== 'string') throw new RefusedPost('the post has no text')
  const named = boundariesOf(record)
  const boundaries = named.filter((name) => belongsTo(service, name))
  const [root, parent] = isDataObject(reply) ? [reply['root'], reply['parent']] : []
  const row = {
    service,
    uri: recordUri(did, collection, rkey),
    cid,
    rkey,
    creator: did,
    text,
    replyRoot: member(root, 'uri'),
    replyRootCid: member(root, 'cid'),
    replyParent: member(parent, 'uri'),
    replyParentCid: member(parent, 'cid'),
    embed: record['embed'] ?? null,
    facets: record['facets'] ?? null,
    langs: texts(record['langs']),
    labels: record['labels'] ?? null,
    tags: texts(record['tags']),
    record: content.toBase64(),
    createdAt: new Date(saidMs(record['createdAt']) ?? indexedAtMs).toISOString(),
    indexedAt: new Date(indexedAtMs).toISOString(),
    boundaries,
  }
  return { row, foreign: named.length - boundaries.length }
}

/** A service that names boundaries of another one would show posts there, or read those. */
export function belongsTo(service: Did, boundary: string): boolean {
  return (
    boundary.startsWith(`${service}/`) &&
    boundary.length <= boundaryCharsMax &&
    !boundary.includes('\0')
  )
}

/** Rows as JSON without NUL characters, for which a text of PostgreSQL has no place. */
export function rowsJson(rows: readonly object[]): string {
  const json = JSON.stringify(rows)
  if (!json.includes(String.raw`\u0000`)) return json
  return JSON.stringify(rows, (_, value: unknown) => {
    if (typeof value === 'string') return value.replaceAll('\0', '')
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
    return Object.fromEntries(
      Object.entries(value).map(([key, one]) => [key.replaceAll('\0', ''), one]),
    )
  })
}

/** A record that cannot be a row; its message may be stored and shown, as it has nothing of it. */
export class RefusedPost extends Error {
  override readonly name = 'RefusedPost'
}

const boundaryCharsMax = 253
const boundariesMax = 10

function boundariesOf({ boundary }: DataObject): string[] {
  const values = isDataObject(boundary) ? boundary['values'] : undefined
  if (!Array.isArray(values)) throw new RefusedPost('the post has no boundaries')
  if (values.length > boundariesMax) throw new RefusedPost('the post has too many boundaries')
  const names = values.map((value: DataValue) => member(value, 'value'))
  const found = names.filter((name) => name !== null)
  if (found.length !== names.length) throw new RefusedPost('a boundary of the post has no name')
  return [...new Set(found)]
}

function member(value: DataValue | undefined, name: string): string | null {
  const found = isDataObject(value) ? value[name] : undefined
  return typeof found === 'string' ? found : null
}

function texts(value: DataValue | undefined): readonly string[] | null {
  if (!Array.isArray(value)) return null
  return value.filter((one: DataValue) => typeof one === 'string')
}

/** Undefined for what is no time, or one before years of four digits, which drivers misread. */
function saidMs(value: DataValue | undefined): number | undefined {
  if (typeof value !== 'string' || !isoPattern.test(value)) return undefined
  const ms = Date.parse(value)
  return ms >= firstMs && ms <= lastMs ? ms : undefined
}

const isoPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,20})?(?:Z|[+-]\d\d:\d\d)$/
const firstMs = Date.parse('1000-01-01T00:00:00Z')
const lastMs = Date.parse('9999-12-31T23:59:59Z')
