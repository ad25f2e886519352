import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { type AtUri, type Nsid, parseNsid, parseRkey, type Rkey } from '../../src/atproto/syntax.ts'
import type { RecordOp } from '../../src/store/actor-change.ts'
import type { View } from '../../src/store/actor.ts'
import { pageBytesMax } from '../../src/store/actor-list.ts'
import { recordTakedownsMax } from '../../src/store/takedown.ts'
import { Actor, collection, place, put } from './changes.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const names = ['a', 'b', 'c', 'd']
/** They open alike, and the characters after that sort around the slash of a URI. */
const collections = [
  parseNsid('zone.stratos.feed.pos'),
  collection,
  parseNsid('zone.stratos.feed.post.a'),
  parseNsid('zone.stratos.feed.post0'),
]

const rkey = fc.stringMatching(/^[0aZ~:_-]{1,3}$/)
const record = fc.record({
  collection: fc.constantFrom(...collections),
  rkey,
  boundaries: fc.subarray(names, { minLength: 1 }),
  deleted: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, fc.constant(true)),
})
type Listed = typeof record extends fc.Arbitrary<infer One> ? One : never

const records = fc.uniqueArray(record, {
  maxLength: 25,
  selector: (one) => `${one.collection}/${one.rkey}`,
})
/** More than SQLite merges in one query. */
const further = Array.from({ length: 600 }, (_, index) => `further-${index}`)
const sight = fc.oneof(
  { weight: 2, arbitrary: fc.constant('all' as const) },
  { weight: 3, arbitrary: fc.subarray([...names, 'unknown']) },
  { weight: 1, arbitrary: fc.subarray(names).map((some) => some.concat(further)) },
)
/** Also of records that are not there, of either collection. */
const except = fc.array(
  fc
    .record({ rkey, collection: fc.constantFrom(...collections) })
    .map(({ rkey, collection }) => place(rkey, collection).uri),
  { maxLength: 12 },
)
const view: fc.Arbitrary<View> = fc.oneof(
  fc.constant('all' as const),
  fc.record({ boundaries: sight }),
  fc.record({ boundaries: sight, except }),
)
const query = fc.record({
  collection: fc.constantFrom(...collections),
  view,
  order: fc.constantFrom('ascending' as const, 'descending' as const),
  limit: fc.integer({ min: 1, max: 8 }),
  cursor: fc.option(rkey, { nil: undefined }),
})
type Query = typeof query extends fc.Arbitrary<infer One> ? One : never

test('a page holds what a naive search over all records finds, and is full when it can be', async () => {
  await fc.assert(
    fc.asyncProperty(
      records,
      fc.array(query, { minLength: 5, maxLength: 15 }),
      async (records, queries) => {
        const actor = await actorWith(records)
        for (const query of queries) {
          const cursor = query.cursor === undefined ? undefined : parseRkey(query.cursor)
          const page = await actor.store.list({ ...query, cursor })
          expect<string[]>(page.map((row) => row.uri)).toEqual(naive(records, query))
        }
        await actor.store.close()
      },
    ),
    { numRuns: 40 },
  )
})

test('pages from the start give every visible record once', async () => {
  await fc.assert(
    fc.asyncProperty(records, query, async (records, query) => {
      const actor = await actorWith(records)
      const seen: string[] = []
      for (let cursor: Rkey | undefined; ;) {
        const page = await actor.store.list({ ...query, cursor })
        seen.push(...page.map((row) => row.uri))
        if (page.length < query.limit) break
        cursor = page.at(-1)?.rkey
      }
      expect(seen).toEqual(naive(records, { ...query, cursor: undefined, limit: records.length }))
      await actor.store.close()
    }),
    { numRuns: 25 },
  )
})

