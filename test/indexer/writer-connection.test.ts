import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connectIndex, openIndex } from '../../src/indexer/database.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { commit, post, put, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { failureOf } from '../kit/wait.ts'
import { killed } from './trouble.ts'
import { a, alice, bob, enrolledAt, seen, serviceUrl, startWriting } from './writing.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

describe('a connection that breaks in the midst of a batch', () => {
  test('loses nothing and doubles nothing', async () => {
    await using at = await startWriting(server)
    const written = killed(at.url, () =>
      at.writer.write([commit(alice, 1, put('x', post([a]))), commit(bob, 1, put('y', post([a])))]),
    )
    await written
    await at.writer.write([commit(alice, 2, put('z', post([a])))])
    expect(at.delays).not.toBeEmpty()
    expect(await seen(at.sql)).toEqual(['a x', 'a y', 'a z'])
  })

  test('ends a writer that leads: what the index holds is to be read anew', async () => {
    const url = await server.database()
    const sql = await openIndex({ url })
    await using leader = new IndexWriter({ index: { url, lock: 7_100 } })
    await leader.setEnrollment({ service, did: alice, serviceUrl, enrolledAt, boundaries: [a] })
    const error = await failureOf(
      killed(url, () => leader.write([commit(alice, 1, put('x', post([a])))])),
    )
    expect(error).toHaveProperty('name', 'LockLost')
    expect(await failureOf(leader.write([commit(alice, 2, put('y', post([a])))]))).toBe(error)
    expect(await seen(sql)).toEqual([])
    // Another one goes on at once.
    await using next = new IndexWriter({ index: { url, lock: 7_100 } })
    await next.write([commit(alice, 2, put('z', post([a])))])
    expect(await seen(sql)).toEqual(['a z'])
    await sql.end()
  })

  test('refuses what is not stored once the writer is told to stop', async () => {
    const url = `postgres://postgres@127.0.0.1:${await freePort()}/nothing`
    const tried = Promise.withResolvers<void>()
    const writer = new IndexWriter({ index: { url }, delayed: () => tried.resolve() })
    const lost = failureOf(writer.write([commit(alice, 1)]))
    await tried.promise
    await writer[Symbol.asyncDispose]()
    expect(String(await lost)).toContain('ECONNREFUSED')
  })
})

test('of two writers that begin at the same time one leads', async () => {
  const url = await server.database()
  const sql = await openIndex({ url })
  for (let lock = 7_200; lock < 7_280; lock += 10) {
    await using one = new IndexWriter({ index: { url, lock } })
    await using two = new IndexWriter({ index: { url, lock } })
    const opened = await Promise.allSettled([one.open(), two.open()])
    const refused = opened.flatMap((end) => (end.status === 'rejected' ? [String(end.reason)] : []))
    expect(refused).toEqual(['LockTaken: another indexer leads'])
  }
  await sql.end()
})

test('the index is written by connections that last, and to the disk', async () => {
  await using at = await startWriting(server)
  const shown = await at.sql<{ synchronous_commit: string }[]>`show synchronous_commit`
  expect(shown[0]?.synchronous_commit).toBe('on')
  expect(at.sql.options.idle_timeout).toBeGreaterThan(0)
  const kept = connectIndex({ url: at.url, lifetime: 'kept' }).options
  expect([kept.idle_timeout, kept.max_lifetime]).toEqual([null, null])
})
