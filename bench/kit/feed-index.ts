import { encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import {
  type AtUri,
  type Did,
  parseDid,
  parseNsid,
  parseRkey,
  recordUri,
} from '../../src/atproto/syntax.ts'
import type { TransactionSql } from 'postgres'
import type { IndexSql } from '../../src/indexer/database.ts'
import { benchDid } from './people.ts'

export interface FeedIndexSize {
  readonly posts: number
  readonly people: number
}

type Transaction = TransactionSql<{ bigint: number }>

export const boundaryCount = 50
/** Has some posts; the one before it had as many, long ago. */
const quietest = boundaryCount - 1
/** Post 0 has so many answers. */
const answersMax = 1_000

/** Somebody who is in these boundaries, and writes nothing. */
export const viewers = {
  quiet: { number: 1_000_002, boundaries: [quietest] },
  past: { number: 1_000_003, boundaries: [quietest - 1] },
  all: { number: 1_000_004, boundaries: Array.from({ length: boundaryCount }, (_, at) => at) },
}

export function boundaryName(index: number): string {
  return `${service}/b${index}`
}

/** Of the people who write, by number: one to five. */
export function memberBoundaries(number: number): number[] {
  const places = Array.from({ length: 1 + (number % 5) }, (_, at) => number * 7 + at * at * 11)
  return [...new Set(places.map((place) => place % (boundaryCount - 2)))]
}

export function uriOfPost(number: number, { people }: FeedIndexSize): AtUri {
  const rkey = parseRkey(`3l${String(number).padStart(11, '0')}`)
  return recordUri(authorOfPost(number, people), collection, rkey)
}

function authorOfPost(number: number, people: number): Did {
  return benchDid((number * stride) % people)
}

/**
 * Fills an empty index, of a year. Threads are of 30 posts, each of which is answered by two others, but
 * for the first thousand posts, which all answer post 0. One boundary has a quarter of all posts, others one
 * in two hundred; of a million the last has 180, the one before it as many of the first week. Every other
 * thread is in two of them. Of a hundred people one is taken down, and of 5,000 posts.
 */
export async function fillFeedIndex(sql: IndexSql, size: FeedIndexSize, now: Date): Promise<void> {
  const { posts, people } = size
  await sql.begin(async (sql) => {
    await sql`set local statement_timeout = 0`
    await sql`set local maintenance_work_mem = '256MB'`
    await prepare(sql, size, now)
    const indexes = await withoutIndexes(sql)
    await sql.unsafe(postsText, [service, people, now.toISOString(), posts])
    await sql.unsafe(placesText)
    for (const index of indexes) await sql.unsafe(index)
    await sql`insert into stratos_takedown
      select ${service}, did, '' from bench_person where number % 100 = 99 and number < ${people}`
    await sql`insert into stratos_takedown
      select service, creator, ${`${collection}/`} || rkey from stratos_post
      where right(rkey, 11)::bigint % 5000 = 4999`
    await sql`drop table bench_person, bench_sample`
  })
  const connection = await sql.reserve()
  await connection`set statement_timeout = 0`
  await connection`vacuum analyze`
  await connection`reset statement_timeout`
  connection.release()
}

/** Rows come faster before them. @returns the statements that make them again */
async function withoutIndexes(sql: Transaction): Promise<string[]> {
  const found = await sql<{ name: string; text: string }[]>`
    select indexname as name, indexdef as text from pg_indexes
    where tablename in ('stratos_post', 'stratos_post_boundary')
      and indexname not in (select conname from pg_constraint)`
  for (const { name } of found) await sql`drop index ${sql(name)}`
  return found.map(({ text }) => text)
}

async function prepare(sql: Transaction, { people }: FeedIndexSize, now: Date): Promise<void> {
  await sql`insert into stratos_service_state values (${service}, '', ${now})`
  await sql`create temp table bench_person (number integer primary key, did text)`
  await sql`create temp table bench_sample (number integer primary key, cid text, record bytea)`
  for (let number = 0; number < people; number++) {
    await enroll(sql, { number, boundaries: memberBoundaries(number) }, now)
  }
  for (const { number, boundaries } of Object.values(viewers)) {
    await enroll(sql, { number, boundaries }, now)
  }
  for (let number = 0; number < samples; number++) {
    const record = encode({
      $type: collection,
      text: `Post ${number}, of the length that people write most often, with an é in it.`,
      createdAt: now.toISOString(),
      langs: ['en'],
      boundary: { values: [{ value: boundaryName(number % boundaryCount) }] },
      salt: { $bytes: 'nFERjvLLiw9qm45JrqH9QQ' },
    })
    await sql`insert into bench_sample
      values (${number}, ${cidToString(cidForCbor(record))}, ${Buffer.from(record)})`
  }
}

async function enroll(
  sql: Transaction,
  { number, boundaries }: { readonly number: number; readonly boundaries: readonly number[] },
  now: Date,
): Promise<void> {
  const did = benchDid(number)
  await sql`insert into bench_person values (${number}, ${did})`
  await sql`insert into stratos_enrollment
      (service, did, "serviceUrl", "enrolledAt", "lastChecked", boundaries)
    values (${service}, ${did}, '', ${now}, ${now}, ${boundaries.map(boundaryName)})`
}

const service = parseDid('did:web:stratos.test')
const collection = parseNsid('zone.stratos.feed.post')
const samples = 1_000
/** Prime: neighbours are of different people, and everybody has as many. */
const stride = 7919

const uri = (number: string, did: string) =>
  `'at://' || ${did} || '/${collection}/3l' || lpad((${number})::text, 11, '0')`
const first = `case when n < ${answersMax} then 0 else n - n % 30 end`
const parent = `case when n < ${answersMax} then 0 else n - n % 30 + (n % 30 - 1) / 2 end`

/** Of the boundaries of a thread the first one. Parameters: service, people, time, posts. */
const main = `case when thread % 5000 = 4999 then ${quietest}
      when thread % 100 = 99 and n < $4::bigint / 50 then ${quietest - 1}
      else floor(power((thread * 7919 % 100003) / 100003.0, 3) * ${quietest - 1})::integer
      end`

/** Parameters: service, people, time of the newest, posts. */
const postsText = `
  insert into stratos_post (service, uri, cid, rkey, creator, text, "replyRoot", "replyRootCid",
    "replyParent", "replyParentCid", boundaries, record, "createdAt", "indexedAt")
  select $1, ${uri('n', 'person.did')}, sample.cid, '3l' || lpad(n::text, 11, '0'), person.did, 'Post',
    case when given.answers then ${uri(first, 'root.did')} end,
    case when given.answers then sample.cid end,
    case when given.answers then ${uri(parent, 'parent.did')} end,
    case when given.answers then sample.cid end,
    case when thread % 2 = 0 or main >= ${quietest - 1} then array[$1 || '/b' || main]
      else array[$1 || '/b' || main, $1 || '/b' || (main + 1) % ${quietest - 1}] end,
    sample.record, given.at, given.at
  from (
    select n, thread, ${main} as main,
      (n < ${answersMax} and n > 0) or (n >= ${answersMax} and n % 30 > 0) as answers,
      $3::timestamptz - interval '1 year' * (($4::bigint - n)::float8 / $4::bigint) as at
    from generate_series(0, $4::bigint - 1) n
      cross join lateral (select case when n < ${answersMax} then 0 else n / 30 end as thread) t
  ) given
  join bench_person person on person.number = n * ${stride} % $2::bigint
  join bench_person root on root.number = (${first}) * ${stride} % $2::bigint
  join bench_person parent on parent.number = (${parent}) * ${stride} % $2::bigint
  join bench_sample sample on sample.number = n % ${samples}`

const placesText = `
  insert into stratos_post_boundary (service, boundary, "sortAt", uri, creator)
  select service, boundary, "sortAt", uri, creator
  from stratos_post cross join unnest(boundaries) as b (boundary)
  order by 2, 3, 4`
