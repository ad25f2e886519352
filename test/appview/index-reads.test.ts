import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { XrpcError } from '../../src/atproto/errors.ts'
import { codeOf, IndexReads } from '../../src/appview/index-reads.ts'
import { connectIndex } from '../../src/indexer/database.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { PostgresWire } from './postgres-wire.ts'
import { didOf } from './small-index.ts'

let server: PostgresServer
let url: string
beforeAll(async () => {
  server = await PostgresServer.start()
  url = await server.database()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

const one = 'select 1 as one'

async function refusalOf(read: Promise<unknown>): Promise<string> {
  const error = await failureOf(read)
  if (error instanceof XrpcError) {
    expect(error.message).not.toMatch(/\d|postgres/)
    return `${error.status} ${error.error} ${error.headers['retry-after']} ${codeOf(error)}`
  }
  return error instanceof Error ? `${error.name} ${error.message}` : 'it was answered'
}

describe('an index that cannot be read', () => {
  test('is unavailable where nobody listens', async () => {
    await using reads = new IndexReads({ url: 'postgres://somebody:secret@127.0.0.1:1/nothing' })
    for (const _ of [1, 2, 3]) {
      expect(await refusalOf(reads.rows(one, []))).toBe('503 IndexUnavailable 5 ECONNREFUSED')
    }
  })

  test('is unavailable where there is no such database', async () => {
    const to = new URL(url)
    to.pathname = '/nothing'
    await using reads = new IndexReads({ url: to.href })
    expect(await refusalOf(reads.rows(one, []))).toBe('503 IndexUnavailable 5 3D000')
  })

  test('is unavailable where a table is missing', async () => {
    await using reads = new IndexReads({ url })
    const missing = reads.rows('select 1 from stratos_nothing', [])
    expect(await refusalOf(missing)).toBe('503 IndexUnavailable 5 42P01')
  })

  test('is unavailable to a statement that takes too long', async () => {
    await using reads = new IndexReads({ url, statementMsMax: 50 })
    const long = reads.rows('select pg_sleep(60)', [])
    expect(await refusalOf(long)).toBe('503 IndexUnavailable 5 57014')
    expect(await reads.rows(one, [])).toEqual([{ one: 1 }])
  })

  test('is unavailable while its connections break, and well again afterwards', async () => {
    await using wire = await PostgresWire.open(url)
    await using reads = new IndexReads({ url: wire.url })
    expect(await reads.rows(one, [])).toEqual([{ one: 1 }])
    const read = 'select pg_sleep(60)'
    const slow = refusalOf(reads.rows(read, []))
    await sleeping(read)
    await wire.cut()
    expect(await slow).toStartWith('503 IndexUnavailable 5 ')
    for (const _ of Array.from({ length: 20 })) {
      expect(await refusalOf(reads.rows(one, []))).toStartWith('503 IndexUnavailable 5 ')
    }
    await wire.mend()
    await eventually('answer', async () => {
      const answer = await refusalOf(reads.rows(one, []))
      return answer === 'it was answered' ? true : undefined
    })
    await Promise.all(Array.from({ length: 50 }, () => reads.rows(one, [])))
  })

  test('is unavailable while connections to it are closed before they are of use', async () => {
    await using wire = await PostgresWire.open(url)
    await using reads = new IndexReads({ url: wire.url, answerMsMax: 200 })
    wire.hangUp()
    expect(await refusalOf(reads.rows(one, []))).toBe('503 IndexUnavailable 5 unknown')
    await wire.mend()
    expect(await reads.rows(one, [])).toEqual([{ one: 1 }])
  })

  test('is unavailable while it says nothing, and read anew once it speaks', async () => {
    await using wire = await PostgresWire.open(url)
    await using reads = new IndexReads({ url: wire.url, connectionsMax: 1, answerMsMax: 200 })
    expect(await reads.rows(one, [])).toEqual([{ one: 1 }])
    wire.silence()
    const slow = [reads.rows(one, []), reads.rows(one, [])].map(refusalOf)
    expect(await slow[0]).toBe('503 IndexUnavailable 5 unknown')
    await wire.mend()
    await slow[1]
    expect(await reads.rows(one, [])).toEqual([{ one: 1 }])
  })
})

test('a read whose connection is ended by the operator is read again', async () => {
  await using reads = new IndexReads({ url, connectionsMax: 2 })
  await reads.rows('create sequence reads', [])
  const slow = `select pg_sleep(case nextval('reads') when 1 then 60 else 0 end) is null as slow`
  const read = reads.rows(slow, [])
  await endBackend(await sleeping(slow))
  expect(await read).toEqual([{ slow: false }])
  await Promise.all(Array.from({ length: 20 }, () => reads.rows(one, [])))
})

test('what the database says of a bad argument is told to nobody', async () => {
  await using reads = new IndexReads({ url })
  const bad = reads.rows('select $1::text::timestamptz as at', ['something private'])
  expect(await refusalOf(bad)).toBe('IndexRefused the index refused a read: 22007')
})

test('one more than may wait is refused, and those who wait get their answers', async () => {
  await using reads = new IndexReads({ url, connectionsMax: 1 })
  const all = Array.from({ length: 1_002 }, () => refusalOf(reads.rows(one, [])))
  const answers = await Promise.all(all)
  expect(answers.filter((answer) => answer === 'it was answered')).toHaveLength(1_001)
  expect(answers.at(-1)).toStartWith('503 Overloaded 1 ')
  expect(await reads.rows(one, [])).toEqual([{ one: 1 }])
})

describe('of what one reader asks at once', () => {
  test('one more than a hundred is refused, and four are under way while others are answered', async () => {
    await using reads = new IndexReads({ url })
    const release = await lock()
    const all = Array.from({ length: 100 }, () => refusalOf(reads.rows(locked, [], ann)))
    expect(await refusalOf(reads.rows(one, [], ann))).toStartWith('503 Overloaded 1 ')
    const others = Array.from({ length: 20 }, (_, index) => reads.rows(one, [], didOf(`${index}`)))
    await Promise.all([...others, reads.rows(one, [])])
    await eventually('four under way', async () => ((await underWay()) === 4 ? true : undefined))
    await release()
    expect(await Promise.all(all)).toEqual(Array.from({ length: 100 }, () => 'it was answered'))
    await Promise.all(Array.from({ length: 100 }, () => reads.rows(one, [], ann)))
  })

  test('nothing counts that failed', async () => {
    await using reads = new IndexReads({ url })
    for (let read = 0; read < 120; read++) {
      expect(await refusalOf(reads.rows('select', [1], ann))).not.toContain('Overloaded')
    }
    expect(await reads.rows(one, [], ann)).toEqual([{ one: 1 }])
  })
})

const ann = didOf('ann')
const locked = 'select pg_advisory_xact_lock_shared(1) is null as locked'

/** Whatever reads `locked` waits until the lock is released. */
async function lock(): Promise<() => Promise<void>> {
  const sql = connectIndex({ url, connectionsMax: 1 })
  await sql`select pg_advisory_lock(1)`
  return async () => await sql.end()
}

/** Reads of `locked`. */
async function underWay(): Promise<number> {
  const sql = connectIndex({ url, connectionsMax: 1 })
  const rows = await sql`select from pg_stat_activity
    where wait_event = 'advisory' and query = ${locked}`
  await sql.end()
  return rows.length
}

/** The backend of the read that sleeps. */
async function sleeping(read: string): Promise<number> {
  const sql = connectIndex({ url, connectionsMax: 1 })
  try {
    return await eventually('slow read', async () => {
      const [row] = await sql<{ pid: number }[]>`select pid from pg_stat_activity
        where wait_event = 'PgSleep' and query = ${read}`
      return row?.pid
    })
  } finally {
    await sql.end()
  }
}

async function endBackend(pid: number): Promise<void> {
  const sql = connectIndex({ url, connectionsMax: 1 })
  await sql`select pg_terminate_backend(${pid})`
  await sql.end()
}
