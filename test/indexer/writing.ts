import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import type { Parked } from '../../src/indexer/fold.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { service } from '../kit/index-event.ts'
import type { PostgresServer } from '../kit/postgres.ts'

export const alice = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')
export const bob = parseDid('did:plc:bobaaaaaaaaaaaaaaaaaaaaa')
export const a = `${service}/a`
export const serviceUrl = 'https://stratos.test'
export const enrolledAt = new Date('2026-01-01T00:00:00Z')

/** An index in which both are enrolled. */
export async function startWriting(server: PostgresServer, parts: { now?: () => number } = {}) {
  const url = await server.database()
  const sql = await openIndex({ url })
  const parked: Parked[] = []
  const delays: unknown[] = []
  const writer = new IndexWriter({
    index: { url },
    ...parts,
    parked: (event) => parked.push(event),
    delayed: (error) => delays.push(error),
  })
  for (const did of [alice, bob]) {
    await writer.setEnrollment({ service, did, serviceUrl, enrolledAt, boundaries: [a] })
  }
  const end = async () => {
    await writer[Symbol.asyncDispose]()
    await sql.end()
  }
  return { url, sql, writer, parked, delays, [Symbol.asyncDispose]: end }
}

export async function seen(sql: IndexSql): Promise<string[]> {
  const rows = await sql`select boundary, uri from stratos_post_boundary`
  const lines = rows.map(({ boundary, uri }) => {
    const name = String(boundary).split('/').at(-1)
    return `${name} ${String(uri).split('/').at(-1)}`
  })
  return lines.toSorted()
}
