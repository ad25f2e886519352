import { fromStream, fromUint8Array } from '@atcute/repo'
import { readCarWithRoot, verifyRepo, verifyRepoCar } from '@atproto/repo'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { View } from '../../src/store/actor.ts'
import { readExport } from '../kit/export.ts'
import { a, b, boundary, collection, post } from '../service/posts.ts'
import { type Actor, House } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { readCar } from './found-car.ts'

const folder = temporaryFolder()
const salt = { $bytes: 'AAAAAAAAAAAAAAAAAAAAAA' }
let house: House

beforeAll(async () => {
  house = await House.open('inline', join(folder, 'cars'))
})
afterAll(async () => {
  await house.bulk.close()
  await house.pool.close()
})

describe.each([0, 1, 2, 30, 1_500])('a repo of %d records', (count) => {
  let actor: Actor
  let car: Uint8Array

  beforeAll(async () => {
    actor = await house.actor()
    await fill(actor, count)
    car = await actor.export()
  })

  test('comes as its commit, each node before what is below it, records in their order', async () => {
    const { root, cids, inOrder, leaves } = await readCar(car)
    expect(cids[0]).toBe(root)
    expect(cids).toEqual(inOrder)
    expect([...leaves.keys()]).toEqual(await pathsOf(actor))
    expect(leaves.size).toBe(count)
  })

  test('verifies with @atproto/repo', async () => {
    const { root, blocks } = await readCarWithRoot(car)
    const { commit, creates } = await verifyRepo(blocks, root, actor.did, actor.signingKey)
    expect(creates).toHaveLength(count)
    expect((await verifyRepoCar(car, actor.did, actor.signingKey)).commit.rev).toBe(commit.rev)
  })

  test('is read by @atcute/repo, from its first byte on', async () => {
    const stream = new Blob([car.slice()]).stream()
    await using repo = fromStream(stream)
    const paths: string[] = []
    for await (const entry of repo) {
      paths.push(`${entry.collection}/${entry.rkey}`)
      expect(entry.record).toMatchObject({ $type: collection, text: entry.rkey })
    }
    // A record that came before its node, or far behind it, would be told later than the next ones.
    expect(paths).toEqual(await pathsOf(actor))
    expect(repo.missingBlocks).toEqual([])
  })
})

test('of records with one content the block comes once, where the first of them stands', async () => {
  const actor = await house.actor()
  const same = post({ text: 'same', salt })
  await fill(actor, 300)
  for (const rkey of ['a', 'm', 'post-100x', 'z']) await actor.create(rkey, { record: same })
  const car = await actor.export()
  const { cids, inOrder, leaves } = await readCar(car)
  const cid = leaves.get(`${collection}/a`) ?? ''
  expect([...leaves.values()].filter((one) => one === cid)).toHaveLength(4)
  expect(cids.filter((one) => one === cid)).toHaveLength(1)
  expect(cids).toEqual(inOrder)
  expect((await verifyRepoCar(car, actor.did, actor.signingKey)).creates).toHaveLength(304)
  expect([...fromUint8Array(car)]).toHaveLength(304)
})

test('records of the largest size are whole, also where they fill a piece by themselves', async () => {
  const actor = await house.actor()
  const extra = 'x'.repeat(255 * 1024)
  for (const rkey of ['a', 'b', 'c']) await actor.create(rkey, { record: post({ extra }) })
  expect((await actor.verified()).rkeys).toEqual(['a', 'b', 'c'])
})

describe('to eyes that may not see all', () => {
  let actor: Actor

  beforeAll(async () => {
    actor = await house.actor()
    await fill(actor, 40)
    await actor.create('of-a', { record: post({ text: 'of-a', boundary: boundary(a) }) })
    await actor.create('of-b', { record: post({ text: 'of-b', boundary: boundary(b) }) })
    const shared = post({ text: 'shared', salt, boundary: boundary(b) })
    await actor.create('shared', { record: shared })
    await actor.create('shared-too', { record: shared })
  })

  const uri = (rkey: string) => recordUri(actor.did, collection, parseRkey(rkey))
  const cases: [string, () => View, readonly string[]][] = [
    ['no boundary', () => ({ boundaries: [] }), []],
    ['one boundary', () => ({ boundaries: [b] }), ['of-b', 'shared', 'shared-too']],
    [
      'one boundary and a takedown',
      () => ({ boundaries: [b], except: [uri('of-b')] }),
      ['shared', 'shared-too'],
    ],
    [
      'takedowns of all of one content',
      () => ({ boundaries: [b], except: [uri('shared'), uri('shared-too')] }),
      ['of-b'],
    ],
  ]

  test.each(cases)(
    'of %s, the tree is whole and other content is not there',
    async (...[, of, keys]) => {
      const car = await actor.export({ view: of() })
      const { cids, withContent } = await readExport(car, actor.signingKey)
      expect(withContent).toEqual(keys.map((rkey) => `${collection}/${rkey}`))
      expect([...cids.keys()].toSorted()).toEqual(await pathsOf(actor))
      const text = Buffer.from(car).toString('latin1')
      for (const rkey of ['of-a', 'of-b', 'shared', 'post-7']) {
        expect(text.includes(`dtext${String.fromCharCode(0x60 + rkey.length)}${rkey}`)).toBe(
          keys.includes(rkey),
        )
      }
    },
  )

  test('of two records with one content the one that may be seen brings it', async () => {
    const car = await actor.export({ view: { boundaries: 'all', except: [uri('shared')] } })
    const { blocks, leaves } = await readCar(car)
    expect(leaves.get(`${collection}/shared`)).toBe(leaves.get(`${collection}/shared-too`) ?? '')
    expect(blocks.has(leaves.get(`${collection}/shared-too`) ?? '')).toBeTrue()
  })
})

/** Posts whose text is their key, in commits of up to 200. */
async function fill(actor: Actor, count: number): Promise<void> {
  const keys = Array.from({ length: count }, (_, index) => `post-${index}`)
  while (keys.length > 0) {
    await actor.apply(
      keys.splice(0, 200).map((text) => ({
        action: 'create',
        collection,
        rkey: parseRkey(text),
        record: post({ text }),
      })),
    )
  }
}

async function pathsOf(actor: Actor): Promise<string[]> {
  return (await actor.rkeys()).map((rkey) => `${collection}/${rkey}`)
}
