import { beforeEach, describe, expect, test } from 'bun:test'
import { type Cid, cidForCbor, cidToString, equalCids, parseCid } from '../../src/atproto/cid.ts'
import { verifyCommit } from '../../src/atproto/commit.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { isTid, type Nsid, parseNsid, parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import {
  nextSeq,
  planFirst,
  type Planned,
  planWrite,
  type RepoState,
  type WriteCall,
} from '../../src/service/write.ts'
import type { WriteContext, WriteOp } from '../../src/service/write-op.ts'
import type { Change } from '../../src/store/actor-change.ts'
import { failureOf } from '../kit/wait.ts'
import { a, author, b, boundary, collection, createdAt, post, rules, schemas } from './posts.ts'

const key = SigningKey.generate()
const nowMs = Date.UTC(2026, 10, 23)
const otherCid = parseCid('bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq')
/** Contents of what was written, by path: what the rows of an actor would show. */
const rows = new Map<string, Uint8Array>()

let state: RepoState

beforeEach(() => {
  rows.clear()
  const first = planFirst({ tree: Mst.empty, outbox: [] }, context())
  state = { head: first.after, tree: Mst.empty, fresh: new Map() }
})

describe('a refused write leaves the state as it was', () => {
  const refusals: [string, () => Partial<WriteCall> & { op: WriteOp }, object][] = [
    [
      'to a collection without private records',
      () => ({ op: creating({ collection: parseNsid('zone.stratos.actor.enrollment') }) }),
      { status: 400, error: 'InvalidCollection' },
    ],
    [
      'that deletes from one',
      () => ({ op: deleting('one', { collection: parseNsid('app.bsky.feed.post') }) }),
      { status: 400, error: 'InvalidCollection' },
    ],
    [
      'to a wrong collection on a stale commit',
      () => ({ op: creating({ collection: parseNsid('a.b.c') }), swapCommit: otherCid }),
      { status: 400, error: 'InvalidCollection' },
    ],
    [
      'on a stale commit',
      () => ({ op: creating({ record: 'nonsense' }), swapCommit: otherCid }),
      { status: 400, error: 'InvalidSwap' },
    ],
    [
      'that deletes on a stale commit',
      () => ({ op: deleting('one'), swapCommit: otherCid }),
      { status: 400, error: 'InvalidSwap' },
    ],
    [
      'of a record that breaks a rule, at a key that is taken',
      () => ({ op: creating({ rkey: parseRkey('one'), record: post({ text: 1 }) }) }),
      { status: 400, error: 'InvalidRecord' },
    ],
    [
      'into a boundary that the author is not in',
      () => ({ op: creating({}), boundaries: [b] }),
      { status: 400, error: 'ForbiddenBoundary' },
    ],
    [
      'at a key that is taken',
      () => ({ op: creating({ rkey: parseRkey('one') }) }),
      { status: 409, error: 'RecordAlreadyExists' },
    ],
    [
      'that deletes another version',
      () => ({ op: deleting('one', { swapRecord: otherCid }) }),
      { status: 400, error: 'InvalidSwap' },
    ],
    [
      'that deletes a version of what is not there',
      () => ({ op: deleting('absent', { swapRecord: otherCid }) }),
      { status: 400, error: 'InvalidSwap' },
    ],
  ]
  test.each(refusals)('%s', async (_, call, refusal) => {
    await write({ op: creating({ rkey: parseRkey('one') }) })
    const before = snapshot()
    const { op, ...others } = call()
    expect(await failureOf(plan({ op, ...others }))).toMatchObject(refusal)
    expect(snapshot()).toEqual(before)
  })
})

test('a repo starts with a signed commit of the empty tree', () => {
  const entry = { collection, rkey: parseRkey('self'), record: '{}' }
  const change = planFirst({ tree: Mst.empty, outbox: [entry] }, context())
  expect(change).toMatchObject({ before: undefined, ops: [], outbox: [entry] })
  expect(change.after).toMatchObject({ seq: nextSeq(change.after.rev), lastBlock: 0 })
  expectSigned(change, Mst.empty)
})

