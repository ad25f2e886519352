import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { parseNsid } from '../../src/atproto/syntax.ts'
import type { OutboxKey, OutboxRow } from '../../src/store/actor-outbox.ts'
import { Actor, place } from './changes.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
let actor: Actor

beforeEach(async () => {
  actor = await Actor.open(folder)
  await actor.commit([])
})

afterEach(async () => {
  await actor.store.close()
})

describe('a report on an outdated row', () => {
  test('of a put keeps the newer row pending and remembers what stands on the PDS', async () => {
    const row = await queued('one', 'old')
    await queue('one', 'new')
    await actor.store.outbox.settle(row, 'cid of old')
    const [pending] = await rows()
    expect(pending).toMatchObject({ record: 'new', pdsCid: 'cid of old' })
    expect(pending?.position).not.toBe(row.position)
  })

  test('of a deletion keeps the newer row pending and forgets what stood there', async () => {
    await delivered('one', 'cid')
    const row = await queued('one', null)
    await queue('one', 'again')
    await actor.store.outbox.settle(row, null)
    expect(await rows()).toMatchObject([{ record: 'again', pdsCid: null }])
  })

  test('neither parks nor postpones the newer one', async () => {
    const row = await queued('one', 'old')
    await queue('one', 'new')
    await actor.store.outbox.park(row, 'refused')
    await actor.store.outbox.postpone(row, 5_000_000)
    expect(await rows()).toMatchObject([{ record: 'new', attempts: 0, nextAttemptAtMs: 0 }])
  })

  test('that comes a second time changes nothing', async () => {
    const row = await queued('one', 'put')
    await actor.store.outbox.settle(row, 'cid')
    const before = await actor.dump()
    await actor.store.outbox.settle(row, 'another cid')
    await actor.store.outbox.park(row, 'refused')
    await actor.store.outbox.postpone(row, 1)
    expect(await actor.dump()).toEqual(before)
  })
})

describe('what an outbox holds', () => {
  const state = () => actor.store.outbox.state(2)

  test('is nothing at first, and nothing again once all is delivered', async () => {
    const empty = { pending: 0, parkedCount: 0, parked: [] }
    expect(await state()).toEqual(empty)
    await actor.store.outbox.settle(await queued('one', 'put'), 'cid')
    expect(await state()).toEqual(empty)
  })

  test('is counted, and the rows that were given up are named, the first of them', async () => {
    for (const rkey of ['d', 'c', 'b', 'a']) {
      await actor.store.outbox.park(await queued(rkey, 'put'), `refused ${rkey}`)
    }
    await queue('e', 'put')
    const { collection } = place('a')
    expect<object>(await state()).toEqual({
      pending: 1,
      parkedCount: 4,
      parked: [
        { collection, rkey: 'a', reason: 'refused a' },
        { collection, rkey: 'b', reason: 'refused b' },
      ],
    })
  })

  test('has the time of the next try once one has failed', async () => {
    await actor.store.outbox.postpone(await queued('one', 'put'), 5_000)
    await queue('two', 'put')
    expect(await state()).toMatchObject({ pending: 2, nextAttemptAtMs: 5_000 })
  })
})

test('rows come in the order in which they were queued, as many as asked for', async () => {
  for (const rkey of ['c', 'a', 'b']) await queue(rkey, rkey)
  expect(await records()).toEqual(['c', 'a', 'b'])
  expect(await actor.store.outbox.rows(2)).toHaveLength(2)
})

test('a newer state replaces the queued one, and takes its place at the end', async () => {
  for (const rkey of ['a', 'b']) await queue(rkey, `${rkey}1`)
  await queue('a', 'a2')
  expect(await records()).toEqual(['b1', 'a2'])
  await queue('b', null)
  expect(await records()).toEqual(['a2', null])
})

test('a row is queued with its commit or not at all', async () => {
  const { collection, rkey } = place('one')
  await actor.commit([actor.creating('one', ['x'])], [{ collection, rkey, record: 'stub' }])
  expect(await records()).toEqual(['stub'])
})

test('a delivered put is remembered by its CID alone and not delivered again', async () => {
  const row = await queued('one', 'a record')
  await actor.store.outbox.settle(row, 'cid')
  expect(await rows()).toEqual([])
  const { stratos_outbox: kept } = await actor.dump()
  expect(kept).toMatchObject([{ rkey: 'one', pending: 0, record: null, pdsCid: 'cid' }])
  await queue('one', 'next')
  expect(await rows()).toMatchObject([{ record: 'next', pdsCid: 'cid' }])
})

test('a delivered deletion leaves no row', async () => {
  await delivered('one', 'cid')
  const row = await queued('one', null)
  expect(row.pdsCid).toBe('cid')
  await actor.store.outbox.settle(row, null)
  expect((await actor.dump())['stratos_outbox']).toEqual([])
})

