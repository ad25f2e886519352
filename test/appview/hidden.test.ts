import { afterAll, beforeAll, expect, test } from 'bun:test'
import { PostgresServer } from '../kit/postgres.ts'
import { FeedReader } from './feed-reader.ts'
import { didOf, uriOf } from './small-index.ts'

const [ann, bad, zoe] = [didOf('ann'), didOf('bad'), didOf('zoe')]
const boundaries = ['a', 'b', 'c']
let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

test.each([1, 2, 3])(
  'pages are full below many posts that are hidden, with %d boundaries',
  async (count) => {
    await using reader = await FeedReader.open(server)
    const { index } = reader
    await index.enroll(zoe, boundaries.slice(0, count))
    for (const did of [ann, bad]) await index.enroll(did, boundaries)
    const at = (key: number) => key * 1000
    // The newest ones are hidden; every fourth of the others is in two boundaries.
    for (let key = 0; key < 120; key++) {
      const author = key < 30 ? ann : bad
      const named = [key % count, ...(key % 4 === 0 ? [(key + 1) % count] : [])]
      const names = [...new Set(named)].map((number) => boundaries[number] ?? '')
      await index.post({ author, rkey: String(key), boundaries: names, at: at(key) })
    }
    await index.takeDown(bad, '')
    const visible = Array.from({ length: 30 }, (_, back) => {
      return String(uriOf({ author: ann, rkey: String(29 - back) }))
    })
    const first = await reader.feed('getTimeline', zoe, { limit: 20 })
    expect(first.feed.map(({ post }) => post.uri)).toEqual(visible.slice(0, 20))
    const cursor = first.cursor ?? ''
    const second = await reader.feed('getTimeline', zoe, { limit: 20, cursor })
    expect(second.feed.map(({ post }) => post.uri)).toEqual(visible.slice(20))
    expect(second.cursor).toBeUndefined()
    expect(await reader.uris('getAuthorFeed', zoe, { actor: bad })).toEqual([])
  },
)
