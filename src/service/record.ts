import { randomBytes } from 'node:crypto'
import { type Cid, cidForCbor, cidToString, type CidBytes } from '../atproto/cid.ts'
import { encode } from '../atproto/cbor.ts'
import { type DataObject, type DataValue, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Did, Nsid } from '../atproto/syntax.ts'
import type { BlobFacts } from '../store/actor-blobs.ts'
import { namedBlobs } from './blob.ts'
import { checkBoundaries } from './boundary.ts'
import { isPrivate } from './collections.ts'
import { checkPost, postCollection } from './post.ts'
import { saidTime } from './stub.ts'
import { checkTargets, type Link, linksOf, type Targets } from './targets.ts'

/** What the operator's configuration says about records; the same in every shard. */
export interface RecordRules {
  readonly serviceDid: Did
  /** Qualified boundaries that this service has. */
  readonly boundaries: readonly string[]
  /** Collections that hold private records: NSIDs, and beginnings of some with `.*`. */
  readonly collections: readonly string[]
}

/** What is known of the author and of the records pointed to, at the time of the call. */
export interface RecordFacts {
  readonly boundaries: readonly string[]
  readonly targets: Targets
}

/** The record that another one is to replace. */
export interface StoredBefore {
  readonly cid: Cid
  readonly record: DataObject
  readonly boundaries: readonly string[]
}

/** A record that passed every rule, with its bytes. */
export interface EncodedRecord {
  readonly cid: Cid
  readonly cidBytes: CidBytes
  readonly content: Uint8Array
  readonly boundaries: readonly string[]
  /** The record's own `createdAt`, for the stub, where it is a time. */
  readonly createdAt: string | undefined
  /** What it answers and quotes. */
  readonly links: readonly Link[]
  /** The blobs that it names, as it describes them. */
  readonly blobs: readonly BlobFacts[]
  /** Whether there was a lexicon to hold it against. */
  readonly validationStatus: 'valid' | 'unknown'
}

/** What a record is held against. */
interface Measures {
  readonly rules: RecordRules
  /** The author's boundaries. */
  readonly own: readonly string[]
  readonly schemas: Schemas
  /** True insists on a lexicon, false does without one where there is none. */
  readonly validate?: boolean | undefined
}

interface Encoding extends Pick<Measures, 'rules' | 'schemas'> {
  readonly facts: RecordFacts & {
    readonly validate?: boolean | undefined
    readonly before?: StoredBefore | undefined
  }
}

/**
 * Checks a record against every rule of this service and encodes it, with `$type` filled in and a
 * salt where it has none. What says the same as the record before it, salt aside, comes out as that.
 * Whether its blobs are here is not known yet.
 * @throws XrpcError 400 with the name of the rule
 */
export function encodeRecord(
  collection: Nsid,
  value: unknown,
  { rules, facts, schemas }: Encoding,
): EncodedRecord {
  const { before, validate, targets, boundaries: own } = facts
  const claimed = typed(collection, value)
  const checked = checkRecord(collection, claimed, { rules, own, schemas, validate })
  const { record, boundaries, validationStatus } = checked
  checkTargets(record, { boundaries, targets, before })
  const { content, cidBytes, cid } = salted(record, before)
  checkSize(content)
  return { cid, cidBytes, content, boundaries, ...factsOf(record), validationStatus }
}

/** What is kept of a record of an import, beside its bytes. */
export type KeptRecord = Pick<EncodedRecord, 'boundaries' | 'createdAt' | 'links' | 'blobs'>

/**
 * The rules for a record that comes as bytes with its CID: nothing is filled in. Its blobs may be
 * missing, and what it answers and quotes is not looked at.
 * @throws XrpcError 400 with the name of the rule
 */
export function checkKept(
  collection: Nsid,
  { record, content }: { readonly record: DataObject; readonly content: Uint8Array },
  measures: Omit<Measures, 'validate'>,
): KeptRecord {
  checkCollection(collection, measures.rules)
  checkSize(content)
  if (record['$type'] !== collection) throw otherType(collection)
  const { boundaries } = checkRecord(collection, record, measures)
  return { boundaries, ...factsOf(record) }
}

