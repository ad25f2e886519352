import { type Cid, cidToString } from '../atproto/cid.ts'
import { decode } from '../atproto/cbor.ts'
import { signCommit } from '../atproto/commit.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { SigningKey } from '../atproto/keys.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Mst } from '../atproto/mst.ts'
import {
  type Did,
  type Nsid,
  parseRkey,
  recordUri,
  type Rkey,
  type Tid,
} from '../atproto/syntax.ts'
import { nextTid } from '../atproto/tid.ts'
import { assert, unreachable } from '../lib/assert.ts'
import type { Change, Head, RecordOp } from '../store/actor.ts'
import type { OutboxEntry } from '../store/actor-outbox.ts'
import type { RepoNumbers } from '../store/departure.ts'
import { boundaryNames } from './boundary.ts'
import { checkCollection, encodeRecord, type RecordFacts, type RecordRules } from './record.ts'
import { stubOf } from './stub.ts'

export type WriteOp =
  | {
      readonly action: 'create'
      readonly collection: Nsid
      readonly rkey?: Rkey | undefined
      readonly record: unknown
    }
  | {
      readonly action: 'delete'
      readonly collection: Nsid
      readonly rkey: Rkey
      readonly swapRecord?: Cid | undefined
    }

export interface WriteCall extends RecordFacts {
  readonly op: WriteOp
  readonly swapCommit?: Cid | undefined
  /** Collections whose stubs the author's PDS takes. */
  readonly stubs: readonly Nsid[]
}

export interface WriteRules extends RecordRules {
  /** Fragment of the service's entry in did.json, which stubs point to. */
  readonly fragment: string
}

/** A repo as a value: a write makes a new one and leaves this one as it was. */
export interface RepoState {
  readonly head: Head
  readonly tree: Mst
  /** Boundaries of records written since the state was loaded, which no row shows yet. */
  readonly fresh: ReadonlyMap<string, readonly string[]>
}

export interface WriteContext {
  readonly did: Did
  readonly key: SigningKey
  readonly rules: WriteRules
  readonly schemas: Schemas
  readonly clockId: number
  readonly nowMs: number
  /** Content of a stored record, for the boundaries it had. */
  content(collection: Nsid, rkey: Rkey): Promise<Uint8Array | undefined>
}

export interface WriteAnswer {
  readonly uri?: string
  readonly cid?: Cid
  /** Absent where nothing changed. */
  readonly commit?: { readonly cid: Cid; readonly rev: Tid }
}

export interface Planned {
  readonly state: RepoState
  /** Absent where nothing changes. */
  readonly change?: Change
  readonly answer: WriteAnswer
}

/**
 * Decides one write against `state` and computes its Change. Nothing is stored here; whoever stores
 * the Change goes on with the new state.
 * @throws XrpcError for every refusal, with the state untouched
 */
export async function planWrite(
  state: RepoState,
  call: WriteCall,
  context: WriteContext,
): Promise<Planned> {
  checkCollection(call.op.collection, context.rules)
  if (call.swapCommit !== undefined && call.swapCommit !== state.head.cid) {
    throw invalidSwap(`the commit is ${state.head.cid}, not ${call.swapCommit}`)
  }
  switch (call.op.action) {
    case 'create':
      return planCreate(state, { call, op: call.op }, context)
    case 'delete':
      return await planDelete(state, { call, op: call.op }, context)
    default:
      return unreachable(call.op)
  }
}

/** The first commit of a repo, of an empty tree, with what its PDS has to be told. */
export function planFirst(
  first: {
    readonly tree: Mst
    readonly outbox: readonly OutboxEntry[]
    /** Where the repo stood that its owner had here before. */
    readonly after?: RepoNumbers | undefined
  },
  context: Pick<WriteContext, 'did' | 'key' | 'clockId' | 'nowMs'>,
): Change {
  return commitChange({ ...first, before: undefined, ops: [] }, context)
}

type CallWith<Op> = { readonly call: WriteCall; readonly op: Op }

