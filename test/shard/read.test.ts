import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { decode } from '../../src/atproto/cbor.ts'
import { parseCid } from '../../src/atproto/cid.ts'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { View } from '../../src/store/actor.ts'
import { a, b, boundary, collection, createdAt, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds, recordsOf } from './pools.ts'

const folder = temporaryFolder()
const otherCid = parseCid('bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq')

describe.each(kinds)('%s', (kind) => {
  let house: House
  let actor: Actor

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
    actor = await house.actor()
    await actor.create('one', { record: post({ text: 'one', boundary: boundary(a) }) })
    await actor.create('two', { record: post({ text: 'two', boundary: boundary(b) }) })
    await actor.create('three', { record: post({ text: 'three', boundary: boundary(a, b) }) })
  })

  afterAll(async () => {
    await house.pool.close()
  })

  test('a hidden record is answered like a missing one', async () => {
    const hidden = await read('two', { boundaries: [a] })
    expect(hidden).toEqual(await read('absent', { boundaries: [a] }))
    expect(hidden).toEqual(await read('two', { boundaries: [] }))
    expect(hidden).toMatchObject({ cid: null, texts: [] })
  })

  test('a record that is another version than asked for is not there', async () => {
    const record = await read('one', 'all')
    const ask = { kind: 'read', collection, rkey: parseRkey('one'), view: 'all' } as const
    const asked = (cid = otherCid) => house.pool.call(actor.did, 'test', { ...ask, cid })
    expect((await asked()).texts).toEqual([])
    expect(await asked(record.cid ?? otherCid)).toEqual(record)
  })

  test('a visible record comes with CID, value and the rev of the head', async () => {
    const { rev, cid, texts } = await read('three', { boundaries: [b] })
    expect(recordsOf({ texts })).toEqual([
      {
        uri: recordUri(actor.did, collection, parseRkey('three')),
        cid: cid ?? otherCid,
        value: {
          ...post({ text: 'three', boundary: boundary(a, b) }),
          createdAt,
          salt: { $bytes: expect.any(String) },
        },
      },
    ])
    expect<string>(rev).toBe((await actor.verified()).rev)
  })

  test('the text of a record is the JSON of what is stored, however often it is read', async () => {
    const text = 'Grüße, "quoted" \\ 👋 \u2028 \u0000 </script>'
    const { cid = otherCid } = await actor.create('text', { record: post({ text }) })
    const uri = recordUri(actor.did, collection, parseRkey('text'))
    using database = new Database(await actor.stored(), { readonly: true })
    const row = database
      .query<{ content: Uint8Array }, []>(
        "select content from stratos_record join stratos_repo_block on id = blockId where rkey = 'text'",
      )
      .get()
    const value = decode(new Uint8Array(row?.content ?? []))
    const expected = JSON.stringify({ uri, cid, value })
    expect(expected).toContain(JSON.stringify(text))
    const all = { kind: 'list', collection, limit: 1, order: 'descending', view: 'all' } as const
    const list = { ...all, cursor: parseRkey('text~') }
    const hydrate = { kind: 'hydrate', uris: [uri], view: 'all', hidden: 'missing' } as const
    for (let times = 0; times < 2; times++) {
      expect((await house.pool.call(actor.did, 'test', list)).texts).toEqual([expected])
      expect((await read('text', 'all')).texts).toEqual([expected])
      const found = await house.pool.call(actor.did, 'test', { ...hydrate, bytesMax: 1_000 })
      expect(found.texts).toEqual([expected])
    }
    await actor.remove('text')
  })

  test('records by URI come in the order asked for, within bytes, hidden ones where told', async () => {
    const uris = ['two', 'none', 'three', 'one'].map((rkey) =>
      recordUri(actor.did, collection, parseRkey(rkey)),
    )
    const base = { kind: 'hydrate', uris, view: { boundaries: [a] }, bytesMax: 10_000 } as const
    const ask = (hidden: 'named' | 'missing', more: { bytesMax?: number; view?: View } = {}) =>
      house.pool.call(actor.did, 'test', { ...base, hidden, ...more })
    const [told, untold] = [await ask('named'), await ask('missing')]
    expect(told).toEqual({ ...untold, hidden: [0] })
    expect(untold).toMatchObject({ found: [2, 3], hidden: [], unread: [] })
    expect(recordsOf(told).map(({ uri }) => uri)).toEqual(uris.slice(2))
    const excepted = { boundaries: [a], except: uris.slice(0, 1) }
    expect(await ask('named', { view: excepted })).toEqual(untold)
    const none = { boundaries: [] }
    expect(await ask('named', { view: none })).toMatchObject({ found: [], hidden: [0, 2, 3] })
    const bytesMax = told.contentBytes - 1
    expect(await ask('named', { bytesMax })).toMatchObject({ found: [2], hidden: [0], unread: [3] })
    expect(await ask('named', { bytesMax: 0 })).toMatchObject({ found: [], unread: [2, 3] })
  })

  test('a page ends with the key that the next one continues', async () => {
    const base = { kind: 'list', collection, limit: 1, order: 'descending' } as const
    const view = { boundaries: [a] }
    const page = (cursor?: string) => {
      const after = cursor === undefined ? undefined : parseRkey(cursor)
      return house.pool.call(actor.did, 'test', { ...base, view, cursor: after })
    }
    const [first, second, third] = [await page(), await page('three'), await page('one')]
    expect(first.last).toBe(parseRkey('three'))
    expect(recordsOf(first)).toMatchObject([{ value: { text: 'three' } }])
    // The second one is not shown, and neither does a cursor name it.
    expect(second.last).toBe(parseRkey('one'))
    expect(recordsOf(second)).toMatchObject([{ value: { text: 'one' } }])
    expect<object>(third).toEqual({ rev: first.rev, texts: [] })
  })

  function read(rkey: string, view: View) {
    const ask = { kind: 'read', collection, rkey: parseRkey(rkey), view } as const
    return house.pool.call(actor.did, 'test', ask)
  }
})

test.each(kinds)(
  '%s: an export that starts at any moment of a write is one good repo',
  async (kind) => {
    const house = await House.open(kind, join(folder, `moments-${kind}`))
    const actor = await house.actor()
    for (let moment = 0; moment < 40; moment++) {
      const writing = actor.create(`moment-${moment}`)
      for (let step = 0; step < moment; step++) await Promise.resolve()
      const { rkeys } = await actor.verified()
      expect(rkeys.length - moment).toBeOneOf([0, 1])
      await writing
    }
    expect((await actor.verified()).rkeys).toHaveLength(40)
    await house.pool.close()
  },
)
