import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type AtUri, parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { View } from '../../src/store/actor.ts'
import { readExport } from '../kit/export.ts'
import { a, b, boundary, collection, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds, recordsOf } from './pools.ts'

const folder = temporaryFolder()
/** Two records of one content have one CID: they bring the same salt. */
const twin = post({ text: 'twin', salt: { $bytes: 'AAAA' } })

describe.each(kinds)('%s: a record that is taken down', (kind) => {
  let house: House
  let actor: Actor
  const keys = ['one', 'three', 'twin-a', 'twin-b', 'two']

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
    actor = await house.actor()
    await actor.create('one', { record: post({ text: 'one', boundary: boundary(a) }) })
    await actor.create('two', { record: post({ text: 'two', boundary: boundary(a, b) }) })
    await actor.create('three', { record: post({ text: 'three', boundary: boundary(b) }) })
    for (const rkey of ['twin-a', 'twin-b']) await actor.create(rkey, { record: twin })
  })

  afterAll(async () => {
    await house.pool.close()
  })

  test('is answered like a missing one', async () => {
    for (const boundaries of ['all', [a], [a, b]] as const) {
      const view = { boundaries, except: [uri('two'), uri('absent')] }
      const missing = await read('absent', view)
      expect(missing).toMatchObject({ cid: null, texts: [] })
      expect(await read('two', view)).toEqual(missing)
      expect((await read('two', { boundaries })).texts).toHaveLength(1)
    }
  })

  test('is on no page, and no cursor names it', async () => {
    const base = { kind: 'list', collection, limit: 2, order: 'ascending' } as const
    const page = (view: View) => house.pool.call(actor.did, 'test', { ...base, view })
    const except = [uri('one'), uri('twin-a'), uri('twin-b')]
    expect(await page({ boundaries: 'all', except })).toMatchObject({ last: 'two' })
    const seen = await page({ boundaries: [a], except })
    expect(recordsOf(seen).map((record) => record.uri)).toEqual([uri('two')])
    expect(seen).toMatchObject({ last: 'two' })
    expect(await page({ boundaries: [a], except: [...except, uri('two')] })).toMatchObject({
      texts: [],
    })
  })

  test('is no target, neither for its owner', async () => {
    const uris = [uri('one'), uri('two')]
    for (const boundaries of ['all', [a]] as const) {
      const view = { boundaries, except: [uri('two')] }
      const ask = { kind: 'targets', uris, view } as const
      const found = await house.pool.call(actor.did, 'test', ask)
      expect(found.boundaries).toEqual({ [uri('one')]: [a] })
    }
  })

  test('stays in the tree of an export, without its content', async () => {
    const whole = await exported([])
    expect([...whole.cids.keys()]).toEqual(keys.map(path))
    expect(whole.withContent).toEqual(keys.map(path))
    const part = await exported([uri('one'), uri('three'), uri('absent')])
    expect(part.cids).toEqual(whole.cids)
    expect(part.withContent).toEqual(['twin-a', 'twin-b', 'two'].map(path))
    const none = await exported(keys.map(uri))
    expect(none).toEqual({ cids: whole.cids, withContent: [], recordBlocks: 0 })
  })

  test('leaves the same content of another record in the export, once', async () => {
    const whole = await exported([])
    expect(whole.cids.get(path('twin-a'))).toBe(whole.cids.get(path('twin-b')) ?? '')
    expect(whole.recordBlocks).toBe(4)
    for (const taken of ['twin-a', 'twin-b']) {
      expect(await exported([uri(taken)])).toEqual(whole)
    }
    const both = await exported([uri('twin-a'), uri('twin-b')])
    expect(both.withContent).toEqual(['one', 'three', 'two'].map(path))
  })

  test('can be deleted, and written anew', async () => {
    const view = { boundaries: 'all', except: [uri('four')] } as const
    const create = () => actor.create('four', { record: post({ text: 'four' }) })
    await create()
    const missing = await read('absent', view)
    expect(await read('four', view)).toMatchObject({ texts: missing.texts, cid: missing.cid })
    expect(await actor.remove('four')).toHaveProperty('commit')
    expect(await create()).toHaveProperty('uri', uri('four'))
    expect((await read('four', view)).texts).toEqual([])
    await actor.remove('four')
  })

  function uri(rkey: string): AtUri {
    return recordUri(actor.did, collection, parseRkey(rkey))
  }

  function read(rkey: string, view: View) {
    const ask = { kind: 'read', collection, rkey: parseRkey(rkey), view } as const
    return house.pool.call(actor.did, 'test', ask)
  }

  async function exported(except: readonly AtUri[]) {
    const bytes = await actor.export({ view: { boundaries: 'all', except } })
    return await readExport(bytes, actor.signingKey)
  }
})

function path(rkey: string): string {
  return `${collection}/${rkey}`
}
