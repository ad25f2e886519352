import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import { standings } from '../../src/indexer/actors.ts'
import { backfill, type BackfillPage } from '../../src/indexer/backfill.ts'
import { openIndex } from '../../src/indexer/database.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { commit, otherService, post, put, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { failureOf } from '../kit/wait.ts'
import { rowsOf } from './model.ts'
import { unindexable } from './trouble.ts'

const alice = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')
const bob = parseDid('did:plc:bobaaaaaaaaaaaaaaaaaaaaa')
const actor = { service, did: alice }
const a = `${service}/a`

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

/** Both are enrolled, and have a post from event 5. */
async function start() {
  const url = await server.database()
  const sql = await openIndex({ url })
  let nowMs = Date.UTC(2026, 0, 1)
  const now = () => nowMs++
  const writer = new IndexWriter({ index: { url }, now })
  for (const did of [alice, bob]) {
    const member = { service, did, serviceUrl: 's', enrolledAt: new Date(0), boundaries: [a] }
    await writer.setEnrollment(member)
    await writer.write([commit(did, 5, put('old', post([a])), put('stays', later))])
  }
  const fill = (pages: AsyncIterable<BackfillPage>) => backfill({ url }, pages, { actor, now })
  const end = async () => {
    expect(await sql`select 1 from stratos_backfill_page`).toHaveLength(0)
    await writer[Symbol.asyncDispose]()
    await sql.end()
  }
  return { sql, writer, fill, [Symbol.asyncDispose]: end }
}

/** Its place in feeds is when it was first indexed. */
const later = post([a], { createdAt: '2030-01-01T00:00:00Z' })

async function* pagesOf(seq: number, ...pages: BackfillPage['records'][]) {
  for (const records of pages) yield { seq, records }
}

describe('a backfill changes nothing', () => {
  test('of somebody who has left', async () => {
    await using at = await start()
    await at.writer.endEnrollment(actor)
    expect(await at.fill(pagesOf(9, [put('new', post([a]))]))).toEqual({ kind: 'not-enrolled' })
    expect(JSON.stringify(await rowsOf(at.sql))).not.toContain(alice)
  })

  test('that events have outrun', async () => {
    await using at = await start()
    const before = await rowsOf(at.sql)
    expect(await at.fill(pagesOf(4, [put('new', post([a]))]))).toEqual({ kind: 'outrun' })
    expect(await at.fill(pagesOf(4))).toEqual({ kind: 'outrun' })
    expect(await rowsOf(at.sql)).toEqual(before)
  })

  test('that is cut off', async () => {
    await using at = await start()
    const before = await rowsOf(at.sql)
    const cut = async function* () {
      yield* pagesOf(9, [put('new', post([a]))])
      throw new Error('the service is gone')
    }
    expect(String(await failureOf(at.fill(cut())))).toContain('the service is gone')
    expect(await rowsOf(at.sql)).toEqual(before)
  })

  test('whose pages another one took away', async () => {
    await using at = await start()
    const before = await rowsOf(at.sql)
    const robbed = async function* () {
      yield* pagesOf(9, [put('new', post([a]))])
      await at.sql`delete from stratos_backfill_page`
    }
    expect(await at.fill(robbed())).toEqual({ kind: 'outrun' })
    expect(await rowsOf(at.sql)).toEqual(before)
  })
})

