import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { feedPage, type FeedQuery } from '../../src/appview/feed-query.ts'
import { IndexReads } from '../../src/appview/index-reads.ts'
import { threadRows, visiblePost } from '../../src/appview/thread-query.ts'
import { connectIndex, type IndexSql } from '../../src/indexer/database.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { boundaryOf, didOf, serviceDid, SmallIndex, uriOf } from './small-index.ts'

const now = Date.UTC(2026, 0, 2)
const [author, zoe, few] = [didOf('author 7'), didOf('zoe'), didOf('few')]
const uri = uriOf({ author, rkey: '507' })
const answered = uriOf({ author: didOf('author 8'), rkey: '508' })
let server: PostgresServer
let url: string
let sql: IndexSql

/**
 * 100,000 posts of 500 authors, each in one of 20 boundaries, and 10,000 in a further one. Of one post
 * there are 200 answers, of another one 20,000.
 */
beforeAll(async () => {
  server = await PostgresServer.start()
  const index = await SmallIndex.open(server)
  await index.heard(serviceDid, now)
  await index.enroll(zoe, [...Array(20).keys(), 'many'].map(String))
  await index.enroll(few, ['3', 'empty'])
  const authors = Array.from({ length: 500 }, (_, number) => didOf(`author ${number}`))
  for (const did of authors) await index.enroll(did, ['0'])
  await index.sql`insert into stratos_enrollment
    select ${serviceDid}, 'did:plc:' || number, '', now(), now(), '{}'
    from generate_series(1, 50000) as number`
  await index.sql`
    insert into stratos_post (service, uri, cid, rkey, creator, text, boundaries, record,
      "createdAt", "indexedAt", "replyParent", "replyRoot")
    select ${serviceDid}, 'at://' || creator || '/zone.stratos.feed.post/' || number, 'c',
      number::text, creator, 't', case when number % 10 = 0 then array[own, ${boundaryOf('many')}]
        else array[own] end, '\\xa0', time, time, parent, parent
    from (
      select number, creator, ${`${serviceDid}/`} || number % 20 as own, ${new Date(now)}::timestamptz - number * interval '1 second' as time,
        case when number % 500 = 7 and number > 507 then ${uri}
          when number % 5 = 1 and number > 508 then ${answered} end as parent
      from (
        select number, ${authors}::text[] as authors from generate_series(1, 100000) as number
      ) as numbers cross join lateral (select authors[number % 500 + 1] as creator) as author
    ) as given`
  await index.sql`insert into stratos_post_boundary
    select service, boundary, "sortAt", uri, creator
    from stratos_post cross join unnest(boundaries) as b (boundary)`
  await index.sql`vacuum analyze`
  url = index.url
  await index[Symbol.asyncDispose]()
  sql = connectIndex({ url, connectionsMax: 1 })
}, 60_000)
afterAll(async () => {
  await sql.end()
  await server[Symbol.asyncDispose]()
})

const viewer = { did: zoe, now }
const page: FeedQuery = { viewer, limit: 50 }
const middle = { at: new Date(now - 50_000_000).toISOString(), uri: '' }
const reads: Record<string, (index: IndexReads) => Promise<unknown>> = {
  'a timeline': (index) => feedPage(index, page),
  'a timeline in its middle': (index) => feedPage(index, { ...page, after: middle }),
  'a timeline of one boundary': (index) => feedPage(index, { ...page, boundary: boundaryOf('7') }),
  'a timeline of few boundaries': (index) =>
    feedPage(index, { ...page, viewer: { did: few, now } }),
  'a timeline of nobody': (index) => feedPage(index, { ...page, viewer: { did: didOf('x'), now } }),
  'the feed of an author': (index) => feedPage(index, { ...page, author }),
  'a post': (index) => visiblePost(index, { viewer, uri }),
  'a thread': (index) => threadRows(index, { viewer, uri, depth: 6, parentHeight: 80 }),
  'a thread of very many answers': (index) =>
    threadRows(index, { viewer, uri: answered, depth: 6, parentHeight: 80 }),
}

// A statement that is prepared is planned for its parameters at first, and for any later on.
describe.each(['force_custom_plan', 'force_generic_plan'])('by a %s', (mode) => {
  test.each(Object.keys(reads))('%s reads no table of posts whole, and few rows', async (name) => {
    const before = await rowsRead()
    const index = new IndexReads({ url: `${url}?plan_cache_mode=${mode}`, connectionsMax: 1 })
    await reads[name]?.(index)
    // What a connection counted is there when it is no more.
    await index[Symbol.asyncDispose]()
    const after = await rowsRead()
    const scans = after.scans - before.scans
    expect({ scans, few: after.rows - before.rows < rowsMax }).toEqual({ scans: 0, few: true })
  })
})

test('a page of a timeline has its posts', async () => {
  await using index = new IndexReads({ url })
  const { posts } = await feedPage(index, page)
  expect(posts.map((post) => post.uri.split('/').at(-1))).toEqual(
    Array.from({ length: 50 }, (_, number) => String(number + 1)),
  )
})

test('of very many answers to a post the first ones are there', async () => {
  await using index = new IndexReads({ url })
  const thread = { viewer, uri: answered, depth: 6, parentHeight: 80 }
  const { anchor, below } = await threadRows(index, thread)
  expect(anchor?.uri).toBe(answered)
  expect(below.map(({ post }) => Number(post.uri.split('/').at(-1)))).toEqual(
    Array.from({ length: 100 }, (_, number) => 99_996 - number * 5),
  )
})

/** A page looks at some more posts than it shows: a few of each of 21 boundaries, twice. */
const rowsMax = 500

/** How often the tables of posts were read whole, and how many of their rows were looked at. */
async function rowsRead(): Promise<{ readonly scans: number; readonly rows: number }> {
  const [row] = await sql<{ readonly scans: number; readonly rows: number }[]>`
    select sum(seq_scan)::integer as scans, sum(seq_tup_read + idx_tup_fetch)::integer as rows
    from pg_stat_user_tables where relname in ('stratos_post', 'stratos_post_boundary')`
  if (row === undefined) throw new Error('nothing is counted')
  return row
}