test('a create is a signed commit on the head, with the record as its one op', async () => {
  const before = state.head
  const record = post({ boundary: boundary(b, a) })
  const { change, answer } = await write({ op: creating({ rkey: parseRkey('one'), record }) })
  const uri = recordUri(author, collection, parseRkey('one'))
  expect(change).toMatchObject({ did: author, before, time: new Date(nowMs).toISOString() })
  expect(change.after).toEqual(state.head)
  expect(change.after).toMatchObject({
    seq: nextSeq(state.head.rev),
    lastBlock: before.lastBlock + 1,
  })
  expect(change.ops).toMatchObject([
    { action: 'create', uri, put: { cid: answer.cid, blockId: 1 }, before: [], after: [b, a] },
  ])
  const { cid, rev } = change.after
  const result = { action: 'create', uri, cid: cidAt('one'), validationStatus: 'valid' }
  expect<object>(answer).toEqual({ ...result, commit: { cid, rev } })
  expectSigned(change, state.tree)
})

test('creates of one instant get keys, revs and seqs that grow', async () => {
  const answers = []
  const seqs: number[] = []
  for (let index = 0; index < 20; index++) {
    answers.push((await write({ op: creating({}) })).answer)
    seqs.push(state.head.seq)
  }
  const rkeys = answers.map(({ uri = '' }) => uri.slice(uri.lastIndexOf('/') + 1))
  expect(rkeys.every(isTid)).toBeTrue()
  expect(rkeys).toEqual([...new Set(rkeys)].toSorted())
  const revs = answers.map(({ commit }) => commit?.rev ?? '')
  expect<string[]>(revs).toEqual([...new Set(revs)].toSorted())
  expect(state.tree.size).toBe(20)
  expect(seqs).toEqual([...new Set(seqs)].toSorted((one, other) => one - other))
})

test('a fresh key avoids those that are taken already', async () => {
  const probe = await plan({ op: creating({}) })
  const taken = parseRkey(probe.answer.results[0]?.uri?.split('/').at(-1) ?? '')
  // Written with a clock of long ago, so that the head stays below the key.
  await write({ op: creating({ rkey: taken }) }, { nowMs: nowMs - 1 })
  const { answer } = await write({ op: creating({}) })
  expect(answer.uri).not.toBe(probe.answer.results[0]?.uri)
  expect(state.tree.size).toBe(2)
})

test('revs grow also when the clock goes back', async () => {
  const { rev } = state.head
  await write({ op: creating({}) }, { nowMs: nowMs - 3_600_000 })
  expect(state.head.rev > rev).toBeTrue()
})

test('a delete says which boundaries the record had, as its row shows them', async () => {
  await write({
    op: creating({ rkey: parseRkey('one'), record: post({ boundary: boundary(b, a) }) }),
  })
  const prev = cidAt('one')
  state = { ...state, fresh: new Map() }
  const { change, answer } = await write({ op: deleting('one', { swapRecord: prev }) })
  expect(change.ops).toEqual([
    {
      action: 'delete',
      uri: recordUri(author, collection, parseRkey('one')),
      collection,
      rkey: parseRkey('one'),
      prev,
      before: [b, a],
      after: [],
    },
  ])
  const commit = { cid: change.after.cid, rev: change.after.rev }
  expect(answer).toEqual({ action: 'delete', commit })
  expect(state.tree.size).toBe(0)
  expect(change.after.lastBlock).toBe(1)
  expectSigned(change, Mst.empty)
})

test('a delete finds the boundaries of a record that no row shows yet', async () => {
  await write({ op: creating({ rkey: parseRkey('one') }) })
  rows.clear()
  const { change } = await write({ op: deleting('one') })
  expect(change.ops).toMatchObject([{ before: [a] }])
})

test('deleting what is not there makes no commit', async () => {
  const planned = await plan({ op: deleting('absent'), swapCommit: state.head.cid })
  expect(planned).toEqual({ state, answer: { results: [{ action: 'delete' }] } })
})

test('a swap on the present commit and record passes', async () => {
  const swapCommit = state.head.cid
  await write({ op: creating({ rkey: parseRkey('one') }), swapCommit })
  const call = { op: deleting('one', { swapRecord: cidAt('one') }), swapCommit: state.head.cid }
  expect((await write(call)).change.ops).toHaveLength(1)
})

test('an older state can still be planned on', async () => {
  const old = state
  await write({ op: creating({ rkey: parseRkey('one') }) })
  const again = await planWrite(
    old,
    callOf({ op: creating({ rkey: parseRkey('one') }) }),
    context(),
  )
  expect(again.change?.before).toEqual(old.head)
})

