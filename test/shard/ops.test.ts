import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseRkey, recordUri, type Tid } from '../../src/atproto/syntax.ts'
import { nextTid, tidMicros } from '../../src/atproto/tid.ts'
import type { OpsCall, OpsFrom, RepoOp } from '../../src/service/calls.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import type { OpenActor } from '../../src/shard/actors.ts'
import { Ops } from '../../src/shard/ops.ts'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, collection, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { ActorsBeside } from './actors-beside.ts'
import { page, shownOf } from './followed.ts'
import { type Actor, House, kinds } from './pools.ts'

const folder = temporaryFolder()

describe.each(kinds)('%s: what was done to a repo', (kind) => {
  let house: House

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
  })
  afterAll(async () => {
    await house.pool.close()
  })

  test('is first what is there, in the order of the tree, and where to go on', async () => {
    const actor = await house.actor()
    for (const rkey of ['c', 'a', 'b']) await actor.create(rkey)
    await actor.remove('b')
    const { ops, seq, commit, next } = await list(actor)
    expect(ops).toMatchObject([
      { rkey: 'a', collection, prev: null, value: { text: 'a' } },
      { rkey: 'c', prev: null, value: { text: 'c' } },
    ])
    const { rev, cids } = await actor.verified()
    expect(ops.map(({ cid }) => String(cid))).toEqual([...cids.values()])
    expect([String(commit?.rev), next]).toEqual([rev, undefined])
    expect((await page(house, actor, { after: seq })).seqs).toEqual([])
  })

  test('goes on from the first page, whatever changes while others are read', async () => {
    const actor = await house.actor()
    for (const rkey of ['a', 'b', 'c']) await actor.create(rkey)
    const first = await list(actor, { limit: 1 })
    await actor.write(update('a', 'changed'))
    await actor.create('d')
    const rest = await list(actor, { limit: 100, from: first.next })
    expect([...first.ops, ...rest.ops].map(({ rkey }) => rkey)).toEqual(['a', 'b', 'c', 'd'])
    expect([rest.seq, rest.commit]).toEqual([first.seq, first.commit])
    const later = shownOf(await page(house, actor, { after: rest.seq }))
    expect(later.flatMap(({ ops }) => ops)).toEqual(['update a +', 'create d +'])
  })

  test('is then what happened since a rev, with what stood there before', async () => {
    const actor = await house.actor()
    const one = await actor.create('one')
    const two = await actor.create('two')
    await actor.apply([update('one', 'second'), remove('two'), create('three')])
    const { ops, seq, commit } = await list(actor, { from: { kind: 'since', rev: revOf(two) } })
    const { rev } = await actor.verified()
    expect(ops).toMatchObject([
      { rkey: 'one', prev: one.cid, rev, value: { text: 'second' } },
      { rkey: 'two', prev: two.cid, cid: null, rev },
      { rkey: 'three', prev: null, rev, value: { text: 'three' } },
    ])
    expect('value' in (ops[1] ?? {})).toBe(false)
    expect(String(commit?.rev)).toBe(rev)
    expect((await page(house, actor, { after: seq })).seqs).toEqual([])
    const left = await list(actor, {
      values: 'left-out',
      from: { kind: 'since', rev: revOf(one) },
    })
    expect(left.ops.map(({ rkey }) => rkey)).toEqual(['two', 'one', 'two', 'three'])
    expect(left.ops.some((op) => 'value' in op)).toBe(false)
  })

  test.each([1, 2, 3, 7])('comes whole in pages of %d, also within a commit', async (limit) => {
    const actor = await house.actor()
    const start = revOf(await actor.create('zero'))
    await actor.apply(['a', 'b', 'c', 'd', 'e'].map(create))
    await actor.apply([update('a', 'x'), inOther('f'), update('b', 'y')])
    await actor.write(remove('c'))
    const since: OpsFrom = { kind: 'since', rev: start }
    for (const eyes of ['all', [a], [b]] as const) {
      const { ops: whole } = await list(actor, { from: since, eyes })
      const found: RepoOp[] = []
      let from: OpsFrom | undefined = since
      while (from !== undefined) {
        const part: Awaited<ReturnType<typeof list>> = await list(actor, { from, limit, eyes })
        expect(part.ops.length).toBeGreaterThan(0)
        found.push(...part.ops)
        from = part.next
        // Whoever goes on by the stream instead misses nothing.
        if (from === undefined) break
        const rest = shownOf(await page(house, actor, { after: part.seq, eyes }))
        const total = rest.reduce((sum, { ops }) => sum + ops.length, 0)
        expect(total).toBeGreaterThanOrEqual(whole.length - found.length)
      }
      expect<readonly RepoOp[]>(found).toEqual(whole)
    }
  })

  test('tells who sees a part nothing of the rest, by no number', async () => {
    const actor = await house.actor()
    const start = revOf(await actor.create('start'))
    await actor.write(inOther('h1'))
    await actor.apply([inOther('h2'), create('s1'), inOther('h3'), create('s2')])
    await actor.write(inOther('h4'))
    await actor.create('s3')
    await actor.write(inOther('h5'))
    const hidden = new Set<number>()
    const all = shownOf(await page(house, actor))
    for (const { seq, ops } of all) {
      if (ops.every((op) => op.includes(' h'))) hidden.add(Number(seq))
    }
    expect(hidden.size).toBeGreaterThan(3)
    let from: OpsFrom | undefined = { kind: 'since', rev: start }
    while (from !== undefined) {
      const part: Awaited<ReturnType<typeof list>> = await list(actor, {
        from,
        limit: 1,
        eyes: [a],
      })
      const { next } = part
      if (next?.kind === 'after') {
        expect(hidden.has(next.seq)).toBe(false)
        expect(part.seq).toBe(next.seq - 1)
        // Of those that the reader was told, not of those that the commit has.
        expect(next.count).toBeLessThanOrEqual(2)
      }
      from = next
    }
    const present = await list(actor, {
      eyes: [a],
      limit: 1,
      from: { kind: 'present', after: '', start: { seq: 5 } },
    })
    expect(present.next).toEqual({
      kind: 'present',
      after: recordUri(actor.did, collection, parseRkey('s1')),
      start: { seq: 5 },
    })
    expect([present.seq, present.commit]).toEqual([5, undefined])
  })

  test('is refused where the log does not reach back', async () => {
    const actor = await house.actor()
    const one = revOf(await actor.create('one'))
    const two = revOf(await actor.create('two'))
    await actor.create('three')
    const time = '9999-01-01T00:00:00.000Z'
    await house.pool.call(actor.did, 'test', { kind: 'prune', time })
    const outdated = { status: 400, error: 'OutdatedCursor' }
    for (const rev of [one, nextTid({ nowMs: 1, clockId: 0 })]) {
      expect(await failureOf(list(actor, { from: { kind: 'since', rev } }))).toMatchObject(outdated)
    }
    const inside: OpsFrom = { kind: 'after', seq: tidMicros(two), count: 1 }
    expect(await failureOf(list(actor, { from: inside }))).toMatchObject(outdated)
    expect((await list(actor)).ops).toHaveLength(3)
  })

  test('has no content of what is taken down, or has since changed', async () => {
    const actor = await house.actor()
    const start = revOf(await actor.create('start'))
    await actor.create('bad')
    await actor.create('good')
    await actor.write(update('good', 'better'))
    const except = [recordUri(actor.did, collection, parseRkey('bad'))]
    const since = { kind: 'since', rev: start } as const
    const texts = async (over: Partial<OpsCall>) =>
      (await list(actor, over)).ops.map(({ rkey, value }) => [rkey, textOf(value)])
    expect(await texts({ from: since, except })).toEqual([
      ['bad', undefined],
      ['good', undefined],
      ['good', 'better'],
    ])
    expect(await texts({ except })).toEqual([
      ['bad', undefined],
      ['good', 'better'],
      ['start', 'start'],
    ])
    expect((await texts({ except: 'all' })).every(([, text]) => text === undefined)).toBe(true)
  })

  test('comes in pages of a mebibyte', async () => {
    const actor = await house.actor()
    const large = (rkey: string) =>
      actor.create(rkey, { record: post({ text: rkey, blob: 'x'.repeat(200_000) }) })
    for (let record = 0; record < 9; record++) await large(`r${record}`)
    const { ops, next } = await list(actor, { limit: 1000 })
    expect(ops).toHaveLength(6)
    expect((await list(actor, { limit: 1000, from: next })).ops).toHaveLength(3)
    expect((await list(actor, { limit: 1000, values: 'left-out' })).ops).toHaveLength(9)
  })

  function list(
    { did }: Actor,
    over: Partial<{ [Key in keyof OpsCall]: OpsCall[Key] | undefined }> = {},
  ) {
    const from: OpsFrom = over.from ?? { kind: 'present', after: `at://${did}/` }
    const { limit = 100, eyes = 'all', values = 'along', except = [] } = over
    const ask = { kind: 'ops', from, limit, eyes, values, except } as const
    return house.pool.call(did, 'test', ask)
  }
})

