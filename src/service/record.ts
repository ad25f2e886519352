import { randomBytes } from 'node:crypto'
import { type Cid, cidForCbor, cidToString, type CidBytes } from '../atproto/cid.ts'
import { encode } from '../atproto/cbor.ts'
import { type DataValue, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Did, Nsid } from '../atproto/syntax.ts'
import { checkBoundaries } from './boundary.ts'
import { checkTargets, type Targets } from './targets.ts'

/** What the operator's configuration says about records; the same in every shard. */
export interface RecordRules {
  readonly serviceDid: Did
  /** Qualified boundaries that this service has. */
  readonly boundaries: readonly string[]
  /** Collections that hold private records. */
  readonly collections: readonly Nsid[]
}

/** What is known of the author and of the records pointed to, at the time of the call. */
export interface RecordFacts {
  readonly boundaries: readonly string[]
  readonly targets: Targets
}

/** A record that passed every rule, with its bytes. */
export interface EncodedRecord {
  readonly cid: Cid
  readonly cidBytes: CidBytes
  readonly content: Uint8Array
  readonly boundaries: readonly string[]
  /** The record's own `createdAt`, for the stub. */
  readonly createdAt: string | undefined
}

/**
 * Checks a record against every rule of this service and encodes it, with `$type` filled in and a
 * salt where it has none.
 * @throws XrpcError 400 with the name of the rule
 */
export function encodeRecord(
  collection: Nsid,
  value: unknown,
  context: { readonly rules: RecordRules; readonly facts: RecordFacts; readonly schemas: Schemas },
): EncodedRecord {
  const { rules, facts, schemas } = context
  const claimed = typed(collection, value)
  if ('source' in claimed) {
    throw invalidRecord('Record/source belongs to stubs and is not allowed in a private record')
  }
  const boundaries = checkBoundaries(Reflect.get(claimed, 'boundary'), {
    serviceDid: rules.serviceDid,
    allowed: rules.boundaries,
    own: facts.boundaries,
  })
  const record = schemas.checkRecord(collection, claimed)
  checkTargets(record, { boundaries, targets: facts.targets })
  refuseBlobs(record)
  const content = encode(record['salt'] === undefined ? { ...record, salt: freshSalt() } : record)
  if (content.length > recordBytesMax) {
    throw new XrpcError(
      400,
      'RecordTooLarge',
      `a record must not be larger than ${recordBytesMax} bytes, this one has ${content.length}`,
    )
  }
  const cidBytes = cidForCbor(content)
  const { createdAt } = record
  return {
    cid: cidToString(cidBytes),
    cidBytes,
    content,
    boundaries,
    createdAt: typeof createdAt === 'string' ? createdAt : undefined,
  }
}

/** @throws XrpcError 400 InvalidCollection for a collection that holds no private records here */
export function checkCollection(collection: Nsid, rules: RecordRules): void {
  if (rules.collections.includes(collection)) return
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
  throw invalidRecord(`Record/$type must be ${collection}`)
}

function freshSalt(): DataValue {
  return { $bytes: randomBytes(saltBytes).toString('base64').replaceAll('=', '') }
}

/** The service holds no blobs, so whatever a record names is missing. */
function refuseBlobs(value: DataValue): void {
  if (Array.isArray(value)) {
    for (const element of value) refuseBlobs(element)
    return
  }
  if (!isDataObject(value)) return
  if (value['$type'] === 'blob') {
    throw new XrpcError(400, 'BlobNotFound', 'the record names a blob that was not uploaded here')
  }
  if (typeof value['cid'] === 'string' && typeof value['mimeType'] === 'string') {
    throw invalidRecord('the record names a blob in the old form without "$type"')
  }
  for (const member of Object.values(value)) refuseBlobs(member)
}

function invalidRecord(message: string): XrpcError {
  return new XrpcError(400, 'InvalidRecord', message)
}
