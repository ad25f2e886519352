import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { RowsMismatch } from '../../src/store/sql.ts'
import { failureOf } from '../kit/wait.ts'
import { Actor, changeOn, collection, place, put } from './changes.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
let actor: Actor

beforeEach(async () => {
  actor = await Actor.open(folder)
})

afterEach(async () => {
  await actor.store.close()
})

describe('a Change on another head than the stored one', () => {
  const entry = { ...place('new'), record: '{}' }
  const queued = [{ collection, rkey: entry.rkey, record: entry.record }]

  test('changes nothing when the head has moved on', async () => {
    await actor.commit([])
    const stale = actor.head
    await actor.commit([actor.creating('one', ['x'])])
    const before = await actor.dump()
    const change = changeOn(stale, [actor.creating('two', ['y'])], queued)
    const failure = await failureOf(actor.store.apply([change]))
    expect(failure).toBeInstanceOf(RowsMismatch)
    expect(failure).toMatchObject({ index: 0 })
    expect(await actor.dump()).toEqual(before)
  })

  test('changes nothing when a repo starts a second time', async () => {
    await actor.commit([actor.creating('one', ['x'])])
    const before = await actor.dump()
    const failure = await failureOf(actor.store.apply([changeOn(undefined, [], queued)]))
    expect(failure).toMatchObject({ index: 0 })
    expect(await actor.dump()).toEqual(before)
  })

  test('changes nothing when there is no repo', async () => {
    const head = changeOn(undefined, []).after
    const before = await actor.dump()
    expect(await failureOf(actor.store.apply([changeOn(head, [])]))).toBeInstanceOf(RowsMismatch)
    expect(await actor.dump()).toEqual(before)
  })

  test('takes the good Changes before it down with it', async () => {
    await actor.commit([])
    const good = changeOn(actor.head, [actor.creating('one', ['x'])])
    const stale = changeOn(actor.head, [], queued)
    const before = await actor.dump()
    expect(await failureOf(actor.store.apply([good, stale]))).toMatchObject({
      message: expect.stringContaining('one follows the other'),
    })
    expect(await actor.dump()).toEqual(before)
  })
})

describe('an op that does not fit the rows changes nothing', () => {
  beforeEach(async () => {
    await actor.commit([actor.creating('one', ['x', 'y'])])
  })

  const { cid } = put('other', 0).put
  const misfits = {
    'creating what is there': () => actor.creating('one', ['x']),
    'updating from another CID': () => ({
      ...place('one'),
      ...put('new', 2),
      action: 'update' as const,
      prev: cid,
      before: ['x', 'y'],
      after: ['x'],
    }),
    'deleting another CID': () => ({
      ...place('one'),
      action: 'delete' as const,
      prev: cid,
      before: ['x', 'y'],
      after: [],
    }),
    'deleting what is not there': () => ({
      ...place('absent'),
      action: 'delete' as const,
      prev: cid,
      before: [],
      after: [],
    }),
    'taking a boundary that the record lacks': () => ({
      ...place('one'),
      action: 'delete' as const,
      prev: put('one', 0).put.cid,
      before: ['x', 'z'],
      after: [],
    }),
    'naming a boundary twice': () => actor.creating('two', ['x', 'x']),
    'reusing a block': () => ({ ...actor.creating('two', ['x']), ...put('two', 1) }),
  }
  test.each(Object.entries(misfits))('%s', async (_, op) => {
    const before = await actor.dump()
    expect(await failureOf(actor.commit([op()]))).toBeInstanceOf(Error)
    expect(await actor.dump()).toEqual(before)
  })
})

test('the first commit makes the head and an event, and nothing else', async () => {
  const { after, commit, time } = await actor.commit([])
  expect(await actor.store.head()).toEqual({ ...after, commit })
  const { stratos_seq: events, ...rest } = await actor.dump()
  expect(events).toEqual([
    { seq: 1, did: expect.any(String), time, rev: after.rev, event: '{"ops":[]}' },
  ])
  expect(rest).toMatchObject({ stratos_record: [], stratos_repo_block: [], stratos_outbox: [] })
})