function planCreate(
  state: RepoState,
  { call, op }: CallWith<Extract<WriteOp, { action: 'create' }>>,
  context: WriteContext,
): Planned {
  const { collection } = op
  const encoded = encodeRecord(collection, op.record, { ...context, facts: call })
  const rkey = op.rkey ?? freshRkey(state, collection, context)
  const path = `${collection}/${rkey}`
  if (state.tree.get(path) !== undefined) {
    throw new XrpcError(409, 'RecordAlreadyExists', `there already is a record ${path}`)
  }
  const uri = recordUri(context.did, collection, rkey)
  const blockId = state.head.lastBlock + 1
  const { cid, content, boundaries } = encoded
  const put = { cid, content, blockId }
  const recordOp: RecordOp = {
    action: 'create',
    uri,
    collection,
    rkey,
    put,
    before: [],
    after: boundaries,
  }
  const createdAt = encoded.createdAt ?? isoTime(context.nowMs)
  const stub = stubOf({ collection, uri, cid, createdAt, rules: context.rules })
  const outbox = call.stubs.includes(collection)
    ? [{ collection, rkey, record: JSON.stringify(stub) }]
    : []
  const tree = state.tree.set(path, encoded.cidBytes)
  const change = commitChange({ tree, before: state.head, ops: [recordOp], outbox }, context)
  const fresh = new Map(state.fresh).set(path, boundaries)
  return {
    state: { head: change.after, tree, fresh },
    change,
    answer: { uri, cid, commit: { cid: change.after.cid, rev: change.after.rev } },
  }
}

async function planDelete(
  state: RepoState,
  { call, op }: CallWith<Extract<WriteOp, { action: 'delete' }>>,
  context: WriteContext,
): Promise<Planned> {
  const { collection, rkey } = op
  const path = `${collection}/${rkey}`
  const present = state.tree.get(path)
  const prev = present === undefined ? undefined : cidToString(present)
  if (op.swapRecord !== undefined && op.swapRecord !== prev) {
    throw invalidSwap(`the record is ${prev ?? 'absent'}, not ${op.swapRecord}`)
  }
  if (prev === undefined) return { state, answer: {} }
  const before = state.fresh.get(path) ?? (await storedBoundaries(op, context))
  const uri = recordUri(context.did, collection, rkey)
  const recordOp: RecordOp = { action: 'delete', uri, collection, rkey, prev, before, after: [] }
  // A stub of times when there were some has to go with its record, too.
  const anyhow = call.stubs.includes(collection)
  const gone = { collection, rkey, record: null } as const
  const outbox: OutboxEntry[] = [anyhow ? gone : { ...gone, onlyKnown: true }]
  const tree = state.tree.delete(path)
  const change = commitChange({ tree, before: state.head, ops: [recordOp], outbox }, context)
  return {
    state: { head: change.after, tree, fresh: state.fresh },
    change,
    answer: { commit: { cid: change.after.cid, rev: change.after.rev } },
  }
}

interface CommitFacts {
  readonly tree: Mst
  readonly before: Head | undefined
  readonly ops: readonly RecordOp[]
  readonly outbox: readonly OutboxEntry[]
  /** Without a head, what the numbers continue, if anything. */
  readonly after?: RepoNumbers | undefined
}

function commitChange(
  { tree, before, ops, outbox, ...first }: CommitFacts,
  context: Pick<WriteContext, 'did' | 'key' | 'clockId' | 'nowMs'>,
): Change {
  const { did, key, clockId, nowMs } = context
  const last: RepoNumbers | undefined = before ?? first.after
  const rev = nextTid({ nowMs, clockId, after: last?.rev })
  assert(last === undefined || rev > last.rev, 'rev must grow')
  const commit = signCommit({ did, data: tree.rootCid(), rev }, key)
  const blocks = ops.filter((op) => op.put !== undefined).length
  const after: Head = {
    cid: cidToString(commit.cid),
    rev,
    seq: (last?.seq ?? 0) + 1,
    lastBlock: (before?.lastBlock ?? 0) + blocks,
  }
  return { did, before, after, commit: commit.bytes, time: isoTime(nowMs), ops, outbox }
}

/** A record key of now that is free; staying above the head's rev keeps keys of one instant apart. */
function freshRkey(state: RepoState, collection: Nsid, context: WriteContext): Rkey {
  const { nowMs, clockId } = context
  let rkey = nextTid({ nowMs, clockId, after: state.head.rev })
  while (state.tree.get(`${collection}/${rkey}`) !== undefined) {
    rkey = nextTid({ nowMs, clockId, after: rkey })
  }
  return parseRkey(rkey)
}

async function storedBoundaries(
  op: { readonly collection: Nsid; readonly rkey: Rkey },
  context: WriteContext,
): Promise<readonly string[]> {
  const content = await context.content(op.collection, op.rkey)
  assert(content !== undefined, 'a record in the tree has a row')
  const record = decode(content)
  assert(typeof record === 'object' && record !== null, 'a record is an object')
  return boundaryNames(Reflect.get(record, 'boundary'))
}

function isoTime(nowMs: number): string {
  return new Date(nowMs).toISOString()
}

function invalidSwap(message: string): XrpcError {
  return new XrpcError(400, 'InvalidSwap', message)
}