test('a parked row is out of the way and keeps its reason until it is queued anew', async () => {
  const first = await queued('one', 'bad')
  await queue('two', 'good')
  await actor.store.outbox.park(first, 'the PDS refused')
  expect(await records()).toEqual(['good'])
  const { stratos_outbox: kept = [] } = await actor.dump()
  expect(kept).toContainEqual(expect.objectContaining({ rkey: 'one', parked: 'the PDS refused' }))
  await queue('one', 'better')
  expect(await records()).toEqual(['good', 'better'])
  const { stratos_outbox: again = [] } = await actor.dump()
  expect(again).toContainEqual(expect.objectContaining({ rkey: 'one', parked: null }))
})

test('parked rows get another try at once, those of others stay as they are', async () => {
  await delivered('done', 'cid')
  const row = await queued('bad', 'put')
  await actor.store.outbox.postpone(row, 5_000)
  await actor.store.outbox.park(row, 'the PDS refused')
  const waiting = await queued('waiting', 'put')
  await actor.store.outbox.postpone(waiting, 5_000)
  await actor.store.outbox.unpark()
  const pending = (await rows()).toSorted((one, other) => one.rkey.localeCompare(other.rkey))
  expect(pending).toMatchObject([
    { rkey: 'bad', record: 'put', attempts: 0, nextAttemptAtMs: 0 },
    { rkey: 'waiting', record: 'put', attempts: 1, nextAttemptAtMs: 5_000 },
  ])
})

test('a postponed row counts its tries, and a newer state starts to count anew', async () => {
  const row = await queued('one', 'put')
  await queue('two', 'put')
  await actor.store.outbox.postpone(row, 1000)
  await actor.store.outbox.postpone(row, 2000)
  const [first] = await rows()
  expect(first).toMatchObject({ rkey: 'one', attempts: 2, nextAttemptAtMs: 2000 })
  await queue('one', 'newer')
  const [, last] = await rows()
  expect(last).toMatchObject({ rkey: 'one', attempts: 0, nextAttemptAtMs: 0 })
})

test('positions tell two states of one key apart whatever was delivered in between', async () => {
  const old = await queued('one', 'old')
  await queue('two', 'other')
  await actor.store.outbox.settle(await rowOf('two'), 'cid of two')
  await queue('one', 'new')
  const fresh = await rowOf('one')
  expect(fresh.position).not.toBe(old.position)
  await actor.store.outbox.settle(old, 'cid of old')
  expect(await records()).toEqual(['new'])
  await actor.store.outbox.settle(fresh, 'cid of new')
  expect(await records()).toEqual([])
})

describe('keys are public by their stubs', () => {
  const names = Array.from({ length: 20 }, (_, index) => `key-${index}`)
  const areStubbed = (...rkeys: readonly string[]) =>
    actor.store.outbox.areStubbed(rkeys.map((rkey) => place(rkey)))

  test('only when every one of them is', async () => {
    for (const name of names) await queue(name, 'a stub')
    for (let count = 0; count <= names.length; count++) {
      const some = names.slice(0, count)
      expect(await areStubbed(...some)).toBeTrue()
      expect(await areStubbed(...some, 'other')).toBeFalse()
      expect(await areStubbed('other', ...some)).toBeFalse()
    }
  })

  test('in their own collection', async () => {
    await queue('one', 'a stub')
    const collection = parseNsid('com.example.other')
    const { rkey } = place('one')
    expect(await areStubbed('one')).toBeTrue()
    expect(await actor.store.outbox.areStubbed([{ collection, rkey }])).toBeFalse()
  })

  test('while one stands, or is wanted and not given up', async () => {
    expect(await areStubbed('one')).toBeFalse()
    await delivered('one', 'cid')
    expect(await areStubbed('one')).toBeTrue()
    const row = await queued('one', 'newer')
    expect(await areStubbed('one')).toBeTrue()
    await actor.store.outbox.park(row, 'refused')
    expect(await areStubbed('one')).toBeFalse()
    await actor.store.outbox.unpark()
    expect(await areStubbed('one')).toBeTrue()
    const gone = await queued('one', null)
    expect(await areStubbed('one')).toBeFalse()
    await actor.store.outbox.settle(gone, null)
    expect(await areStubbed('one')).toBeFalse()
  })
})

async function queue(rkey: string, record: string | null): Promise<void> {
  const { collection, rkey: key } = place(rkey)
  await actor.store.outbox.queue([{ collection, rkey: key, record }])
}

/** Queues it and gives the row as a delivery sees it. */
async function queued(rkey: string, record: string | null): Promise<OutboxRow> {
  await queue(rkey, record)
  return await rowOf(rkey)
}

async function delivered(rkey: string, pdsCid: string): Promise<void> {
  const row: OutboxKey = await queued(rkey, 'a record')
  await actor.store.outbox.settle(row, pdsCid)
}

async function rowOf(rkey: string): Promise<OutboxRow> {
  const row = (await rows()).find((row) => row.rkey === rkey)
  if (row === undefined) throw new Error(`no row ${rkey} is pending`)
  return row
}

function rows(): Promise<OutboxRow[]> {
  return actor.store.outbox.rows(100)
}

async function records(): Promise<(string | null)[]> {
  return (await rows()).map(({ record }) => record)
}
