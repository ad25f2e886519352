import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import { Turns } from '../../src/lib/turns.ts'
import { Events } from '../../src/shard/events.ts'
import { seedBoot } from '../kit/seed.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { a, b, boundary, collection, post, serviceDid } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { ActorsBeside } from './actors-beside.ts'
import { page, pushed, shownOf } from './followed.ts'
import { House, kinds } from './pools.ts'

const folder = temporaryFolder()
const first = { type: '#commit', ops: [], texts: [] }

describe.each(kinds)('%s: the log of an actor', (kind) => {
  let house: House

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
  })
  afterAll(async () => {
    await house.pool.close()
  })

  test('tells every commit with all of its operations, and what is there now of their records', async () => {
    const actor = await house.actor()
    await actor.create('one')
    await actor.apply([create('two'), create('three')])
    await actor.apply([update('two', 'second'), remove('one')])
    const found = shownOf(await page(house, actor))
    expect(found).toMatchObject([
      first,
      { ops: ['create one'], texts: [] },
      { ops: ['create two', 'create three +'], texts: ['three'] },
      { ops: ['update two +', 'delete one'], texts: ['second'] },
    ])
    const seqs = found.map(({ seq }) => Number(seq))
    expect(seqs).toEqual(seqs.toSorted((left, right) => left - right))
    expect(new Set(seqs).size).toBe(4)
    const second = Number(seqs[1])
    expect(shownOf(await page(house, actor, { after: second }))).toEqual(found.slice(2))
    expect((await page(house, actor, { after: Number(seqs[3]) })).bytes).toHaveLength(0)
  })

  test('has every record that is there, of many commits and of large ones', async () => {
    const actor = await house.actor()
    const many = Array.from({ length: 70 }, (_, index) => `many-${index}`)
    const single = Array.from({ length: 66 }, (_, index) => `single-${index}`)
    for (const rkey of single) await actor.create(rkey)
    await actor.apply(many.map((rkey) => create(rkey)))
    // With a salt of its own it is the same record twice.
    const again = post({ text: 'again', salt: { $bytes: 'AAAAAAAAAAAAAAAAAAAAAA' } })
    await actor.create('again', { record: again })
    await actor.write(update('again', 'other'))
    await actor.write(update('again', 'again', again))
    const found = shownOf(await page(house, actor))
    expect(found.flatMap(({ texts }) => texts)).toEqual([...single, ...many, 'again', 'again'])
    expect(found.slice(-3).map(({ texts }) => texts)).toEqual([['again'], [], ['again']])
  })

  test('shows readers of a boundary what is in it, and of the rest not that there is any', async () => {
    const actor = await house.actor()
    await actor.create('in', { record: post({ text: 'in' }) })
    await actor.create('out', { record: inB('out') })
    await actor.apply([create('both-in'), create('both-out', inB('both-out'))])
    await actor.write(update('in', 'moved', inB('moved')))
    await actor.write(update('out', 'came', post({ text: 'came' })))
    await actor.write(update('both-out', 'still', inB('still')))
    await actor.write(remove('in'))
    await actor.write(remove('out'))
    const seen = shownOf(await page(house, actor, { eyes: [a] }))
    expect(seen.map(({ ops }) => ops)).toEqual([
      [],
      ['create in'],
      ['create both-in +'],
      ['delete in'],
      ['create out'],
      ['delete out'],
    ])
    expect(seen.flatMap(({ texts }) => texts)).toEqual(['both-in'])
    expect(shownOf(await page(house, actor, { eyes: [] }))).toMatchObject([first])
  })

  test('shows neither in which boundaries a record is, nor who else may see it', async () => {
    const actor = await house.actor()
    await actor.create('out', { record: inB('out') })
    const { bytes, seqs, lengths } = await page(house, actor, { eyes: [a] })
    expect([seqs.length, lengths.length]).toEqual([1, 1])
    expect(Buffer.from(bytes).includes('out')).toBe(false)
  })

  test('withholds what is taken down, and nothing else of it', async () => {
    const actor = await house.actor()
    await actor.apply([create('bad'), create('good')])
    const bad = recordUri(actor.did, collection, parseRkey('bad'))
    const except = [bad]
    expect(shownOf(await page(house, actor, { except }))[1]).toMatchObject({
      ops: ['create bad', 'create good +'],
      texts: ['good'],
    })
    const none = shownOf(await page(house, actor, { except: 'all' }))[1]
    expect(none).toMatchObject({ ops: ['create bad', 'create good'], texts: [] })
  })

  test('never has what a commit itself replaced or deleted, told at once or later', async () => {
    const actor = await house.actor()
    const heard = hear()
    const ops = [create('k'), update('k', 'kept'), create('gone'), remove('gone')]
    await actor.apply(ops)
    const expected = {
      ops: ['create k', 'update k +', 'create gone', 'delete gone'],
      texts: ['kept'],
    }
    const [told] = await heard.of(1)
    expect(told?.shown).toMatchObject(expected)
    expect(shownOf(await page(house, actor)).at(-1)).toMatchObject(expected)
    heard.stop()
  })

  test('has of status what was said, for those who may see the record', async () => {
    const actor = await house.actor()
    await actor.create('one')
    const at = { kind: 'status', takendown: true, nowMs: Date.now() } as const
    const path = `${collection}/one`
    await house.pool.call(actor.did, 'test', { ...at, path })
    await house.pool.call(actor.did, 'test', { ...at, takendown: false })
    await actor.create('two')
    const told = (eyes: 'all' | readonly string[]) =>
      page(house, actor, { eyes }).then((found) => shownOf(found).slice(1))
    const all = await told('all')
    expect(all.map(({ type, ops }) => [type, ...ops])).toEqual([
      ['#commit', 'create one +'],
      ['#status', `${path} true`],
      ['#status', 'all false'],
      ['#commit', 'create two +'],
    ])
    expect(await told([a])).toEqual(all)
    expect(await told([b])).toMatchObject([{ type: '#status', ops: ['all false'] }])
    expect((await actor.verified()).rkeys).toEqual(['one', 'two'])
  })

  test('is told as it grows, each event with the one before it', async () => {
    const actor = await house.actor()
    const heard = hear()
    await actor.create('one')
    await Promise.all([actor.create('two'), actor.create('three')])
    await house.pool.call(actor.did, 'test', {
      kind: 'status',
      takendown: true,
      nowMs: Date.now(),
    })
    await actor.create('four', { record: inB('four') })
    const told = await heard.of(5)
    const log = shownOf(await page(house, actor)).map(({ seq }) => Number(seq))
    expect(told.map(({ seq }) => seq)).toEqual(log.slice(1))
    expect(told.map(({ prev }) => prev)).toEqual([...log.slice(0, 3), -1, ...log.slice(4, 5)])
    expect(told.every(({ did }) => did === actor.did)).toBe(true)
    expect(told[0]?.shown).toMatchObject({ ops: ['create one +'] })
    heard.stop()
    await actor.create('five')
    await eventually('end of the log', async () =>
      (await page(house, actor)).seqs.length === 7 ? true : undefined,
    )
    expect(heard.events).toHaveLength(5)
  })

  test('is forgotten up to a time in slices, but for its end', async () => {
    const actor = await house.actor()
    for (const rkey of ['one', 'two', 'three']) await actor.create(rkey)
    const all = (await page(house, actor)).seqs
    const prune = (time: string) => house.pool.call(actor.did, 'test', { kind: 'prune', time })
    expect(await prune('2000-01-01T00:00:00.000Z')).toEqual({ pruned: 0 })
    expect(await page(house, actor)).toMatchObject({ pruned: 0, seqs: all })
    expect(await prune('9999-01-01T00:00:00.000Z')).toEqual({ pruned: 3 })
    expect(await prune('9999-01-01T00:00:00.000Z')).toEqual({ pruned: 0 })
    expect(await page(house, actor)).toMatchObject({ pruned: all[2], seqs: all.slice(3) })
    await actor.create('four')
    expect((await page(house, actor)).seqs.slice(0, 1)).toEqual(all.slice(3))
  })

  test('tells where it ends without a look, once it was looked at', async () => {
    const actor = await house.actor()
    await actor.create('one')
    const end = (await page(house, actor)).seqs.at(-1)
    const last = () => house.pool.call(actor.did, 'test', { kind: 'last' })
    expect(await last()).toEqual({ seq: Number(end) })
    // As many others as there are handles.
    for (let other = 0; other < 64; other++) await house.actor()
    await rename(actor.folder, `${actor.folder}-away`)
    expect(await last()).toEqual({ seq: Number(end) })
    expect(await failureOf(page(house, actor))).toMatchObject({ error: 'RepoNotFound' })
    await rename(`${actor.folder}-away`, actor.folder)
  })

  test('has nothing up to where it was vouched for, be it a commit, a status or a new repo', async () => {
    const actor = await house.actor()
    const { did } = actor
    let seq = (Date.now() + 3_600_000) * 1000
    const vouch = async () => {
      seq += 1_000_000
      const { seq: end } = await house.pool.call(did, 'test', { kind: 'vouch', seq })
      expect((await page(house, actor)).seqs.at(-1)).toBe(end)
    }
    const after = async () => (await page(house, actor, { after: seq })).seqs
    await vouch()
    await actor.create('one')
    await actor.create('two')
    expect(await after()).toEqual([seq + 1, seq + 2])
    await vouch()
    await house.pool.call(did, 'test', { kind: 'status', takendown: true, nowMs: Date.now() })
    expect(await after()).toEqual([seq + 1])
    await vouch()
    const { numbers } = await house.pool.call(did, 'test', { kind: 'leave' })
    await house.pool.call(did, 'test', { kind: 'erase' })
    await house.pool.call(did, 'test', { kind: 'key' })
    await house.pool.call(did, 'test', { kind: 'open', outbox: [], after: numbers })
    expect(await after()).toEqual([seq + 1])
  })

  test('is vouched for only once what is on its way into it is there', async () => {
    const actor = await house.actor()
    const order: string[] = []
    await house.pool.call(actor.did, 'test', { kind: 'lend' })
    const vouched = house.pool
      .call(actor.did, 'test', { kind: 'vouch', seq: 1 })
      .then(() => order.push('vouched'))
    await house.pool.call(actor.did, 'test', { kind: 'last' })
    order.push('on its way')
    await house.pool.call(actor.did, 'test', { kind: 'return' })
    await vouched
    expect(order).toEqual(['on its way', 'vouched'])
  })

  test('of a departure is gone, and whoever read all of it learns so', async () => {
    const actor = await house.actor()
    await actor.create('one')
    const { did } = actor
    const { numbers } = await house.pool.call(did, 'test', { kind: 'leave' })
    expect(await failureOf(page(house, actor))).toMatchObject({ error: 'RepoNotFound' })
    await house.pool.call(did, 'test', { kind: 'erase' })
    await house.pool.call(did, 'test', { kind: 'key' })
    // As if the clock had been set back.
    const after = { ...numbers, seq: numbers.seq + 9e12 }
    await house.pool.call(did, 'test', { kind: 'open', outbox: [], after })
    const found = await page(house, actor, { after: after.seq })
    expect(shownOf(found)).toMatchObject([first])
    expect(found.pruned).toBeGreaterThan(after.seq)
    expect(found.seqs[0]).toBe(found.pruned + 1)
  })

  function hear() {
    const events: ReturnType<typeof pushed> = []
    house.pool.follow((push, bytes) => void events.push(...pushed(push, bytes)))
    return {
      events,
      of: (count: number) =>
        eventually(`${count} pushes`, () => (events.length >= count ? events : undefined), {
          everyMs: 1,
        }),
      stop: () => house.pool.follow(undefined),
    }
  }
})

