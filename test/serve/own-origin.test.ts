import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { PostgresServer } from '../kit/postgres.ts'
import { privatePost, postCollection } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, isFields, listOf } from '../kit/xrpc.ts'
import { openIndex } from '../../src/indexer/database.ts'

setDefaultTimeout(60_000)

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
})

test('a service follows itself once, also where it is named among those to follow', async () => {
  const env = { STRATOS_INDEX_POSTGRES_URL: await server.database() }
  const other = 'did:web:other.test'
  const people = { alice: ['a'] }
  await using stratos = await SeededStratos.start({
    people,
    env,
    around: (command) => [...command.slice(0, -1), 'all'],
  })
  for (const own of [stratos.did, `${stratos.did}=${stratos.url}`]) {
    await stratos.terminate()
    await stratos.run({ STRATOS_INDEX_SERVICES: `${other},${own}` })
    const services = await eventually('leader', async () => {
      const health: unknown = await (await fetch(`${stratos.url}/health`)).json()
      const indexing = fieldsOf(fieldsOf(isFields(health) ? health : {}, 'index'), 'indexing')
      return indexing['role'] === 'leading' ? listOf(indexing, 'services') : undefined
    })
    expect(services.map(({ service }) => service)).toEqual([stratos.did, other])
  }
})

test('a service follows itself where private addresses are closed to everybody else', async () => {
  const url = await server.database()
  await using stratos = await SeededStratos.start({
    people: { alice: ['a'] },
    env: { STRATOS_INDEX_POSTGRES_URL: url, STRATOS_ALLOW_PRIVATE_NETWORK: 'false' },
    around: (command) => [...command.slice(0, -1), 'all'],
  })
  const record = privatePost('indexed', [stratos.boundary('a')])
  const input = { repo: stratos.person('alice').did, collection: postCollection, record }
  const written = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
  expect(written.status).toBe(200)
  const sql = await openIndex({ url })
  try {
    await eventually('row', async () => {
      const rows = await sql`select text from stratos_post`
      return rows.length === 1 ? true : undefined
    })
  } finally {
    await sql.end()
  }
})
