import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { checkDataObject } from '../../src/atproto/data.ts'
import { parseCid } from '../../src/atproto/cid.ts'
import { ImportMoves } from '../../src/bulk/import-moves.ts'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, post } from '../service/posts.ts'
import { type Actor, House } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { importInto } from './arriving.ts'
import { contentsOf } from './contents.ts'
import { dumpOf } from './dump.ts'
import { foreignPosts, keyOf, pathOf } from './foreign-posts.ts'
import { ForeignRepo } from './foreign-repo.ts'

const folder = temporaryFolder()
const [oldA, oldB, oldC] = ['a', 'b', 'c'].map((name) => `did:web:old.test/${name}`)
const boundaryMap = [
  [oldA ?? '', a],
  [oldB ?? '', b],
  [oldC ?? '', b],
] as const
const elsewhere = 'at://did:web:other.test/zone.stratos.feed.post/one'
const otherCid = 'bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq'

let house: House
let actor: Actor
beforeAll(async () => {
  house = await House.open('inline', join(folder, 'data'))
})
afterAll(async () => {
  await house.bulk.close()
  await house.pool.close()
})

interface Ref {
  readonly uri: string
  readonly cid: string
}

describe('refused, with nothing changed,', () => {
  test('are records with boundaries of elsewhere that nothing maps, a hundred of them named', async () => {
    actor = await house.actor()
    const before = dumpOf(await actor.stored())
    const repo = new ForeignRepo(actor.did, foreignPosts(150, { boundary: boundary(oldA) }))
    repo.put(pathOf('fine'), post())
    repo.put(pathOf('half'), post({ boundary: boundary(a, oldC) }))
    const uris = Array.from({ length: 150 }, (_, index) => uriOf(actor, keyOf(index)))
    for (const maps of [[], boundaryMap.slice(1, 2)]) {
      const failure = await failureOf(
        importInto(house, actor, { car: repo.car(), boundaryMap: maps }),
      )
      expect(failure).toMatchObject({
        status: 400,
        error: 'ServiceMismatch',
        message: expect.stringMatching(/^151 records have .* The first is at:.*\/half$/),
        fields: { uris: [uriOf(actor, 'half'), ...uris.slice(0, 99)] },
      })
      expect(dumpOf(actor.database)).toBe(before)
    }
  })

  test('is a record that has too many boundaries when they are mapped, or a foreign one left', async () => {
    for (const [names, error] of [
      [[oldA, oldB, 'did:web:third.test/x'], 'ServiceMismatch'],
      [[oldA, 'did:web:stratos.test/c'], 'ForbiddenDomain'],
      [[], 'MissingBoundary'],
    ] as const) {
      const repo = new ForeignRepo(actor.did, {
        [pathOf('one')]: post({ boundary: boundary(...names) }),
      })
      const failure = await failureOf(importInto(house, actor, { car: repo.car(), boundaryMap }))
      expect(failure).toMatchObject({ status: 400, error })
    }
  })
})

describe('with a map of boundaries', () => {
  beforeAll(async () => {
    actor = await house.actor()
    const repo = new ForeignRepo(actor.did)
    const put = (rkey: string, over: object) => refOf(repo, rkey, post({ text: rkey, ...over }))
    const root = put('m-root', { boundary: boundary(oldA, oldB) })
    const older = { uri: root.uri, cid: otherCid }
    const reply = put('a-reply', { boundary: boundary(oldB), reply: { root, parent: root } })
    const quote = put('z-quote', { boundary: boundary(oldC), embed: quoteOf(reply) })
    put('b-media', { boundary: boundary(oldC), embed: quoteWithMedia(quote) })
    put('c-older', { boundary: boundary(oldA), embed: quoteOf(older) })
    put('d-others', { boundary: boundary(oldA), embed: quoteOf({ uri: elsewhere, cid: otherCid }) })
    put('e-both', { boundary: boundary(oldB, oldC, b) })
    put('f-ours', { boundary: boundary(b) })
    put('g-refers', { boundary: boundary(b), embed: quoteOf(reply) })
    put('h-missing', {
      boundary: boundary(a),
      embed: quoteOf({ ...root, uri: `${root.uri}-gone` }),
    })
    put('i-salt', { boundary: boundary(oldA), salt: { $bytes: 'AAAA' } })
    came = repo.cids
    imported = await importInto(house, actor, { car: repo.car(), boundaryMap })
    found = contentsOf(await actor.stored())
  })
  let came: ReadonlyMap<string, string>
  let imported: object
  let found: ReturnType<typeof contentsOf>
  const at = (rkey: string) => ({ uri: uriOf(actor, rkey), cid: found.get(rkey)?.cid ?? '' })
  const record = (rkey: string) => found.get(rkey)?.record

  test('all records are there, and it is told how many are others now', async () => {
    expect(imported).toEqual({ records: 11, rewritten: 9 })
    const changed = [...came].filter(([rkey, cid]) => found.get(rkey)?.cid !== cid)
    expect(changed.map(([rkey]) => rkey).toSorted()).toEqual(
      [...came.keys()].filter((rkey) => !['f-ours', 'h-missing'].includes(rkey)).toSorted(),
    )
    expect((await actor.verified()).cids).toEqual(
      new Map([...found].map(([rkey, { cid }]) => [rkey, cid])),
    )
  })

  test('references among them point to what they have become', () => {
    const [root, reply, quote] = ['m-root', 'a-reply', 'z-quote'].map((rkey) => at(rkey))
    expect(record('a-reply')?.['reply']).toEqual({ root: { ...root }, parent: { ...root } })
    expect(record('z-quote')?.['embed']).toEqual(quoteOf(reply ?? at('')))
    expect(record('b-media')?.['embed']).toEqual(quoteWithMedia(quote ?? at('')))
    expect(record('g-refers')?.['embed']).toEqual(quoteOf(reply ?? at('')))
  })

  test('references to older versions, to others and to what is gone are left alone', () => {
    expect(record('c-older')?.['embed']).toEqual(quoteOf({ uri: at('m-root').uri, cid: otherCid }))
    expect(record('d-others')?.['embed']).toEqual(quoteOf({ uri: elsewhere, cid: otherCid }))
    const gone = { uri: `${at('m-root').uri}-gone`, cid: came.get('m-root') ?? '' }
    expect(record('h-missing')?.['embed']).toEqual(quoteOf(gone))
  })

  test('boundaries are ours, two that became one are named once, and all else is as it was', () => {
    expect(record('m-root')?.['boundary']).toEqual(boundary(a, b))
    expect(record('e-both')?.['boundary']).toEqual(boundary(b))
    expect(record('i-salt')).toEqual({
      ...post({ text: 'i-salt', salt: { $bytes: 'AAAA' } }),
      boundary: boundary(a),
    })
    expect(record('a-reply')).not.toHaveProperty('salt')
  })
})