test('a created record has its row, its block and a row for each boundary', async () => {
  const change = await actor.commit([actor.creating('one', ['x', 'y'])])
  const { cid, content } = put('one', 1).put
  const { uri, rkey } = place('one')
  expect(await actor.store.record(uri, 'all')).toEqual({ uri, cid, rkey, content })
  const rows = await actor.dump()
  expect(rows['stratos_record']).toMatchObject([
    { uri, cid, collection, rkey, repoRev: change.after.rev, takedownRef: null, blockId: 1 },
  ])
  expect(rows['stratos_record_boundary']).toEqual([
    { boundary: 'x', collection, rkey },
    { boundary: 'y', collection, rkey },
  ])
})

test('an update replaces content and boundaries and frees the old block', async () => {
  await actor.commit([actor.creating('one', ['x', 'y'])])
  const fresh = put('changed', 2)
  const prev = put('one', 1).put.cid
  const change = await actor.commit([
    { ...place('one'), ...fresh, action: 'update', prev, before: ['x', 'y'], after: ['y', 'z'] },
  ])
  const rows = await actor.dump()
  expect(rows['stratos_repo_block']).toEqual([{ id: 2, content: fresh.put.content }])
  expect(rows['stratos_record']).toMatchObject([
    { cid: fresh.put.cid, repoRev: change.after.rev, blockId: 2 },
  ])
  expect(rows['stratos_record_boundary']).toMatchObject([{ boundary: 'y' }, { boundary: 'z' }])
})

test('a deleted record leaves no row, no block and no boundary, only its event', async () => {
  await actor.commit([
    actor.creating('one', ['x']),
    { ...actor.creating('two', ['x']), ...put('two', 2) },
  ])
  const prev = put('one', 1).put.cid
  await actor.commit([{ ...place('one'), action: 'delete', prev, before: ['x'], after: [] }])
  const rows = await actor.dump()
  expect(rows['stratos_record']).toMatchObject([place('two')])
  expect(rows['stratos_repo_block']).toMatchObject([{ id: 2 }])
  expect(rows['stratos_record_boundary']).toMatchObject([{ rkey: 'two' }])
  expect(rows['stratos_seq']).toHaveLength(2)
})

test('events say what happened and never what a record says', async () => {
  const secret = 'do not write this down'
  await actor.commit([actor.creating('one', ['x', 'y'], secret)])
  const prev = put(secret, 1).put.cid
  const next = put(`${secret} either`, 2)
  await actor.commit([
    { ...place('one'), ...next, action: 'update', prev, before: ['x', 'y'], after: ['x'] },
  ])
  const last = next.put.cid
  await actor.commit([{ ...place('one'), action: 'delete', prev: last, before: ['x'], after: [] }])

  const events = await actor.sqlite.all<{ seq: number; event: string }>(
    'select seq, event from stratos_seq order by seq',
  )
  const path = `${collection}/one`
  const said = events.map(({ seq, event }) => [seq, JSON.parse(event)])
  const one = { path, before: ['x'], after: ['x'] }
  expect(said).toEqual([
    [
      1,
      { ops: [{ ...one, action: 'create', cid: prev, prev: null, before: [], after: ['x', 'y'] }] },
    ],
    [2, { ops: [{ ...one, action: 'update', cid: last, prev, before: ['x', 'y'] }] }],
    [3, { ops: [{ ...one, action: 'delete', cid: null, prev: last, after: [] }] }],
  ])
  const [found] = await actor.sqlite.all<{ count: number }>(
    "select count(*) as count from stratos_seq where event like '%' || $1 || '%'",
    secret,
  )
  expect(found?.count).toBe(0)
})

