import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connectIndex, type IndexSql, migrateIndex, openIndex } from '../../src/indexer/database.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { failureOf } from '../kit/wait.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

describe('an index', () => {
  test('that a newer program wrote is refused', async () => {
    const url = await server.database()
    const sql = await openIndex({ url })
    await sql`insert into stratos_migration (version, name, "appliedAt")
      values (9999, '9999-later.sql', now())`
    await sql.end()
    expect(String(await failureOf(openIndex({ url })))).toContain('start the newer program')
  })

  test('is left as it was by a migration that fails', async () => {
    const sql = connectIndex({ url: await server.database() })
    const migrations = {
      '0001-first.sql': 'create table one (id integer);',
      '0002-second.sql': 'create table two (id integer); select broken -- here',
    }
    expect(String(await failureOf(migrateIndex(sql, migrations)))).toContain('0002-second.sql')
    expect(await tablesOf(sql)).toEqual([])
    await sql.end()
  })

  test('is brought up once by several programs that start together', async () => {
    const url = await server.database()
    const opened = await Promise.all([1, 2, 3, 4].map(() => openIndex({ url })))
    const [sql] = opened
    if (sql === undefined) throw new Error('nothing was opened')
    expect(await tablesOf(sql)).toContain('stratos_post')
    const names = await sql`select name from stratos_migration`
    expect(names.map(({ name }) => String(name))).toEqual(['0001-first.sql'])
    await Promise.all(opened.map((one) => one.end()))
  })

  test('stops statements that take too long', async () => {
    const sql = connectIndex({ url: await server.database(), statementMsMax: 50 })
    expect(String(await failureOf(sql`select pg_sleep(10)`.execute()))).toContain(
      'statement timeout',
    )
    await sql.end()
  })

  test('orders keys by their bytes', async () => {
    const sql = await openIndex({ url: await server.database() })
    const found = await sql`select column_name from information_schema.columns
      where table_name like 'stratos_post%' and column_name in ('uri', 'boundary', 'creator')
        and collation_name is distinct from 'C'`
    expect([...found]).toEqual([])
    await sql.end()
  })
})

describe('connections', () => {
  test('give and take arrays of text', async () => {
    const sql = connectIndex({ url: await server.database() })
    const texts = [
      '',
      ' ',
      'NULL',
      'null',
      'a,b',
      '{c}',
      '"',
      '\\',
      '\\"',
      'd\ne',
      'straße 🙂',
      "f'",
    ]
    for (const some of [texts, texts.toReversed(), [], ['one'], ['']]) {
      const [row] = await sql<{ back: readonly string[]; joined: string }[]>`
        select given as back, array_to_string(given, '|') as joined
        from (select ${sql.typed.texts(some)}::text[] as given) as g`
      expect(row).toEqual({ back: some, joined: some.join('|') })
    }
    await sql.end()
  })

  test('that are lost as soon as they are there fail for whoever needs them', async () => {
    const url = new URL(await server.database())
    const socket = wayTo(Number(url.port))
    const proxy = Bun.listen({ hostname: '127.0.0.1', port: 0, socket })
    url.port = String(proxy.port)
    const sql = connectIndex({ url: url.href, connectionsMax: 1 })
    const asked = await failureOf(sql`select 1`.execute())
    expect(asked).toMatchObject({ code: 'CONNECTION_CLOSED' })
    await sql.end({ timeout: 0 })
    proxy.stop(true)
  })
})

interface Way {
  readonly server: Promise<Bun.Socket<unknown>>
  isReady: boolean
}

/** To the server, until it is ready for the first question, which does not reach it. */
function wayTo(port: number): Bun.SocketHandler<Way> {
  const ready = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
  return {
    open(client) {
      const socket: Bun.SocketHandler = {
        data(_, bytes) {
          if (bytes.subarray(-ready.length).equals(ready)) client.data.isReady = true
          client.write(bytes)
        },
      }
      client.data = { server: Bun.connect({ hostname: '127.0.0.1', port, socket }), isReady: false }
    },
    async data(client, bytes) {
      if (client.data.isReady) client.end()
      else (await client.data.server).write(bytes)
    },
    async close(client) {
      const server = await client.data.server
      server.end()
    },
  }
}

async function tablesOf(sql: IndexSql): Promise<string[]> {
  const found = await sql`select tablename from pg_tables where schemaname = 'public'`
  return found.map(({ tablename }) => String(tablename))
}