test.each(['oldest first', 'newest first'])('a thread of 20,000 replies, %s', async (order) => {
  const count = 20_000
  const one = await house.actor()
  const repo = new ForeignRepo(one.did)
  let root: Ref | undefined
  let parent: Ref | undefined
  const keyAt = (index: number) => keyOf(order === 'oldest first' ? index : count - 1 - index)
  for (let index = 0; index < count; index++) {
    const reply = root === undefined || parent === undefined ? {} : { reply: { root, parent } }
    const record = post({ text: `${index}`, boundary: boundary(oldA), ...reply })
    parent = refOf(repo, keyAt(index), record)
    root ??= parent
  }
  const imported = await importInto(house, one, { car: repo.car(), boundaryMap })
  expect(imported).toEqual({ records: count, rewritten: count })
  const found = contentsOf(await one.stored())
  const at = (index: number) => {
    return { uri: uriOf(one, keyAt(index)), cid: found.get(keyAt(index))?.cid ?? '' }
  }
  for (let index = 1; index < count; index++) {
    const reply = found.get(keyAt(index))?.record['reply']
    if (Bun.deepEquals(reply, { root: at(0), parent: at(index - 1) })) continue
    expect(reply).toEqual({ root: at(0), parent: at(index - 1) })
  }
  expect((await one.verified()).cids.size).toBe(count)
})

test('others have a turn at each step through a thread', async () => {
  const did = actor.did
  const repo = new ForeignRepo(did)
  const records = new Map<string, object>()
  let parent: Ref | undefined
  for (let index = 0; index < 100; index++) {
    const record = post(parent === undefined ? {} : { embed: quoteOf(parent) })
    parent = refOf(repo, keyOf(index), record)
    records.set(parent.cid, record)
  }
  const path = join(folder, 'moves')
  let steps = 0
  {
    await using moves = new ImportMoves({
      path,
      did,
      map: new Map([[a, b]]),
      record: (cid) => dataOf(records.get(cid)),
      step: async () => void (steps += 1),
    })
    for (const [rkey, cid] of repo.cids) {
      moves.add(pathOf(rkey), parseCid(cid), dataOf(records.get(cid)))
    }
    await moves.moved(dataOf(records.get(parent?.cid ?? '')))
  }
  expect(steps).toBeGreaterThanOrEqual(99)
})

function uriOf({ did }: Actor, rkey: string): string {
  return `at://${did}/${pathOf(rkey)}`
}

function refOf(repo: ForeignRepo, rkey: string, record: object): Ref {
  const cid = repo.put(pathOf(rkey), record)
  return { uri: `at://${repo.did}/${pathOf(rkey)}`, cid }
}

function quoteOf(record: Ref) {
  return { $type: 'app.bsky.embed.record', record }
}

function quoteWithMedia(record: Ref) {
  const external = { uri: 'https://example.com', title: '', description: '' }
  const media = { $type: 'app.bsky.embed.external', external }
  return { $type: 'app.bsky.embed.recordWithMedia', record: quoteOf(record), media }
}

function dataOf(value: unknown) {
  checkDataObject(value)
  return value
}
