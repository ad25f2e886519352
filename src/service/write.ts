import { type Cid, cidToString } from '../atproto/cid.ts'
import { signCommit } from '../atproto/commit.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { Mst } from '../atproto/mst.ts'
import type { AtUri, Nsid, Rkey, Tid } from '../atproto/syntax.ts'
import { nextTid, tidMicros } from '../atproto/tid.ts'
import { assert } from '../lib/assert.ts'
import type { Change, Head, RecordOp } from '../store/actor-change.ts'
import type { OutboxEntry } from '../store/actor-outbox.ts'
import type { RepoNumbers } from '../store/departure.ts'
import { checkCollection, type RecordFacts } from './record.ts'
import {
  Draft,
  type FreshRecord,
  planOp,
  type WriteContext,
  type WriteOp,
  type WriteResult,
} from './write-op.ts'

/** Any number of operations that become one commit, or change nothing. */
export interface WriteCall extends RecordFacts {
  readonly ops: readonly WriteOp[]
  readonly swapCommit?: Cid | undefined
  /** Collections whose stubs the author's PDS takes. */
  readonly stubs: readonly Nsid[]
  /** In other collections, too, a stub of before is to go on pointing to what is there. */
  readonly keepsStubs?: boolean
  /** The author's own records that are taken down: nobody answers or quotes them. */
  readonly takendown: readonly AtUri[]
  /** Blobs of theirs that are taken down: no record comes to name them. */
  readonly takendownBlobs: readonly Cid[]
}

/** A repo as a value: a write makes a new one and leaves this one as it was. */
export interface RepoState {
  readonly head: Head
  readonly tree: Mst
  /** Records written since the state was loaded, which no row shows yet; by path. */
  readonly fresh: ReadonlyMap<string, FreshRecord>
}

export interface WriteAnswer {
  /** One for each operation, in order. */
  readonly results: readonly WriteResult[]
  /** Absent where nothing changed. */
  readonly commit?: { readonly cid: Cid; readonly rev: Tid }
  /** Whether the record of some blob came or went. */
  readonly touchesBlobs?: true
}

export interface Planned {
  readonly state: RepoState
  /** Absent where nothing changes. */
  readonly change?: Change
  readonly answer: WriteAnswer
}

/**
 * Decides a write against `state` and computes its Change. Each operation is decided on what the
 * ones before it left. Nothing is stored here; whoever stores the Change goes on with the new state.
 * @throws XrpcError for the first operation that is refused, with the state untouched
 */
export async function planWrite(
  state: RepoState,
  call: WriteCall,
  context: WriteContext,
): Promise<Planned> {
  for (const op of call.ops) {
    // What was written while its collection held private records can be taken away for ever.
    if (op.action === 'delete' && isPresent(state, op)) continue
    checkCollection(op.collection, context.rules)
  }
  if (call.swapCommit !== undefined && call.swapCommit !== state.head.cid) {
    const message = `the commit is ${state.head.cid}, not ${call.swapCommit}`
    throw new XrpcError(400, 'InvalidSwap', message)
  }
  const draft = new Draft(state)
  const ops: RecordOp[] = []
  const outbox: OutboxEntry[] = []
  const results: WriteResult[] = []
  for (const op of call.ops) {
    const planned = await planOp(draft, { call, op }, context)
    if (planned.recordOp !== undefined) ops.push(planned.recordOp)
    if (planned.entry !== undefined) outbox.push(planned.entry)
    results.push(planned.result)
  }
  if (ops.length === 0) return { state, answer: { results } }
  const { tree, fresh } = draft
  const change = commitChange({ tree, before: state.head, ops, outbox }, context)
  const commit = { cid: change.after.cid, rev: change.after.rev }
  const touchesBlobs = ops.some(({ put, prevBlobs }) => (put?.blobs ?? prevBlobs) !== undefined)
  const answer = { results, commit, ...(touchesBlobs ? { touchesBlobs } : {}) }
  return { state: { head: change.after, tree, fresh }, change, answer }
}

function isPresent(
  { tree }: RepoState,
  { collection, rkey }: { readonly collection: Nsid; readonly rkey: Rkey },
): boolean {
  return tree.get(`${collection}/${rkey}`) !== undefined
}

/** The first commit of a repo, of an empty tree, with what its PDS has to be told. */
export function planFirst(
  first: {
    readonly tree: Mst
    readonly outbox: readonly OutboxEntry[]
    /** Where the repo stood that its owner had here before. */
    readonly after?: RepoNumbers | undefined
  },
  context: CommitContext,
): Change {
  return commitChange({ ...first, before: undefined, ops: [] }, context)
}

type CommitContext = Pick<WriteContext, 'did' | 'key' | 'clockId' | 'nowMs' | 'vouched'>

interface CommitFacts {
  readonly tree: Mst
  readonly before: Head | undefined
  readonly ops: readonly RecordOp[]
  readonly outbox: readonly OutboxEntry[]
  /** Without a head, what the numbers continue, if anything. */
  readonly after?: RepoNumbers | undefined
}

/**
 * The place in its log of what was made with `rev`. As a time it grows whatever else was made in
 * between, so that it tells readers who see little nothing of the rest.
 */
export function nextSeq(rev: Tid, after = 0): number {
  return Math.max(after + 1, tidMicros(rev))
}

function commitChange(
  { tree, before, ops, outbox, ...first }: CommitFacts,
  { did, key, clockId, nowMs, vouched }: CommitContext,
): Change {
  const last: RepoNumbers | undefined = before ?? first.after
  const rev = nextTid({ nowMs, clockId, after: last?.rev })
  assert(last === undefined || rev > last.rev, 'rev must grow')
  const commit = signCommit({ did, data: tree.rootCid(), rev }, key)
  const blocks = ops.filter((op) => op.put !== undefined).length
  const after: Head = {
    cid: cidToString(commit.cid),
    rev,
    seq: nextSeq(rev, Math.max(last?.seq ?? 0, vouched)),
    lastBlock: (before?.lastBlock ?? 0) + blocks,
  }
  const time = new Date(nowMs).toISOString()
  return { did, before, after, commit: commit.bytes, time, ops, outbox }
}