describe('a backfill', () => {
  test('takes the place of all rows of the actor, and of no others', async () => {
    await using at = await start()
    const path = 'zone.stratos.feed.post/old'
    await at.writer.write([
      { kind: 'status', service, did: alice, seq: 6, path, takendown: true },
      commit(alice, 7, put('bad', post([a], unindexable))),
    ])
    const old = await rowsOf(at.sql)
    const pages = pagesOf(9, [put('new', post([a]))], [put('stays', later)], [])
    expect(await at.fill(pages)).toEqual({ kind: 'replaced', posts: 2, parked: [] })
    const { posts, cursors, takedowns, parked } = await rowsOf(at.sql)
    const ofBob = old.posts.filter((row) => row.includes(bob))
    const stayed = old.posts.filter((row) => row.includes(`${alice}/zone.stratos.feed.post/stays`))
    expect(stayed).toHaveLength(1)
    expect(posts).toHaveLength(4)
    expect(posts).toEqual(expect.arrayContaining([...ofBob, ...stayed]))
    expect(posts.join()).not.toContain(`${alice}/zone.stratos.feed.post/old`)
    expect(cursors).toContain(`${service} ${alice} 9 f`)
    expect([takedowns, parked]).toEqual([[], []])
  })

  test('has its rows where feeds look for them', async () => {
    await using at = await start()
    await at.fill(pagesOf(9, [put('new', post([a, `${service}/b`]))]))
    const rows = await at.sql`select b.boundary from stratos_post p
      join stratos_post_boundary b using (service, uri, creator, "sortAt")
      where creator = ${alice} order by boundary`
    expect(rows.map(({ boundary }) => String(boundary))).toEqual([a, `${service}/b`])
  })

  test('leaves out what cannot be stored, and says so', async () => {
    await using at = await start()
    const records = [
      put('new', post([a])),
      put('bad', post([a], unindexable)),
      put('old', { ...post([a]), text: 7 }),
      put('far', post([`${otherService}/a`, a])),
      put('new', post([a], { text: 'once more' })),
    ]
    const outcome = await at.fill(pagesOf(9, records, [put('far', post([a]))]))
    const reasons = 'names boundaries of another service; refused by the database'
    if (outcome.kind !== 'replaced') throw new Error(outcome.kind)
    expect(outcome.parked.map(({ error }) => error)).toEqual([
      expect.stringContaining('the post has no text; a post names boundaries of another service'),
    ])
    expect(outcome.parked[0]?.error).toEndWith(reasons)
    const mine = (await rowsOf(at.sql)).boundaries.filter((row) => row.includes(alice))
    expect(mine.map((row) => row.split(' ')[3]?.split('/').at(-1) ?? '').toSorted()).toEqual([
      'far',
      'new',
    ])
  })

  test('of more than a page takes is stored in several statements', async () => {
    await using at = await start()
    const records = Array.from({ length: 1_300 }, (_, index) => put(`k${index}`, post([a])))
    const outcome = await at.fill(pagesOf(9, records))
    expect(outcome).toMatchObject({ kind: 'replaced', posts: 1_300 })
    const found = await at.sql`select from stratos_post_boundary where creator = ${alice}`
    expect(found).toHaveLength(1_300)
  })

  test('outlives the loss of its connection between pages', async () => {
    await using at = await start()
    const broken = async function* () {
      yield* pagesOf(9, [put('new', post([a]))])
      await at.sql`select pg_terminate_backend(pid, 1000) from pg_stat_activity
        where pid <> pg_backend_pid() and datname = current_database()`
      yield* pagesOf(9, [put('newer', post([a]))])
    }
    expect(await at.fill(broken())).toMatchObject({ kind: 'replaced', posts: 2 })
  })

  test('is no more due', async () => {
    await using at = await start()
    await at.writer.write([{ kind: 'reset', service, did: alice, seq: 2 }])
    const member = { serviceUrl: expect.any(String), boundaries: expect.any(Array) }
    const due = async () => await standings(at.sql, service, { after: '', limit: 1 })
    expect(await due()).toEqual([{ did: alice, seq: 2, backfillDue: true, ...member }])
    await at.fill(pagesOf(9))
    expect(await due()).toEqual([{ did: alice, seq: 2, backfillDue: true, ...member }])
    await at.fill(pagesOf(9, []))
    expect(await due()).toEqual([{ did: alice, seq: 9, backfillDue: false, ...member }])
  })
})
