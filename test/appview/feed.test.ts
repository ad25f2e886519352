import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { FeedReader } from './feed-reader.ts'
import {
  boundaryOf,
  didOf,
  otherServiceDid,
  recordOf,
  serviceDid,
  uriOf,
  urlOf,
} from './small-index.ts'

let server: PostgresServer
let reader: FeedReader
const [ann, ben, zoe] = [didOf('ann'), didOf('ben'), didOf('zoe')]

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  reader = await FeedReader.open(server)
  await reader.index.enroll(ann, ['a', 'b'])
  await reader.index.enroll(ben, ['a'])
  await reader.index.enroll(zoe, ['a', 'b', 'c'])
})
afterEach(async () => {
  await reader[Symbol.asyncDispose]()
})

/** Rkeys of one page. */
async function keys(name: string, viewer = zoe, params = {}): Promise<string[]> {
  const uris = await reader.uris(name, viewer, params)
  return uris.map((uri) => uri.slice(uri.lastIndexOf('/') + 1))
}

describe('a timeline', () => {
  test('is newest first, by the lesser of when a post was written and when it came', async () => {
    const { index } = reader
    await index.post({ author: ann, rkey: 'old', boundaries: ['a'], at: 1_000 })
    await index.post({ author: ben, rkey: 'new', boundaries: ['a'], at: 3_000 })
    await index.post({ author: ann, rkey: 'mid', boundaries: ['b'], at: 2_000 })
    await index.sql`update stratos_post set "createdAt" = "createdAt" + interval '1 year'`
    expect(await keys('getTimeline')).toEqual(['new', 'mid', 'old'])
    expect(await keys('getTimeline', ben)).toEqual(['new', 'old'])
  })

  test('shows a post of several boundaries once', async () => {
    for (const rkey of ['1', '2', '3']) {
      await reader.index.post({ author: ann, rkey, boundaries: ['a', 'b', 'c'], at: Number(rkey) })
    }
    expect(await keys('getTimeline')).toEqual(['3', '2', '1'])
    expect(await keys('getTimeline', zoe, { limit: 2 })).toEqual(['3', '2'])
  })

  test('is narrowed to one boundary', async () => {
    await reader.index.post({ author: ann, rkey: '1', boundaries: ['a'], at: 1 })
    await reader.index.post({ author: ann, rkey: '2', boundaries: ['a', 'b'], at: 2 })
    expect(await keys('getTimeline', zoe, { boundary: boundaryOf('a') })).toEqual(['2', '1'])
    expect(await keys('getTimeline', zoe, { boundary: boundaryOf('b') })).toEqual(['2'])
    expect(await keys('getTimeline', zoe, { boundary: 'a' })).toEqual([])
  })

  test('has 50 posts where nothing is said, and the rest behind its cursor', async () => {
    for (let at = 0; at < 52; at++) {
      await reader.index.post({ author: ann, rkey: String(at), boundaries: ['a'], at })
    }
    const { feed, cursor = '' } = await reader.feed('getTimeline', zoe)
    expect(feed).toHaveLength(50)
    expect(await keys('getTimeline', zoe, { cursor })).toEqual(['1', '0'])
    expect((await reader.feed('getTimeline', zoe, { cursor })).cursor).toBeUndefined()
    expect((await reader.feed('getTimeline', zoe, { limit: 52 })).cursor).toBeUndefined()
  })

  test('goes on behind a post that has gone, between posts of one time', async () => {
    const { index } = reader
    for (const rkey of ['1', '2', '3', '4']) {
      await index.post({ author: ann, rkey, boundaries: ['a'], at: 5 })
    }
    await index.sql`update stratos_post_boundary set "sortAt" = "sortAt" + interval '1 microsecond'
      where uri like '%/1'`
    await index.sql`update stratos_post
      set "createdAt" = "createdAt" + interval '1 microsecond',
        "indexedAt" = "indexedAt" + interval '1 microsecond' where rkey = '1'`
    const { feed, cursor = '' } = await reader.feed('getTimeline', zoe, { limit: 2 })
    expect(feed.map(({ post }) => post.uri.at(-1))).toEqual(['1', '4'])
    await index.remove(uriOf({ author: ann, rkey: '4' }))
    await index.post({ author: ann, rkey: '5', boundaries: ['a'], at: 5 })
    expect(await keys('getTimeline', zoe, { cursor })).toEqual(['3', '2'])
  })

  test('is of all services of the viewer, and shows what both have once', async () => {
    const { index } = reader
    await index.heard(otherServiceDid, reader.clock.ms)
    for (const did of [ann, zoe]) await index.enroll(did, ['a'], otherServiceDid)
    const there = { author: ann, boundaries: ['a'], service: otherServiceDid }
    await index.post({ author: ann, rkey: '1', boundaries: ['a'], at: 1 })
    await index.post({ ...there, rkey: '1', at: 1 })
    await index.post({ ...there, rkey: '2', at: 2 })
    expect(await keys('getTimeline')).toEqual(['2', '1'])
    expect(await keys('getTimeline', ben)).toEqual(['1'])
    await index.unenroll(ann)
    expect(await keys('getTimeline')).toEqual(['2', '1'])
  })

  test('ends a page early whose posts are large, but never before the first', async () => {
    const text = 'x'.repeat(600_000)
    for (const at of [1, 2, 3]) {
      await reader.index.post({ author: ann, rkey: String(at), boundaries: ['a'], at, text })
    }
    const pages: string[][] = []
    let cursor: string | undefined
    do {
      const page = await reader.feed('getTimeline', zoe, cursor === undefined ? {} : { cursor })
      pages.push(page.feed.map(({ post }) => post.uri.slice(-1)))
      cursor = page.cursor
    } while (cursor !== undefined)
    expect(pages).toEqual([['3'], ['2'], ['1']])
  })
})

