import { type Cid, cidToString } from '../atproto/cid.ts'
import { decode } from '../atproto/cbor.ts'
import { type DataObject, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { SigningKey } from '../atproto/keys.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Mst } from '../atproto/mst.ts'
import {
  type AtUri,
  type Did,
  type Nsid,
  parseRkey,
  recordUri,
  type Rkey,
  type Tid,
} from '../atproto/syntax.ts'
import { nextTid } from '../atproto/tid.ts'
import { assert, unreachable } from '../lib/assert.ts'
import type { BlobFacts } from '../store/actor-blobs.ts'
import type { RecordOp } from '../store/actor-change.ts'
import type { OutboxEntry } from '../store/actor-outbox.ts'
import { checkBlobs, distinctCids, namedBlobs } from './blob.ts'
import { boundaryNames } from './boundary.ts'
import { type EncodedRecord, encodeRecord, type RecordRules, type StoredBefore } from './record.ts'
import { stubOf } from './stub.ts'
import { type Targets, targetUris } from './targets.ts'
import type { RepoState, WriteCall } from './write.ts'

export type WriteOp =
  | {
      readonly action: 'create'
      readonly collection: Nsid
      readonly rkey?: Rkey | undefined
      readonly record: unknown
      readonly validate?: boolean | undefined
    }
  | {
      /** `put` creates or replaces, `update` replaces what must be there. */
      readonly action: 'put' | 'update'
      readonly collection: Nsid
      readonly rkey: Rkey
      readonly record: unknown
      readonly validate?: boolean | undefined
      /** What must be there now, null for nothing. */
      readonly swapRecord?: Cid | null | undefined
    }
  | {
      readonly action: 'delete'
      readonly collection: Nsid
      readonly rkey: Rkey
      readonly swapRecord?: Cid | null | undefined
    }

/** What an operation did, or would have done where nothing changed. */
export interface WriteResult {
  readonly action: 'create' | 'update' | 'delete'
  readonly uri?: AtUri
  readonly cid?: Cid
  /** Whether the record was held against a lexicon. */
  readonly validationStatus?: 'valid' | 'unknown'
}

export interface WriteRules extends RecordRules {
  /** Fragment of the service's entry in did.json, which stubs point to. */
  readonly fragment: string
}

export interface WriteContext {
  readonly did: Did
  readonly key: SigningKey
  readonly rules: WriteRules
  readonly schemas: Schemas
  readonly clockId: number
  readonly nowMs: number
  /** Nothing is logged up to there any more, whatever the time is. */
  readonly vouched: number
  /** Content of a stored record. */
  content(collection: Nsid, rkey: Rkey): Promise<Uint8Array | undefined>
  /** A blob that records may name. */
  blob(cid: Cid): Promise<BlobFacts | undefined>
}

/** A record that was written and not stored yet. */
export interface FreshRecord {
  readonly content: Uint8Array
  readonly boundaries: readonly string[]
}

/** A repo on its way from one commit to the next. */
export class Draft {
  tree: Mst
  lastBlock: number
  /** Record keys that are made from now on are above it. */
  lastKey: Tid
  readonly fresh: Map<string, FreshRecord>
  /** What this very write did at which URI: boundaries, or nothing where it deleted. */
  readonly done = new Map<string, readonly string[] | undefined>()

  constructor({ head, tree, fresh }: RepoState) {
    this.tree = tree
    this.lastKey = head.rev
    this.lastBlock = head.lastBlock
    this.fresh = new Map(fresh)
  }
}

interface PlannedOp {
  /** Absent where nothing changes. */
  readonly recordOp?: RecordOp
  readonly entry?: OutboxEntry
  readonly result: WriteResult
}

type OpOf<Action extends WriteOp['action']> = Extract<WriteOp, { readonly action: Action }>
type Asked<Op> = { readonly call: WriteCall; readonly op: Op }

/** Decides one operation on the draft, which it moves on. */
export async function planOp(
  draft: Draft,
  { call, op }: Asked<WriteOp>,
  context: WriteContext,
): Promise<PlannedOp> {
  switch (op.action) {
    case 'create':
      return await planCreate(draft, { call, op }, context)
    case 'put':
    case 'update':
      return await planPut(draft, { call, op }, context)
    case 'delete':
      return await planDelete(draft, { call, op }, context)
    default:
      return unreachable(op)
  }
}

async function planCreate(
  draft: Draft,
  { call, op }: Asked<OpOf<'create'>>,
  context: WriteContext,
): Promise<PlannedOp> {
  const { collection, record, validate } = op
  const targets = targetsNow(draft, call, record)
  const facts = { boundaries: call.boundaries, targets, validate }
  const encoded = encodeRecord(collection, record, { ...context, facts })
  await checkRecordBlobs(encoded, { call }, context)
  const rkey = op.rkey ?? freshRkey(draft, collection, context)
  const path = `${collection}/${rkey}`
  if (draft.tree.get(path) !== undefined) {
    throw new XrpcError(409, 'RecordAlreadyExists', `there already is a record ${path}`)
  }
  return placed(draft, { call, collection, rkey, encoded }, context)
}

async function planPut(
  draft: Draft,
  { call, op }: Asked<OpOf<'put' | 'update'>>,
  context: WriteContext,
): Promise<PlannedOp> {
  const { collection, rkey, record, validate, action } = op
  const prev = presentAt(draft, op)
  checkSwap(prev, op.swapRecord)
  if (prev === undefined && action === 'update') {
    throw new XrpcError(404, 'RecordNotFound', `there is no record ${collection}/${rkey}`)
  }
  const before = prev === undefined ? undefined : await storedBefore(draft, { op, prev }, context)
  const targets = targetsNow(draft, call, record)
  const facts = { boundaries: call.boundaries, targets, validate, before }
  const encoded = encodeRecord(collection, record, { ...context, facts })
  if (prev !== undefined && encoded.cid === prev) {
    const uri = recordUri(context.did, collection, rkey)
    const { validationStatus } = encoded
    return { result: { action: 'update', uri, cid: prev, validationStatus } }
  }
  await checkRecordBlobs(encoded, { call }, context)
  return placed(draft, { call, collection, rkey, encoded, before }, context)
}

async function planDelete(
  draft: Draft,
  { call, op }: Asked<OpOf<'delete'>>,
  context: WriteContext,
): Promise<PlannedOp> {
  const { collection, rkey } = op
  const prev = presentAt(draft, op)
  checkSwap(prev, op.swapRecord)
  if (prev === undefined) return { result: { action: 'delete' } }
  const { record, boundaries: before } = await storedBefore(draft, { op, prev }, context)
  const uri = recordUri(context.did, collection, rkey)
  const path = `${collection}/${rkey}`
  draft.tree = draft.tree.delete(path)
  draft.fresh.delete(path)
  draft.done.set(uri, undefined)
  // A stub of times when there were some has to go with its record, too.
  const gone = { collection, rkey, record: null } as const
  return {
    recordOp: { action: 'delete', uri, collection, rkey, prev, before, after: [], ...left(record) },
    entry: call.stubs.includes(collection) ? gone : { ...gone, onlyKnown: true },
    result: { action: 'delete' },
  }
}

interface Placing {
  readonly call: WriteCall
  readonly collection: Nsid
  readonly rkey: Rkey
  readonly encoded: EncodedRecord
  readonly before?: StoredBefore | undefined
}

/** Puts a checked record at its key, with its stub where the PDS takes one. */
function placed(
  draft: Draft,
  { call, collection, rkey, encoded, before }: Placing,
  { did, rules, nowMs }: WriteContext,
): PlannedOp {
  const { cid, cidBytes, content, boundaries, links, validationStatus } = encoded
  const uri = recordUri(did, collection, rkey)
  const path = `${collection}/${rkey}`
  draft.lastBlock += 1
  draft.tree = draft.tree.set(path, cidBytes)
  draft.fresh.set(path, { content, boundaries })
  draft.done.set(uri, boundaries)
  const action = before === undefined ? 'create' : 'update'
  const recordOp: RecordOp = {
    action,
    uri,
    collection,
    rkey,
    put: { cid, content, blockId: draft.lastBlock, links, ...named(encoded.blobs) },
    ...(before === undefined ? {} : { prev: before.cid, ...left(before.record) }),
    before: before?.boundaries ?? [],
    after: boundaries,
  }
  const result = { action, uri, cid, validationStatus } as const
  const takesStub = call.stubs.includes(collection)
  // One that stands, or waits for the person to sign in anew, must not point to the record before.
  const keepsStub = action === 'update' && call.keepsStubs === true
  if (!takesStub && !keepsStub) return { recordOp, result }
  const createdAt = encoded.createdAt ?? new Date(nowMs).toISOString()
  const stub = stubOf({ collection, uri, cid, createdAt, rules })
  const entry = { collection, rkey, record: JSON.stringify(stub) } as const
  return { recordOp, entry: takesStub ? entry : { ...entry, onlyKnown: true }, result }
}

/** @throws XrpcError 400 BlobNotFound for one that is taken down, too */
async function checkRecordBlobs(
  { blobs }: EncodedRecord,
  { call }: Pick<Asked<WriteOp>, 'call'>,
  context: WriteContext,
): Promise<void> {
  await checkBlobs(blobs, async (cid) =>
    call.takendownBlobs.includes(cid) ? undefined : await context.blob(cid),
  )
}

/** Most records name no blobs, and their Changes say nothing of any. */
function named(blobs: readonly BlobFacts[]) {
  return blobs.length === 0 ? {} : { blobs: distinctCids(blobs) }
}

function left(before: DataObject) {
  const blobs = namedBlobs(before)
  return blobs.length === 0 ? {} : { prevBlobs: distinctCids(blobs) }
}

function presentAt(draft: Draft, op: { collection: Nsid; rkey: Rkey }): Cid | undefined {
  const present = draft.tree.get(`${op.collection}/${op.rkey}`)
  return present === undefined ? undefined : cidToString(present)
}

function checkSwap(present: Cid | undefined, wanted: Cid | null | undefined): void {
  if (wanted === undefined || wanted === (present ?? null)) return
  throw new XrpcError(
    400,
    'InvalidSwap',
    `the record is ${present ?? 'absent'}, not ${wanted ?? 'absent'}`,
  )
}

/** The record that is there now, whether stored or written a moment ago. */
async function storedBefore(
  draft: Draft,
  { op, prev: cid }: { readonly op: { collection: Nsid; rkey: Rkey }; readonly prev: Cid },
  context: WriteContext,
): Promise<StoredBefore> {
  const fresh = draft.fresh.get(`${op.collection}/${op.rkey}`)
  const content = fresh?.content ?? (await context.content(op.collection, op.rkey))
  assert(content !== undefined, 'a record in the tree has a row')
  const record = decode(content)
  assert(isDataObject(record), 'a record is a map')
  return { cid, record, boundaries: fresh?.boundaries ?? boundariesOf(record) }
}

function boundariesOf(record: DataObject): readonly string[] {
  return boundaryNames(record['boundary'])
}

/** What is known of the records that `record` points to, with what this very write did. */
function targetsNow(draft: Draft, call: WriteCall, record: unknown): Targets {
  if (draft.done.size === 0) return call.targets
  const known: Record<string, readonly string[]> = { ...call.targets }
  for (const uri of targetUris(record)) {
    if (!draft.done.has(uri)) continue
    const boundaries = draft.done.get(uri)
    const hidden = call.takendown.some((one) => one === uri)
    if (boundaries === undefined || hidden) delete known[uri]
    else known[uri] = boundaries
  }
  return known
}

/** A record key of now that is free; staying above the head's rev keeps keys of one instant apart. */
function freshRkey(draft: Draft, collection: Nsid, { nowMs, clockId }: WriteContext): Rkey {
  do {
    draft.lastKey = nextTid({ nowMs, clockId, after: draft.lastKey })
  } while (draft.tree.get(`${collection}/${draft.lastKey}`) !== undefined)
  return parseRkey(draft.lastKey)
}
