import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { Indexing } from '../../src/indexer/indexing.ts'
import { removeUnfollowed } from '../../src/indexer/unfollowed.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { createLog } from '../../src/lib/log.ts'
import { otherService, post, posts, put, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { ScriptedService } from './scripted-service.ts'

const alice = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')
/** Names that begin as another one does. */
const longer = parseDid(`${service}.longer`)
const enrolledAt = new Date('2026-01-01T00:00:00Z')
const tables = [
  'stratos_enrollment',
  'stratos_post',
  'stratos_post_boundary',
  'stratos_takedown',
  'stratos_parked_event',
  'stratos_backfill_page',
  'stratos_sync_cursor',
  'stratos_service_state',
]

let server: PostgresServer
let url: string
let sql: IndexSql
let writer: IndexWriter
let lines: string[]

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  url = await server.database()
  sql = await openIndex({ url })
  writer = new IndexWriter({ index: { url } })
  lines = []
  for (const one of [service, otherService, longer]) await fill(one)
})
afterEach(async () => {
  await writer[Symbol.asyncDispose]()
  await sql.end({ timeout: 1 })
})

/** A row in each table. */
async function fill(one: Did): Promise<void> {
  const [serviceUrl, boundaries] = [`https://${one}`, [`${one}/a`]]
  await writer.setEnrollment({ service: one, did: alice, serviceUrl, boundaries, enrolledAt })
  await writePosts(one, { count: 1, seq: 1 })
  const path = `${posts}/other`
  await writer.write([{ kind: 'status', service: one, did: alice, seq: 2, path, takendown: true }])
  await writer.heard({ service: one, serviceUrl, at: enrolledAt })
  await sql`insert into stratos_parked_event (service, did, seq, error, "parkedAt")
    values (${one}, ${alice}, 1, 'broken', now())`
  await sql`insert into stratos_backfill_page (service, did, run, page, rows, uris)
    values (${one}, ${alice}, gen_random_uuid(), 1, '[]', '{}')`
}

async function writePosts(one: Did, { count, seq }: { count: number; seq: number }) {
  const ops = Array.from({ length: count }, (_, at) => put(`k${at}`, post([`${one}/a`])))
  await writer.write([{ kind: 'commit', service: one, did: alice, seq, ops }])
}

function log() {
  return createLog('info', (line) => void lines.push(line))
}

/** Services of which there are rows, by table. */
async function present(): Promise<readonly (readonly string[])[]> {
  return await Promise.all(
    tables.map(async (table) => {
      const rows = await sql<{ service: string }[]>`
        select distinct service from ${sql(table)} order by service`
      return rows.map(({ service }) => service)
    }),
  )
}

const { signal } = new AbortController()

describe('of services that are not followed', () => {
  test('nothing is removed by whom does not write the index', async () => {
    const lock = 7_000
    await using leader = new IndexWriter({ index: { url, lock } })
    await leader.open()
    await using other = new IndexWriter({ index: { url, lock } })
    const failure = await failureOf(removeUnfollowed(other, [service], { log: log(), signal }))
    expect(failure).toHaveProperty('name', 'LockTaken')
    expect(await present()).toEqual(tables.map(() => [otherService, service, longer].toSorted()))
  })

  test('every row goes and no row of others, and the log says so', async () => {
    await removeUnfollowed(writer, [service], { log: log(), signal })
    expect(await present()).toEqual(tables.map(() => [service]))
    for (const one of [otherService, longer]) {
      const said = lines.filter((line) => line.includes(`"${one}"`))
      expect(said.map((line) => JSON.parse(line).event)).toEqual([
        'index.service.unfollowed',
        'index.service.removed',
      ])
    }
    expect(lines.join()).not.toContain(alice)
  })

  test('the rest goes, too, when a crash has left no more than posts', async () => {
    for (const table of tables.filter((one) => one !== 'stratos_post')) {
      await sql`delete from ${sql(table)} where service = ${otherService}`
    }
    await removeUnfollowed(writer, [service, longer], { log: log(), signal })
    expect(await present()).toEqual(tables.map(() => [service, longer]))
  })

  test('not all goes at once: what is followed does not wait for long', async () => {
    await writePosts(otherService, { count: 2_500, seq: 3 })
    await sql`create table removed (rows integer)`
    await sql.unsafe(`
      create function note() returns trigger language plpgsql as
        $$ begin insert into removed select count(*) from gone; return null; end $$;
      create trigger noted after delete on stratos_post referencing old table as gone
        for each statement execute function note()`)
    await removeUnfollowed(writer, [service, longer], { log: log(), signal })
    const removed = await sql<{ rows: number }[]>`select rows from removed where rows > 0`
    expect(removed.map(({ rows }) => rows)).toEqual([1_000, 1_000, 500])
    expect(await present()).toEqual(tables.map(() => [service, longer]))
  })
})

test('whoever begins to fill an index removes what is there of other services', async () => {
  await using scripted = new ScriptedService()
  const indexing = new Indexing({
    index: { url },
    sql,
    services: [scripted.followed],
    log: log(),
    allowPrivateNetwork: true,
  })
  indexing.start()
  try {
    const wanted = tables.map(() => [service])
    await eventually('one service', async () =>
      Bun.deepEquals(await present(), wanted) ? true : undefined,
    )
  } finally {
    await indexing.stop()
  }
  expect(lines.join()).toContain('index.service.removed')
})
