import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseCid } from '../../src/atproto/cid.ts'
import { a, b, boundary, c, collection, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { House, kinds } from './pools.ts'

const folder = temporaryFolder()
const otherCid = parseCid('bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq')

describe.each(kinds)('%s: writes that come together', (kind) => {
  let house: House

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
  })

  afterAll(async () => {
    await house.pool.close()
  })

  test('a refused one does not hurt its neighbours', async () => {
    const actor = await house.actor()
    const writes = await Promise.allSettled([
      actor.create('one'),
      actor.create('two', { record: post({ text: 1 }) }),
      actor.create('three', { record: post({ boundary: boundary(c) }) }),
      actor.create('one'),
      actor.create('four', { swapCommit: otherCid }),
      actor.create('five'),
    ])
    expect(writes).toMatchObject([
      { status: 'fulfilled' },
      { reason: { status: 400, error: 'InvalidRecord' } },
      { reason: { status: 400, error: 'ForbiddenDomain' } },
      { reason: { status: 409, error: 'RecordAlreadyExists' } },
      { reason: { status: 400, error: 'InvalidSwap' } },
      { status: 'fulfilled' },
    ])
    expect((await actor.verified()).rkeys).toEqual(['five', 'one'])
  })

  test('a record can be made and deleted in one go, and made again', async () => {
    const actor = await house.actor()
    await Promise.all([
      actor.create('first'),
      actor.create('brief', { record: post({ boundary: boundary(a, b) }) }),
      actor.remove('brief'),
      actor.create('again', { record: post({ boundary: boundary(a) }) }),
      actor.remove('again'),
      actor.create('again', { record: post({ boundary: boundary(b) }) }),
      actor.remove('again'),
      actor.create('again', { record: post({ text: 'last' }) }),
    ])
    expect((await actor.verified()).rkeys).toEqual(['again', 'first'])
    expect(await actor.read('again')).toMatchObject({ value: { text: 'last' } })
    expect(await actor.read('brief')).toBeUndefined()
    const ops = eventsOf(await actor.stored()).flatMap(({ event }) => JSON.parse(event).ops)
    expect(ops).toMatchObject([
      { path: `${collection}/first` },
      { action: 'create', path: `${collection}/brief`, after: [a, b] },
      { action: 'delete', path: `${collection}/brief`, before: [a, b] },
      { action: 'create', path: `${collection}/again`, after: [a] },
      { action: 'delete', path: `${collection}/again`, before: [a] },
      { action: 'create', path: `${collection}/again`, after: [b] },
      { action: 'delete', path: `${collection}/again`, before: [b] },
      { action: 'create', path: `${collection}/again`, after: [a] },
    ])
  })

  test('swaps are decided in their order', async () => {
    const actor = await house.actor()
    const { cid, commit } = await actor.create('one')
    const swapCommit = commit?.cid
    const writes = await Promise.allSettled([
      actor.read('one'),
      actor.remove('one', { swapRecord: otherCid, swapCommit }),
      actor.create('two', { swapCommit }),
      actor.create('three', { swapCommit }),
      actor.remove('one', { swapRecord: cid }),
      actor.remove('one', { swapRecord: cid }),
      actor.remove('one'),
    ])
    expect(writes.slice(1)).toMatchObject([
      { reason: { status: 400, error: 'InvalidSwap' } },
      { status: 'fulfilled' },
      { reason: { status: 400, error: 'InvalidSwap' } },
      { status: 'fulfilled' },
      { reason: { status: 400, error: 'InvalidSwap' } },
      { status: 'fulfilled', value: {} },
    ])
    expect((await actor.verified()).rkeys).toEqual(['two'])
  })

  test('64 creates give 64 commits, with rev and seq growing, and one good repo', async () => {
    const actor = await house.actor()
    const answers = await Promise.all(Array.from({ length: 64 }, () => actor.create()))
    const revs = answers.map(({ commit }) => commit?.rev ?? '')
    expect(new Set(answers.map(({ commit }) => commit?.cid)).size).toBe(64)
    expect<string[]>(revs).toEqual([...new Set(revs)].toSorted())
    const events = eventsOf(await actor.stored())
    const seqs = events.map(({ seq }) => seq)
    expect(seqs).toHaveLength(65)
    expect(seqs).toEqual([...new Set(seqs)].toSorted((one, other) => one - other))
    expect<string[]>(events.slice(1).map(({ rev }) => rev)).toEqual(revs)
    const { rev, rkeys } = await actor.verified()
    expect<string | undefined>(rev).toBe(revs.at(-1))
    expect(rkeys).toEqual(answers.map(({ uri = '' }) => uri.split('/').at(-1) ?? ''))
  })
})

function eventsOf(path: string): { seq: number; rev: string; event: string }[] {
  using database = new Database(path, { readonly: true })
  return database
    .query<{ seq: number; rev: string; event: string }, []>(
      'select seq, rev, event from stratos_seq order by seq',
    )
    .all()
}
