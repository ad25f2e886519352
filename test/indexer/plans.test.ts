import { afterAll, beforeAll, expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import { connectIndex, openIndex } from '../../src/indexer/database.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { commit, post, put, remove, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually } from '../kit/wait.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

test('no statement of a batch, a reset or a departure reads a large table whole', async () => {
  const url = await server.database()
  const sql = await openIndex({ url })
  const did = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')
  const a = `${service}/a`
  await sql`insert into stratos_post (service, uri, cid, rkey, creator, text, boundaries, record,
      "createdAt", "indexedAt")
    select ${service}, 'at://' || creator || '/zone.stratos.feed.post/' || number, 'c', number::text,
      creator, 't', ${[a]}, '', now(), now()
    from (select number, 'did:plc:' || number % 500 as creator
      from generate_series(1, 100000) as number) as given`
  await sql`insert into stratos_post_boundary
    select service, ${a}, "sortAt", uri, creator from stratos_post`
  await sql`insert into stratos_enrollment
    select ${service}, 'did:plc:' || number, 's', now(), now(), '{}'
    from generate_series(1, 100000) as number`
  await sql`insert into stratos_sync_cursor
    select service, did, 1, false, now() from stratos_enrollment`
  await sql`vacuum analyze`
  await sql.end()
  const before = await scans(url)
  const writer = new IndexWriter({ index: { url } })
  const member = { service, did, serviceUrl: 's', enrolledAt: new Date(), boundaries: [a] }
  await writer.setEnrollment(member)
  const many = Array.from({ length: 100 }, (_, index) => put(`k${index}`, post([a])))
  await writer.write([commit(did, 1, ...many), commit('did:plc:7', 2, put('x', post([a])))])
  await writer.write([commit(did, 2, remove('k1'), put('k2', post([a]), 'update'))])
  const status = { kind: 'status', service, did, path: 'zone.stratos.feed.post/k9' } as const
  await writer.write([{ ...status, seq: 3, takendown: true }])
  await writer.write([{ ...status, seq: 4, takendown: false }])
  await writer.write([{ kind: 'reset', service, did, seq: 5 }])
  await writer.endEnrollment({ service, did })
  await writer[Symbol.asyncDispose]()
  expect(await scans(url)).toEqual(before)
})

/** How often each table was read whole, by connections that have ended. */
async function scans(url: string): Promise<string[]> {
  const sql = connectIndex({ url })
  // What a connection counted is certain to be there when it is no more.
  await eventually('end of other connections', async () => {
    const others = await sql`select from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend'`
    return others.length === 0 ? true : undefined
  })
  const rows = await sql<{ relname: string; seq_scan: number }[]>`
    select relname, seq_scan from pg_stat_user_tables where relname in ('stratos_post',
      'stratos_post_boundary', 'stratos_enrollment', 'stratos_sync_cursor') order by relname`
  await sql.end()
  return rows.map(({ relname, seq_scan }) => `${relname} ${seq_scan}`)
}