test('several Changes of one batch each have their event, rev and seq', async () => {
  await actor.commit([])
  const first = changeOn(actor.head, [actor.creating('one', ['x'])])
  const second = changeOn(first.after, [
    { ...place('two'), ...put('two', 2), action: 'create', before: [], after: ['x'] },
  ])
  const prev = put('one', 1).put.cid
  const third = changeOn(second.after, [
    { ...place('one'), action: 'delete', prev, before: ['x'], after: [] },
  ])
  await actor.store.apply([first, second, third])
  const events = await actor.sqlite.all<object>('select seq, rev from stratos_seq order by seq')
  expect(events.slice(1)).toEqual(
    [first, second, third].map(({ after }) => ({ seq: after.seq, rev: after.rev })),
  )
  expect(await entriesOf(actor)).toEqual([{ ...place('two'), cid: put('two', 2).put.cid }])
  expect(await actor.store.head()).toMatchObject(third.after)
})

test('a record shows itself to those who share a boundary with it', async () => {
  await actor.commit([actor.creating('one', ['x', 'y'])])
  const { uri } = place('one')
  const sees = async (boundaries: string[]) =>
    (await actor.store.record(uri, { boundaries })) !== undefined
  expect(await sees([])).toBeFalse()
  expect(await sees(['z'])).toBeFalse()
  expect(await sees(["x' or '1'='1"])).toBeFalse()
  expect(await sees(['y'])).toBeTrue()
  expect(await sees(['z', 'x'])).toBeTrue()
  expect(await actor.store.record(place('absent').uri, 'all')).toBeUndefined()
})

test('a record that is excepted is missing, to eyes that see everything else, too', async () => {
  await actor.commit([actor.creating('one', ['x'])])
  await actor.commit([actor.creating('two', ['x'])])
  const [one, two, other] = ['one', 'two', 'other'].map((rkey) => place(rkey).uri)
  if (one === undefined || two === undefined || other === undefined) throw new Error('three')
  const missing = await actor.store.record(other, 'all')
  for (const boundaries of ['all', ['x'], ['y', 'x']] as const) {
    for (const except of [[one], [other, one], [one, other, other], [one, other, one, other]]) {
      expect(await actor.store.record(one, { boundaries, except })).toEqual(missing)
      expect(await actor.store.record(two, { boundaries, except })).toHaveProperty('uri', two)
    }
    expect(await actor.store.record(one, { boundaries, except: [] })).toHaveProperty('uri', one)
  }
  expect(await actor.store.record(one, { boundaries: [], except: [two] })).toBeUndefined()
  // What is excepted stays in the tree.
  expect(await entriesOf(actor)).toHaveLength(2)
})

test('entries and blocks come in the order of the tree', async () => {
  for (const rkey of ['b', 'a', 'B', '~', '-', 'aa']) {
    await actor.commit([actor.creating(rkey, ['x'])])
  }
  const rkeys = (await entriesOf(actor)).map(({ rkey }) => rkey)
  expect<string[]>(rkeys).toEqual(['-', 'B', 'a', 'aa', 'b', '~'])
  const blocks = await actor.store.blocks()
  expect(blocks.map(({ cid }) => cid)).toEqual(rkeys.map((rkey) => put(rkey, 0).put.cid))
})

test.each([1, 2, 3, 4, 5, 6, 7])(
  'entries come by pages of %i, none of them twice',
  async (size) => {
    for (const rkey of ['b', 'a', 'B', '~', '-', 'aa']) {
      await actor.commit([actor.creating(rkey, ['x'])])
    }
    const pages = await Array.fromAsync(actor.store.entries(size))
    expect(pages.flat()).toEqual(await entriesOf(actor))
    expect(pages.map(({ length }) => length)).toEqual(
      Array.from({ length: Math.ceil(6 / size) }, (_, page) => Math.min(size, 6 - page * size)),
    )
  },
)

test('a repo without records has no page of entries', async () => {
  await actor.commit([])
  expect(await Array.fromAsync(actor.store.entries())).toEqual([])
})

async function entriesOf({ store }: Actor) {
  return (await Array.fromAsync(store.entries())).flat()
}