describe('a stub', () => {
  const stubs: readonly Nsid[] = [collection]

  test('tells the PDS where the record is and when, and nothing else', async () => {
    const { change, answer } = await write({ op: creating({ rkey: parseRkey('one') }), stubs })
    const [entry] = change.outbox
    expect(entry).toMatchObject({ collection, rkey: parseRkey('one') })
    expect(JSON.parse(entry?.record ?? '')).toEqual({
      $type: collection,
      source: {
        vary: 'authenticated',
        subject: { uri: answer.uri, cid: answer.cid },
        service: 'did:web:stratos.test#atproto_pns',
      },
      createdAt,
    })
  })

  test('gives no text for a time, where no lexicon says what a time is', async () => {
    const note = parseNsid('com.example.notes.note')
    const over = { rules: { ...rules, collections: [note] } }
    const timeOf = async (said: unknown) => {
      const record = { boundary: boundary(a), createdAt: said }
      const op = creating({ collection: note, record })
      const { change } = await write({ op, stubs: [note] }, over)
      return JSON.parse(change.outbox[0]?.record ?? '').createdAt
    }
    expect(await timeOf(createdAt)).toBe(createdAt)
    for (const said of ['the night we met at 5 Elm St', '2026-11-01', '', 1, { at: createdAt }]) {
      expect(await timeOf(said)).toBe(new Date(nowMs).toISOString())
    }
  })

  test('is taken away with its record', async () => {
    const rkey = parseRkey('one')
    await write({ op: creating({ rkey }), stubs })
    const { change } = await write({ op: deleting('one'), stubs })
    expect(change.outbox).toEqual([{ collection, rkey, record: null }])
  })

  test('does not come about where the PDS does not take it', async () => {
    expect((await write({ op: creating({ rkey: parseRkey('one') }) })).change.outbox).toEqual([])
    const [only] = (await write({ op: deleting('one') })).change.outbox
    // Unless one stands there from times when it did.
    expect(only).toMatchObject({ record: null, onlyKnown: true })
  })

  test('does not come about for a delete that changes nothing', async () => {
    expect((await plan({ op: deleting('absent'), stubs })).change).toBeUndefined()
  })
})

type PartialCall = Partial<WriteCall> & { readonly op?: WriteOp }

function callOf({ op, ...call }: PartialCall): WriteCall {
  const ops = op === undefined ? [] : [op]
  return {
    ops,
    boundaries: [a, b],
    targets: {},
    stubs: [],
    takendown: [],
    takendownBlobs: [],
    ...call,
  }
}

function plan(call: PartialCall, over: Partial<WriteContext> = {}): Promise<Planned> {
  return planWrite(state, callOf(call), { ...context(), ...over })
}

/** Plans a write that changes something, and goes on with its state. */
async function write(call: PartialCall, over: Partial<WriteContext> = {}) {
  const { change, answer, state: next } = await plan(call, over)
  if (change === undefined) throw new Error('the write changes nothing')
  state = next
  for (const { rkey, put } of change.ops) {
    if (put !== undefined) rows.set(rkey, put.content)
  }
  const [result] = answer.results
  return { change, answer: { ...result, commit: answer.commit } }
}

function creating(over: Partial<Extract<WriteOp, { action: 'create' }>>): WriteOp {
  return { action: 'create', collection, record: post(), ...over }
}

function deleting(rkey: string, over: Partial<Extract<WriteOp, { action: 'delete' }>> = {}) {
  return { action: 'delete', collection, rkey: parseRkey(rkey), ...over } as const
}

function context(): WriteContext {
  return {
    did: author,
    key,
    rules,
    schemas,
    clockId: 7,
    nowMs,
    vouched: 0,
    content: async (_, rkey) => rows.get(rkey),
    blob: async () => undefined,
  }
}

function cidAt(rkey: string): Cid {
  const cid = state.tree.get(`${collection}/${rkey}`)
  if (cid === undefined) throw new Error(`no record ${rkey}`)
  return cidToString(cid)
}

function snapshot(): object {
  const { head, tree, fresh } = state
  return { head: { ...head }, root: cidToString(tree.rootCid()), fresh: [...fresh] }
}

function expectSigned({ commit, after }: Change, tree: Mst): void {
  const { did, rev, data, prev } = verifyCommit(commit, key.did)
  expect({ did, rev, prev }).toEqual({ did: author, rev: after.rev, prev: null })
  expect(equalCids(data, tree.rootCid())).toBeTrue()
  expect(cidToString(cidForCbor(commit))).toBe(after.cid)
}