test('a commit is whole where whoever sees all boundaries of now sees it as it happened', async () => {
  const dataDir = join(folder, 'rules')
  const before = await House.open('inline', dataDir)
  const { did, signingKey } = await before.actor()
  await before.known(did, signingKey).create('one', { record: inB('one') })
  await before.pool.close()
  const { rules } = seedBoot(dataDir, serviceDid)
  const house = await House.open('inline', dataDir, [{ rules: { ...rules, boundaries: [a] } }])
  const actor = house.known(did, signingKey)
  const heard: ReturnType<typeof pushed> = []
  house.pool.follow((push, bytes) => void heard.push(...pushed(push, bytes)))
  await actor.write(update('one', 'moved'))
  await actor.create('two')
  await eventually('two pushes', () => (heard.length === 2 ? true : undefined), { everyMs: 1 })
  await house.pool.close()
  // To whom b is nothing any more, the first came into being.
  expect(heard.map(({ isWhole }) => isWhole)).toEqual([false, true])
})

test.each(['last', 'events'] as const)(
  'a head of before a write, read for %s, hides no end',
  async (kind) => {
    const dataDir = join(folder, `beside-${kind}`)
    const house = await House.open('inline', dataDir)
    const { did } = await house.actor()
    await house.pool.close()
    let ends = 0
    const actors = new ActorsBeside(dataDir, (actor) => {
      const before = { ...actor }
      ends = actor.head.seq + 1
      events.grew(did, ends)
      return before
    })
    const push = () => undefined
    const events = new Events({ actors, turns: new Turns(), boundaries: [a, b], vouched: 0, push })
    if (kind === 'last') expect(await events.last(did)).toEqual({ seq: ends })
    else await events.page(did, { after: 0, eyes: 'all', except: [] })
    expect(await events.last(did)).toEqual({ seq: ends })
    await actors.close()
  },
)

function inB(text: string) {
  return post({ text, boundary: boundary(b) })
}

function create(rkey: string, record: unknown = post({ text: rkey })): WriteOp {
  return { action: 'create', collection, rkey: parseRkey(rkey), record }
}

function update(rkey: string, text: string, record: unknown = post({ text })): WriteOp {
  return { action: 'update', collection, rkey: parseRkey(rkey), record }
}

function remove(rkey: string): WriteOp {
  return { action: 'delete', collection, rkey: parseRkey(rkey) }
}
