import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { backfill } from '../../src/indexer/backfill.ts'
import { clear, clearClosed, clearOn } from '../../src/indexer/clearing.ts'
import { standings } from '../../src/indexer/actors.ts'
import type { IndexSql } from '../../src/indexer/database.ts'
import { IndexSession } from '../../src/indexer/session.ts'
import { IndexReads } from '../../src/appview/index-reads.ts'
import { feedPage } from '../../src/appview/feed-query.ts'
import { commit, post, posts, put, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { a, alice, bob, enrolledAt, seen, serviceUrl, startWriting } from './writing.ts'

const actor = { service, did: alice }
const member = { service, did: alice, serviceUrl, enrolledAt, boundaries: [a] }
const many = 2_500
const status = { kind: 'status', service, did: alice } as const

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

/** Alice has more posts than go at once. Her last event is 1. */
async function start() {
  const at = await startWriting(server)
  const all = Array.from({ length: many }, (_, number) => put(`old${number}`, post([a])))
  await at.writer.write([commit(alice, 1, ...all), commit(bob, 1, put('of-bob', post([a])))])
  await at.writer.heard({ service, serviceUrl, at: new Date() })
  const reads = new IndexReads({ url: at.url })
  const end = async () => {
    await reads[Symbol.asyncDispose]()
    await at[Symbol.asyncDispose]()
  }
  const shown = async () => {
    await at.writer.heard({ service, serviceUrl, at: new Date() })
    const page = await feedPage(reads, { viewer: { did: bob, now: Date.now() }, limit: 100 })
    return page.posts.map(({ uri }) => uri.split('/').at(-1) ?? uri).toSorted()
  }
  const left = async () => (await seen(at.sql)).filter((line) => line.includes('old')).length
  /** As whoever leads goes on with them. */
  const cleared = async () => {
    const stopped = new AbortController()
    const clearing = failureOf(clearClosed(at.writer, stopped.signal))
    await eventually('end', async () =>
      (await at.sql`select from stratos_takedown where path = '*'`).length === 0 ? true : undefined,
    )
    stopped.abort()
    await clearing
  }
  return { ...at, shown, left, cleared, [Symbol.asyncDispose]: end }
}

describe('of somebody with many posts none is seen from the moment', () => {
  test('they leave, and the rest goes a slice at a time', async () => {
    await using at = await start()
    expect(await at.shown()).toHaveLength(100)
    await at.writer.endEnrollment(actor)
    expect(await at.shown()).toEqual(['of-bob'])
    expect(await at.left()).toBe(many - 1_000)
    await at.cleared()
    expect(await at.left()).toBe(0)
    expect(await at.sql`select from stratos_post where creator = ${alice}`).toHaveLength(0)
    expect(await at.shown()).toEqual(['of-bob'])
  })

  test('their repo is taken down', async () => {
    await using at = await start()
    await at.writer.write([{ ...status, seq: 2, path: '', takendown: true }])
    expect(await at.shown()).toEqual(['of-bob'])
    await at.cleared()
    expect(await at.left()).toBe(0)
    await at.writer.write([{ ...status, seq: 3, path: '', takendown: false }])
    expect(await at.shown()).toEqual(['of-bob'])
    const [standing] = await standings(at.sql, service, { after: '', limit: 1 })
    expect(standing).toMatchObject({ did: alice, seq: 3, backfillDue: true })
  })

  test('what is here of them may be wrong', async () => {
    await using at = await start()
    await at.writer.write([{ kind: 'reset', service, did: alice, seq: 0 }])
    expect(await at.shown()).toEqual(['of-bob'])
    await at.cleared()
    expect(await at.left()).toBe(0)
  })
})

describe('somebody who is back while old posts of theirs are on their way out', () => {
  test('has none of the old ones seen, and none added', async () => {
    await using at = await start()
    await at.writer.endEnrollment(actor)
    await at.writer.setEnrollment(member)
    await at.writer.write([commit(alice, 2, put('new', post([a])))])
    expect(await at.shown()).toEqual(['of-bob'])
    await at.cleared()
    expect(await at.shown()).toEqual(['of-bob'])
    expect(await at.left()).toBe(0)
    const [standing] = await standings(at.sql, service, { after: '', limit: 1 })
    expect(standing).toMatchObject({ did: alice, seq: 2, backfillDue: true })
    await at.writer.write([commit(alice, 3, put('newer', post([a])))])
    expect(await at.shown()).toEqual(['newer', 'of-bob'])
  })

  test('has the new ones once their repo was read', async () => {
    await using at = await start()
    await at.writer.endEnrollment(actor)
    await at.writer.setEnrollment(member)
    const pages = async function* () {
      yield { seq: 2, records: [put('new', post([a]))] }
    }
    const outcome = await backfill({ url: at.url }, pages(), { actor })
    expect(outcome).toMatchObject({ kind: 'replaced', posts: 1 })
    expect(await at.left()).toBe(0)
    expect(await at.shown()).toEqual(['new', 'of-bob'])
  })
})

test('a record that is taken down goes, and its account is read anew when it is lifted', async () => {
  await using at = await start()
  await at.writer.write([{ ...status, seq: 2, path: `${posts}/old7`, takendown: true }])
  expect(await at.left()).toBe(many - 1)
  await at.writer.write([{ ...status, seq: 3, path: `${posts}/old7`, takendown: false }])
  const [standing] = await standings(at.sql, service, { after: '', limit: 1 })
  expect(standing).toMatchObject({ backfillDue: true })
  expect(await at.shown()).toHaveLength(100)
})

test('of two who go on at the same time none removes what came after the last slice', async () => {
  await using at = await start()
  await at.writer.endEnrollment(actor)
  await at.writer.setEnrollment(member)
  await using one = new IndexSession({ url: at.url })
  await using other = new IndexSession({ url: at.url })
  const rounds = async (session: IndexSession) => {
    while (!(await session.begin((transaction) => clearOn(transaction, actor)))) continue
  }
  await Promise.all([rounds(one), rounds(other)])
  await at.writer.write([commit(alice, 2, put('new', post([a])))])
  expect(await other.begin((transaction) => clearOn(transaction, actor))).toBe(true)
  expect(await at.shown()).toEqual(['new', 'of-bob'])
  expect(await at.left()).toBe(0)
})

describe('of an account that is cleared twice at the same time', () => {
  // Both go for the same rows. The second one waits, and finds fewer than there would be for a slice.
  const twice = async (rows: number, boundaries: readonly string[]) => {
    const at = await startWriting(server)
    const all = Array.from({ length: rows }, (_, number) => put(`old${number}`, post(boundaries)))
    await at.writer.write([commit(alice, 1, ...all)])
    await at.sql`insert into stratos_takedown values (${service}, ${alice}, '*')`
    await using one = new IndexSession({ url: at.url })
    await using two = new IndexSession({ url: at.url })
    const [begun, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const first = one.begin(async (transaction) => {
      await clear(transaction, actor)
      begun.resolve()
      await go.promise
    })
    await begun.promise
    const second = two.begin((transaction) => clearOn(transaction, actor))
    await eventually('wait', async () => {
      const waits = await at.sql`select from pg_stat_activity
        where wait_event_type = 'Lock' and datname = current_database()`
      return waits.length > 0 ? true : undefined
    })
    go.resolve()
    await first
    return { ...at, isOpen: await second }
  }
  const left = async ({ sql }: { readonly sql: IndexSql }) => {
    const [row] = await sql<{ posts: number; places: number; closed: number }[]>`
      select (select count(*)::integer from stratos_post where creator = ${alice}) as posts,
        (select count(*)::integer from stratos_post_boundary where creator = ${alice}) as places,
        (select count(*)::integer from stratos_takedown where path = '*') as closed`
    return { ...row }
  }

  test.each([
    ['posts', 1_500, []],
    ['places', 900, [a, `${service}/b`]],
  ])('%s are left, and it stays closed until they are gone', async (_, rows, boundaries) => {
    await using at = await twice(rows, boundaries)
    expect(at.isOpen).toBe(false)
    expect(await left(at)).toMatchObject({ closed: 1 })
    await using session = new IndexSession({ url: at.url })
    expect(await session.begin((transaction) => clearOn(transaction, actor))).toBe(true)
    expect(await left(at)).toEqual({ posts: 0, places: 0, closed: 0 })
  })

  test('nothing is left, and it is open', async () => {
    await using at = await twice(900, [])
    expect(at.isOpen).toBe(true)
    expect(await left(at)).toEqual({ posts: 0, places: 0, closed: 0 })
  })
})