test('what was stored after the head was read is for the next page, not in both', async () => {
  const dataDir = join(folder, 'beside')
  const house = await House.open('inline', dataDir)
  const actor = await house.actor()
  const { did } = actor
  const start = revOf(await actor.create('start'))
  await actor.create('one')
  const seq = (await page(house, actor)).seqs.at(-1) ?? 0
  await actor.create('two')
  await house.pool.close()
  const beside = (open: OpenActor) => ({ ...open, head: { ...open.head, seq } })
  const actors = new ActorsBeside(dataDir, beside)
  const common = { kind: 'ops', limit: 100, eyes: 'all', values: 'along', except: [] } as const
  const found = await new Ops(actors).page(did, { ...common, from: { kind: 'since', rev: start } })
  await actors.close()
  expect(found).toMatchObject({ ops: [{ rkey: 'one' }], seq, next: undefined })
  const later = await House.open('inline', dataDir)
  const rest = await page(later, later.known(did, actor.signingKey), { after: found.seq })
  expect(shownOf(rest).flatMap(({ ops }) => ops)).toEqual(['create two +'])
  await later.pool.close()
})

function revOf({ commit }: { readonly commit?: { readonly rev: Tid } }): Tid {
  if (commit === undefined) throw new Error('nothing was written')
  return commit.rev
}

function textOf(value: object | undefined): unknown {
  return value !== undefined && 'text' in value ? value.text : undefined
}

function create(rkey: string): WriteOp {
  return { action: 'create', collection, rkey: parseRkey(rkey), record: post({ text: rkey }) }
}

/** Which readers of a do not see. */
function inOther(rkey: string): WriteOp {
  const record = post({ text: rkey, boundary: boundary(b) })
  return { action: 'create', collection, rkey: parseRkey(rkey), record }
}

function update(rkey: string, text: string): WriteOp {
  return { action: 'update', collection, rkey: parseRkey(rkey), record: post({ text }) }
}

function remove(rkey: string): WriteOp {
  return { action: 'delete', collection, rkey: parseRkey(rkey) }
}