test('what is hidden leaves no trace: a page is the same as if it had never been', async () => {
  await fc.assert(
    fc.asyncProperty(records, query, async (records, { view, ...query }) => {
      fc.pre(view !== 'all')
      const visible = records.filter((record) => isVisible(record, view))
      const [whole, part] = [await actorWith(records), await actorWith(visible)]
      const cursor = query.cursor === undefined ? undefined : parseRkey(query.cursor)
      const pages = await Promise.all(
        [whole, part].map((actor) => actor.store.list({ ...query, view, cursor })),
      )
      expect(pages[0]).toEqual(pages[1] ?? [])
      await Promise.all([whole.store.close(), part.store.close()])
    }),
    { numRuns: 20 },
  )
})

test('the collections are those of the records that are visible', async () => {
  await fc.assert(
    fc.asyncProperty(records, view, async (records, view) => {
      const actor = await actorWith(records)
      const visible = collections.filter((collection) => {
        const query = { collection, view, order: 'ascending', limit: 1, cursor: undefined } as const
        return naive(records, query).length > 0
      })
      expect(await actor.store.collections(view)).toEqual(visible.toSorted())
      await actor.store.close()
    }),
    { numRuns: 60 },
  )
})

test('what is taken down leaves no trace: a page is the same as if it had never been', async () => {
  await fc.assert(
    fc.asyncProperty(records, sight, except, query, async (records, boundaries, except, query) => {
      const rest = records.filter((record) => !except.includes(uriOf(record)))
      const [whole, part] = [await actorWith(records), await actorWith(rest)]
      const cursor = query.cursor === undefined ? undefined : parseRkey(query.cursor)
      const page = await whole.store.list({ ...query, view: { boundaries, except }, cursor })
      expect(page).toEqual(await part.store.list({ ...query, view: { boundaries }, cursor }))
      await Promise.all([whole.store.close(), part.store.close()])
    }),
    { numRuns: 40 },
  )
})

test('a page is full beside as many takedowns as a repo may have', async () => {
  const records = Array.from({ length: recordTakedownsMax + 3 }, (_, index) => ({
    collection,
    rkey: String(index).padStart(4, '0'),
    boundaries: ['a', 'b'],
    deleted: false,
  }))
  const actor = await actorWith(records)
  const except = records.slice(1, -2).map(uriOf)
  expect(except).toHaveLength(recordTakedownsMax)
  for (const boundaries of ['all', ['a'], ['b', 'a', 'c']] as const) {
    const view = { boundaries, except }
    const page = await actor.store.list({ collection, limit: 3, order: 'ascending', view })
    expect<string[]>(page.map((row) => row.rkey)).toEqual(['0000', '1001', '1002'])
  }
  await actor.store.close()
})

test('a page carries content and CID of each record', async () => {
  const actor = await actorWith([
    { collection, rkey: 'one', boundaries: ['a'], deleted: false },
    { collection, rkey: 'two', boundaries: ['a', 'b'], deleted: false },
  ])
  const base = { collection, limit: 10, order: 'descending' } as const
  for (const view of ['all', { boundaries: ['a', 'b'] }] as const) {
    expect(await actor.store.list({ ...base, view })).toEqual(
      ['two', 'one'].map((rkey) => {
        const { cid, content } = put(`${collection}/${rkey}`, 0).put
        const { uri, rkey: key } = place(rkey)
        return { uri, cid, rkey: key, content }
      }),
    )
  }
  await actor.store.close()
})

test('a page of large records is shorter, and never empty', async () => {
  const actor = await Actor.open(folder)
  const sizes = [300_000, 300_000, 300_000, 300_000, pageBytesMax + 1, 1]
  const ops = sizes.map((size, index): RecordOp => {
    const written = put('x'.repeat(size), index + 1)
    const op = { action: 'create', before: [], after: ['a'] } as const
    return Object.assign(op, written, place(`${index}`))
  })
  await actor.commit(ops)
  const base = { collection, limit: 10, order: 'ascending' } as const
  for (const view of ['all', { boundaries: ['a'] }] as const) {
    const pages: string[][] = []
    for (let cursor: Rkey | undefined; ;) {
      const page = await actor.store.list({ ...base, view, cursor })
      if (page.length === 0) break
      pages.push(page.map(({ rkey }) => rkey))
      cursor = page.at(-1)?.rkey
    }
    expect(pages).toEqual([['0', '1', '2'], ['3'], ['4'], ['5']])
  }
  await actor.store.close()
})