/** The rules that hold for every record by itself. */
function checkRecord(
  collection: Nsid,
  claimed: object,
  { rules, own, schemas, validate }: Measures,
): { record: DataObject; boundaries: string[]; validationStatus: 'valid' | 'unknown' } {
  if ('source' in claimed) {
    throw invalidRecord('Record/source belongs to stubs and is not allowed in a private record')
  }
  const { serviceDid, boundaries: allowed } = rules
  const boundaries = checkBoundaries(Reflect.get(claimed, 'boundary'), { serviceDid, allowed, own })
  const { record, validationStatus } = held(collection, claimed, { schemas, validate })
  if (collection === postCollection) checkPost(record)
  if (hasOldBlob(record)) {
    throw invalidRecord('the record names a blob in the old form without "$type"')
  }
  return { record, boundaries, validationStatus }
}

function factsOf(record: DataObject): Pick<EncodedRecord, 'createdAt' | 'links' | 'blobs'> {
  return { createdAt: saidTime(record), links: linksOf(record), blobs: namedBlobs(record) }
}

function checkSize({ length }: Uint8Array): void {
  if (length <= recordBytesMax) return
  const message = `a record must not be larger than ${recordBytesMax} bytes, this one has ${length}`
  throw new XrpcError(400, 'RecordTooLarge', message)
}

/** The record as data, held against its lexicon where there is one. */
function held(
  collection: Nsid,
  claimed: object,
  { schemas, validate }: { schemas: Schemas; validate: boolean | undefined },
): { record: DataObject; validationStatus: 'valid' | 'unknown' } {
  const kind = schemas.kindOf(collection)
  if (kind !== undefined && kind !== 'record') {
    throw invalidRecord(`${collection} is the name of no record but of a ${kind}`)
  }
  if (kind === 'record') {
    return { record: schemas.checkRecord(collection, claimed), validationStatus: 'valid' }
  }
  if (validate === true) {
    throw invalidRecord(`this service has no lexicon of ${collection} to validate it by`)
  }
  return { record: schemas.checkUnknown(claimed), validationStatus: 'unknown' }
}

function salted(record: DataObject, before: StoredBefore | undefined) {
  if (record['salt'] !== undefined) return encoded(record)
  const salt = before?.record['salt']
  if (before !== undefined && salt !== undefined) {
    const same = encoded({ ...record, salt })
    if (same.cid === before.cid) return same
  }
  return encoded({ ...record, salt: freshSalt() })
}

function encoded(record: DataObject) {
  const content = encode(record)
  const cidBytes = cidForCbor(content)
  return { content, cidBytes, cid: cidToString(cidBytes) }
}

/** @throws XrpcError 400 InvalidCollection for a collection that holds no private records here */
export function checkCollection(collection: Nsid, rules: RecordRules): void {
  if (isPrivate(collection, rules.collections)) return
  throw new XrpcError(
    400,
    'InvalidCollection',
    `${collection} does not hold private records on this service`,
  )
}

/** Bytes of one record's DAG-CBOR. */
const recordBytesMax = 256 * 1024
/** So that nobody can guess a short text and confirm the guess by its published CID. */
const saltBytes = 16

function typed(collection: Nsid, value: unknown): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidRecord('Record must be an object')
  }
  const type: unknown = Reflect.get(value, '$type')
  if (type === undefined) return { $type: collection, ...value }
  if (type === collection) return value
  throw otherType(collection)
}

function freshSalt(): DataValue {
  return { $bytes: randomBytes(saltBytes).toString('base64').replaceAll('=', '') }
}

/** Whether an object in it, however deep, is a blob of the old form. */
function hasOldBlob(value: DataValue): boolean {
  if (Array.isArray(value)) return value.some(hasOldBlob)
  if (!isDataObject(value)) return false
  const { cid, mimeType } = value
  if (typeof cid === 'string' && typeof mimeType === 'string') return true
  return Object.values(value).some(hasOldBlob)
}

function otherType(collection: Nsid): XrpcError {
  return invalidRecord(`Record/$type must be ${collection}`)
}

function invalidRecord(message: string): XrpcError {
  return new XrpcError(400, 'InvalidRecord', message)
}
