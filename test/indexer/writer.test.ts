import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { IndexSql } from '../../src/indexer/database.ts'
import { standings } from '../../src/indexer/actors.ts'
import { parseDid, parseNsid } from '../../src/atproto/syntax.ts'
import { commit, otherService, post, put, remove, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { failureOf } from '../kit/wait.ts'
import { rowsOf } from './model.ts'
import { unindexable } from './trouble.ts'
import { a, alice, bob, enrolledAt, seen, serviceUrl, startWriting } from './writing.ts'

const b = `${service}/b`
const foreign = `${otherService}/a`

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

async function start(parts: { now?: () => number } = {}) {
  return await startWriting(server, parts)
}

async function parkedIn(sql: IndexSql): Promise<string[]> {
  const rows = await sql`select seq, error from stratos_parked_event order by did, seq`
  return rows.map(({ seq, error }) => `${seq} ${error}`)
}

describe('the index does not take', () => {
  test('an event at or below the cursor', async () => {
    await using at = await start()
    await at.writer.write([commit(alice, 5, put('x', post([a])))])
    await at.writer.write([commit(alice, 5, remove('x')), commit(alice, 4, put('y', post([a])))])
    expect(await seen(at.sql)).toEqual(['a x'])
  })

  test('an event of somebody who is not enrolled, nor one who has left', async () => {
    await using at = await start()
    const carol = parseDid('did:plc:carolaaaaaaaaaaaaaaaaaaa')
    const left = at.writer.endEnrollment({ service, did: bob })
    await at.writer.write([
      commit(carol, 1, put('x', post([a]))),
      commit(bob, 1, put('x', post([a]))),
    ])
    await left
    const { posts, cursors } = await rowsOf(at.sql)
    expect([posts, cursors]).toEqual([[], []])
  })

  test('boundaries of another service, of a post or of a person', async () => {
    await using at = await start()
    const boundaries = [foreign, a, service, `${service}x/a`]
    await at.writer.setEnrollment({ service, did: bob, serviceUrl, enrolledAt, boundaries })
    await at.writer.write([
      commit(alice, 1, put('x', post([foreign, a])), put('y', post([foreign]))),
    ])
    expect(await seen(at.sql)).toEqual(['a x'])
    expect(await parkedIn(at.sql)).toEqual(['1 a post names boundaries of another service'])
    expect((await rowsOf(at.sql)).enrollments).toContain(`${service} ${bob} ${a}`)
  })

  test('a record that is no post, and what was in its place goes', async () => {
    await using at = await start()
    await at.writer.write([commit(alice, 1, put('x', post([a])), put('y', post([a])))])
    const { boundary: _, ...without } = post([a])
    await at.writer.write([
      commit(alice, 2, put('x', { ...post([a]), text: 7 }, 'update')),
      commit(alice, 3, put('y', without, 'update')),
      commit(alice, 4, put('z', { ...post([a]), $type: 'com.example.post' })),
      commit(alice, 5, put('ok', post([a]))),
    ])
    expect(await seen(at.sql)).toEqual(['a ok'])
    expect(await parkedIn(at.sql)).toEqual([
      '2 the post has no text',
      '3 the post has no boundaries',
      '4 the record is of another type',
    ])
  })

  test('an event that the database refuses, and its neighbours go on', async () => {
    await using at = await start()
    await at.writer.write([commit(alice, 1, put('bad', post([a, b])))])
    const bad = { ...commit(alice, 4, put('bad', post([a], unindexable))), frame: Buffer.from('f') }
    await at.writer.write([
      commit(alice, 2, put('before', post([a]))),
      commit(bob, 2, put('other', post([a]))),
      bad,
      commit(alice, 5, put('after', post([a]))),
      commit(alice, 6, put('again', post([a]))),
    ])
    expect(await seen(at.sql)).toEqual(['a after', 'a again', 'a before', 'a other'])
    expect(await parkedIn(at.sql)).toEqual(['4 refused by the database: 54000'])
    expect(at.parked.map(({ seq, frame }) => [seq, frame?.length])).toEqual([[4, 1]])
    const { cursors } = await rowsOf(at.sql)
    expect(cursors).toEqual([`${service} ${alice} 6 f`, `${service} ${bob} 2 f`])
  })

  test('anything more after a failure that does not pass', async () => {
    await using at = await start()
    await at.sql`alter table stratos_post rename to hidden`
    const events = [1, 2].map((seq) => [commit(alice, seq, put(`p${seq}`, post([a])))])
    const both = await Promise.all(events.map((event) => failureOf(at.writer.write(event))))
    await at.sql`alter table hidden rename to stratos_post`
    const later = await failureOf(at.writer.write([commit(alice, 3, put('p3', post([a])))]))
    for (const error of [...both, later]) expect(String(error)).toContain('stratos_post')
    expect(await rowsOf(at.sql)).toMatchObject({ posts: [], cursors: [] })
  })
})

describe('what was put aside', () => {
  test('says nothing of what it holds', async () => {
    await using at = await start()
    const secret = 'only for friends'
    await at.writer.write([
      commit(alice, 1, put('x', post([a], { ...unindexable, text: secret }))),
      commit(alice, 2, put('y', post([foreign], { text: secret }))),
      commit(alice, 3, put('z', { ...post([a]), text: { secret } })),
    ])
    const errors = await parkedIn(at.sql)
    expect(errors).toHaveLength(3)
    expect(errors.join()).not.toContain(secret)
  })

  test('is kept up to a thousand of a service, the newest', async () => {
    let nowMs = 0
    await using at = await start({ now: () => ++nowMs })
    const events = (from: number, count: number) =>
      Array.from({ length: count }, (_, index) => commit(alice, from + index, bad))
    const bad = put('x', { ...post([a]), text: 7 })
    await at.writer.write([commit(bob, 1, bad)])
    await at.writer.write(events(1, 999))
    expect((await rowsOf(at.sql)).parked).toHaveLength(1_000)
    const elsewhere = { service: otherService, did: alice, serviceUrl, enrolledAt, boundaries: [] }
    await at.writer.setEnrollment(elsewhere)
    await at.writer.write([{ ...commit(alice, 1, bad), service: otherService }])
    await at.writer.write(events(1_000, 5))
    const { parked } = await rowsOf(at.sql)
    expect(parked).toHaveLength(1_001)
    expect(parked).toContain(`${otherService} ${alice} 1`)
    expect(parked).toContain(`${service} ${alice} 1004`)
    expect(parked).not.toContain(`${service} ${bob} 1`)
  })

  test('lacks a frame that is large', async () => {
    await using at = await start()
    const bad = (seq: number, bytes: number) => ({
      ...commit(alice, seq, put('x', { ...post([a]), text: 7 })),
      frame: new Uint8Array(bytes),
    })
    await at.writer.write([bad(1, 64 * 1024), bad(2, 64 * 1024 + 1)])
    const rows = await at.sql`select length(frame) as bytes from stratos_parked_event order by seq`
    expect(rows.map(({ bytes }) => bytes)).toEqual([64 * 1024, null])
  })
})

/** Alice and Bob have different ones. */
describe('lanes', () => {
  test('do not wait for each other, but word of a service waits for both', async () => {
    await using at = await start()
    const order: string[] = []
    const said = (name: string) => () => void order.push(name)
    let given: Promise<unknown>[] = []
    await at.sql.begin(async (transaction) => {
      await transaction`select 1 from stratos_enrollment where did = ${bob} for update`
      const first = at.writer.write([commit(bob, 1, put('x', post([a])))])
      const departure = at.writer.endEnrollment({ service, did: bob })
      await at.writer.write([commit(alice, 1, put('y', post([a])))]).then(said('alice'))
      const heard = at.writer.heard({ service, serviceUrl, at: new Date() }).then(said('heard'))
      given = [first.then(said('bob')), departure.then(said('departure')), heard]
      expect(await at.sql`select 1 from stratos_service_state`).toHaveLength(0)
      expect(await seen(at.sql)).toEqual(['a y'])
    })
    await Promise.all(given)
    expect(order).toEqual(['alice', 'bob', 'departure', 'heard'])
    expect(await seen(at.sql)).toEqual(['a y'])
  })

  test('all end with a failure of one that does not pass', async () => {
    await using at = await start()
    await at.sql`create function fail() returns trigger language plpgsql as
      $$ begin raise exception 'broken' using errcode = 'XX000'; end $$`
    await at.sql.unsafe(`create trigger fails before insert on stratos_post for each row
      when (new.creator = '${alice}') execute function fail()`)
    await at.writer.write([commit(bob, 1, put('x', post([a])))])
    const failed = failureOf(at.writer.write([commit(alice, 1, put('x', post([a])))]))
    expect(String(await failed)).toContain('broken')
    const after = [
      at.writer.write([commit(bob, 2, put('y', post([a])))]),
      at.writer.heard({ service, serviceUrl, at: new Date() }),
      at.writer.endEnrollment({ service, did: bob }),
    ].map((one) => failureOf(one))
    for (const error of await Promise.all(after)) expect(String(error)).toContain('broken')
    expect(await seen(at.sql)).toEqual(['a x'])
  })
})

describe('the index', () => {
  test('keeps the order of one post within a batch', async () => {
    await using at = await start()
    await at.writer.write([
      commit(alice, 1, put('x', post([a])), put('gone', post([a]))),
      commit(alice, 2, remove('x'), remove('gone')),
      commit(alice, 3, put('x', post([a])), put('x', post([b]), 'update')),
    ])
    expect(await seen(at.sql)).toEqual(['b x'])
  })

  test('moves a post between boundaries, and takes it out of the first at once', async () => {
    await using at = await start()
    await at.writer.write([commit(alice, 1, put('x', post([a])))])
    await at.writer.write([commit(alice, 2, put('x', post([b]), 'update'))])
    expect(await seen(at.sql)).toEqual(['b x'])
  })

  test('has the same rows after the same batch twice', async () => {
    await using at = await start()
    const events = [
      commit(alice, 1, put('x', post([a])), put('y', post([b]))),
      { kind: 'status', service, did: alice, seq: 2, path: '', takendown: true } as const,
      commit(bob, 1, put('x', post([a], unindexable))),
      commit(alice, 3, remove('y')),
    ]
    await at.writer.write(events)
    const once = await rowsOf(at.sql)
    await at.writer.write(events)
    expect(await rowsOf(at.sql)).toEqual(once)
  })

  test('has what stands in a post, without NUL characters but with its bytes', async () => {
    await using at = await start()
    const reply = {
      root: { uri: 'at://did:plc:r/zone.stratos.feed.post/r', cid: 'r' },
      parent: { uri: 'at://did:plc:p/zone.stratos.feed.post/p', cid: 'p' },
    }
    const more = { text: 'a\0b \\u0000', embed: { 'k\0': ['\0'] }, langs: ['en', 'de'], tags: [] }
    const op = put('x', post([a], { ...more, reply }))
    await at.writer.write([commit(alice, 1, op)])
    const [row] = await at.sql`select * from stratos_post`
    expect(row).toMatchObject({
      text: String.raw`ab \u0000`,
      embed: { k: [''] },
      langs: ['en', 'de'],
      tags: [],
      replyRoot: reply.root.uri,
      replyRootCid: 'r',
      replyParent: reply.parent.uri,
      replyParentCid: 'p',
      facets: null,
      labels: null,
      service,
      creator: alice,
      rkey: 'x',
    })
    expect(Buffer.from(op.content).equals(row?.['record'])).toBeTrue()
  })

  test('counts what is no time as when it was indexed, and no post as of later', async () => {
    const nowMs = Date.UTC(2026, 5, 1)
    await using at = await start({ now: () => nowMs })
    const times = [
      'yesterday',
      '0000-01-01T00:00:00Z',
      '9999-12-31T23:59:59.9Z',
      '2026-13-01T00:00:00Z',
    ]
    const exact = ['2025-01-01T02:00:00.1239+02:00', '1000-01-02T00:00:00Z']
    const ops = [...times, ...exact].map((createdAt, index) =>
      put(`p${index}`, post([a], { createdAt })),
    )
    await at.writer.write([commit(alice, 1, ...ops)])
    const rows = await at.sql<{ sortAt: Date }[]>`select "sortAt" from stratos_post order by rkey`
    expect(rows.map(({ sortAt }) => sortAt.getTime())).toEqual([
      ...times.map(() => nowMs),
      Date.parse('2025-01-01T00:00:00.123Z'),
      Date.parse('1000-01-02T00:00:00Z'),
    ])
  })

  test('moves the cursor alone for other collections', async () => {
    await using at = await start()
    const other = {
      ...put('x', { $type: 'com.example.note' }),
      collection: parseNsid('com.example.note'),
    }
    await at.writer.write([commit(alice, 9, other), commit(bob, 3)])
    expect(await rowsOf(at.sql)).toMatchObject({
      posts: [],
      parked: [],
      cursors: [`${service} ${alice} 9 f`, `${service} ${bob} 3 f`],
    })
  })

  test('asks for a backfill when a takedown is lifted, and after a reset', async () => {
    await using at = await start()
    const due = async () =>
      (await standings(at.sql, service, { after: '', limit: 10 })).map((one) => one.backfillDue)
    expect(await due()).toEqual([true, true])
    const status = { kind: 'status', service } as const
    const path = 'zone.stratos.feed.post/x'
    await at.writer.write([
      commit(alice, 1, put('x', post([a]))),
      commit(bob, 1, put('x', post([a]))),
      { ...status, did: alice, path, seq: 2, takendown: true },
      { ...status, did: alice, path: 'com.example.note/x', seq: 3, takendown: false },
    ])
    expect(await due()).toEqual([false, false])
    await at.writer.write([
      { kind: 'reset', service, did: bob, seq: 0 },
      { ...status, did: alice, path, seq: 5, takendown: false },
    ])
    expect(await due()).toEqual([true, true])
    expect((await rowsOf(at.sql)).takedowns).toEqual([])
    expect(await seen(at.sql)).toEqual([])
    expect((await rowsOf(at.sql)).cursors).toContain(`${service} ${bob} 0 t`)
  })

  test('has nothing left of who leaves, and all of the others', async () => {
    await using at = await start()
    await at.writer.write([
      commit(alice, 1, put('x', post([a, foreign]))),
      commit(bob, 1, put('x', post([a]))),
      { kind: 'status', service, did: alice, seq: 2, path: '', takendown: true },
    ])
    await at.writer.endEnrollment({ service, did: alice })
    const rows = await rowsOf(at.sql)
    expect(JSON.stringify(rows)).not.toContain(alice)
    expect(rows.posts).toHaveLength(1)
  })

  test('knows when a service was last heard', async () => {
    await using at = await start()
    for (const ms of [1_000, 2_000]) {
      await at.writer.heard({ service, serviceUrl, at: new Date(ms) })
    }
    const rows = await at.sql`select * from stratos_service_state`
    expect([...rows]).toEqual([{ service, serviceUrl, heardAt: new Date(2_000) }])
  })
})