/** An actor who wrote all of the records, and then deleted some. */
async function actorWith(records: readonly Listed[]): Promise<Actor> {
  const actor = await Actor.open(folder)
  const ops = records.map((record, index): RecordOp => {
    const { rkey, collection, boundaries } = record
    const written = put(`${collection}/${rkey}`, index + 1)
    const at = place(rkey, collection)
    return { ...at, ...written, action: 'create', before: [], after: boundaries }
  })
  await actor.commit(ops)
  const deletions = records
    .filter(({ deleted }) => deleted)
    .map(({ rkey, collection, boundaries }): RecordOp => {
      const prev = put(`${collection}/${rkey}`, 0).put.cid
      const op = { action: 'delete', prev, before: boundaries, after: [] } as const
      return Object.assign(op, place(rkey, collection))
    })
  await actor.commit(deletions)
  return actor
}

function naive(records: readonly Listed[], query: Query): string[] {
  const { collection, view, order, limit, cursor } = query
  const sign = order === 'ascending' ? 1 : -1
  return records
    .filter((record) => record.collection === collection && isVisible(record, view))
    .map(({ rkey }) => rkey)
    .filter((rkey) => cursor === undefined || compare(rkey, cursor) * sign > 0)
    .sort((a, b) => compare(a, b) * sign)
    .slice(0, limit)
    .map((rkey) => place(rkey, collection).uri)
}

function isVisible(record: Listed, view: View): boolean {
  if (record.deleted || view === 'all') return !record.deleted
  const { boundaries, except = [] } = view
  if (except.includes(uriOf(record))) return false
  return boundaries === 'all' || record.boundaries.some((name) => boundaries.includes(name))
}

function uriOf({ rkey, collection }: { readonly rkey: string; readonly collection: Nsid }): AtUri {
  return place(rkey, collection).uri
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

test.each([
  ['written anew', ['a'], true],
  ['written anew for others', ['b'], false],
  ['deleted', undefined, false],
] as const)('a record that is %s while its page is read is so on it', async (_, after, isShown) => {
  const actor = await actorWith([{ collection, rkey: 'one', boundaries: ['a'], deleted: false }])
  const { cid: prev } = put(`${collection}/one`, 0).put
  const writes: Promise<unknown>[] = []
  // The store asks this between the rows of a page and their content.
  const known = () => {
    const base = { ...place('one'), prev, before: ['a'] }
    const { put: anew } = put('anew', (actor.head?.lastBlock ?? 0) + 1)
    const op: RecordOp =
      after === undefined
        ? { ...base, action: 'delete', after: [] }
        : { ...base, action: 'update', put: anew, after }
    writes.push(actor.commit([op]))
    return false
  }
  const query = { collection, limit: 10, order: 'descending', view: { boundaries: ['a'] } } as const
  const page = await actor.store.list(query, known)
  await Promise.all(writes)
  const { cid, content } = put('anew', 0).put
  const { uri, rkey: key } = place('one')
  expect(page).toEqual(isShown ? [{ uri, rkey: key, cid, content }] : [])
  await actor.store.close()
})

test('what is known by its CID comes without its content', async () => {
  const actor = await actorWith([
    { collection, rkey: 'one', boundaries: ['a'], deleted: false },
    { collection, rkey: 'two', boundaries: ['a'], deleted: false },
  ])
  const { cid } = put(`${collection}/two`, 0).put
  const query = { collection, limit: 10, order: 'ascending', view: 'all' } as const
  const page = await actor.store.list(query, (one) => one === cid)
  expect(page.map((row) => [row.rkey, 'content' in row])).toEqual([
    [place('one').rkey, true],
    [place('two').rkey, false],
  ])
  await actor.store.close()
})