describe('the feed of an author', () => {
  test('has the posts of that author that the viewer may see', async () => {
    await reader.index.post({ author: ann, rkey: '1', boundaries: ['a'], at: 1 })
    await reader.index.post({ author: ann, rkey: '2', boundaries: ['b'], at: 2 })
    await reader.index.post({ author: ben, rkey: '3', boundaries: ['a'], at: 3 })
    expect(await keys('getAuthorFeed', zoe, { actor: ann })).toEqual(['2', '1'])
    expect(await keys('getAuthorFeed', ben, { actor: ann })).toEqual(['1'])
    const narrowed = { actor: ann, boundary: boundaryOf('b') }
    expect(await keys('getAuthorFeed', zoe, narrowed)).toEqual(['2'])
  })

  test('is found by the handle, and that of nobody is empty', async () => {
    const did = reader.directory.add({ handle: 'ann.example' })
    reader.handles.set('ann.example', did)
    await reader.index.enroll(did, ['a'])
    await reader.index.post({ author: did, rkey: '1', boundaries: ['a'], at: 1 })
    expect(await keys('getAuthorFeed', zoe, { actor: 'Ann.Example' })).toEqual(['1'])
    reader.directory.accounts.set(did, { handle: 'eve.example' })
    reader.clock.ms += 4_000
    expect(await keys('getAuthorFeed', zoe, { actor: ben })).toEqual([])
  })
})

test('an item has its record as it was stored, and its author by the handle that leads there', async () => {
  const named = reader.directory.add({ handle: 'ann.example' })
  reader.handles.set('ann.example', named)
  const post = { author: named, rkey: '1', boundaries: ['a', 'c'], at: 1_000, text: 'a\0b' }
  await reader.index.enroll(named, ['a'])
  const uri = await reader.index.post(post)
  const item = {
    post: {
      uri,
      cid: expect.any(String),
      author: { did: named, handle: 'ann.example' },
      record: recordOf(post),
      indexedAt: '1970-01-01T00:00:01.000Z',
    },
  }
  expect(await reader.call('getTimeline', zoe)).toEqual({ feed: [item] })
  expect(await reader.call('getPost', zoe, { uri })).toEqual({ post: item })
})

test('an item names the blobs of its record, at the service that has them', async () => {
  const cid = cidToString(cidForRaw(Buffer.from('picture')))
  const image = { $type: 'blob', ref: { $link: cid }, mimeType: 'image/png', size: 7 }
  const embed = { $type: 'zone.stratos.embed.images', images: [{ image, alt: '' }] }
  const uri = await reader.index.post({ author: ann, rkey: '1', boundaries: ['a'], at: 1, embed })
  const url = `${urlOf(serviceDid)}/xrpc/com.atproto.sync.getBlob?${new URLSearchParams({ did: ann, cid }).toString()}`
  const blobs = [{ cid, mimeType: 'image/png', size: 7, url }]
  expect(await reader.call('getTimeline', ben)).toMatchObject({ feed: [{ post: { blobs } }] })
  expect(await reader.call('getPost', ben, { uri })).toMatchObject({ post: { post: { blobs } } })
  expect(await reader.call('getPostThread', ben, { uri })).toMatchObject({
    thread: { post: { blobs } },
  })
})
