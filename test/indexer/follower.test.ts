import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually, within } from '../kit/wait.ts'
import { Streaming } from '../api/stream-readers.ts'
import { Followed } from './followed.ts'
import { ScriptedService } from './scripted-service.ts'

setDefaultTimeout(60_000)

const names = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank']
let streaming: Streaming
let server: PostgresServer

beforeAll(async () => {
  server = await PostgresServer.start()
  streaming = await Streaming.start(Object.fromEntries(names.map((name) => [name, ['a', 'b']])))
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

describe('an index is not filled', () => {
  test('by whom the service does not let in, and the log says why without a secret', async () => {
    await using followed = await open()
    const token = 'Bearer not.a.token'
    followed.start({ authorize: async () => token })
    await eventually('refusal', () => (followed.log.join().includes('refused') ? true : undefined))
    expect(await followed.rows()).toEqual([])
    expect(followed.log.join()).not.toContain(token)
  })

  test('by two at once: one waits until the other has ended', async () => {
    await using followed = await open()
    const first = followed.start()
    await eventually('leader', () => (first.state.role === 'leading' ? true : undefined))
    const second = followed.indexing()
    second.start()
    try {
      await eventually('wait', () =>
        followed.log.join().includes('index.waiting') ? true : undefined,
      )
      expect(second.state).toEqual({ role: 'waiting', services: [], firehoses: [] })
      await followed.stop()
      await eventually('follower', () => (second.state.role === 'leading' ? true : undefined))
      await streaming.write('alice', 'second')
      await followed.same()
    } finally {
      await second.stop()
    }
  })
})

describe('an index holds', () => {
  test('what was written before it came, and what is written while it is there', async () => {
    await streaming.write('alice', 'before')
    await using followed = await open()
    followed.start()
    await followed.same()
    await streaming.write('bob', 'after', { in: ['a', 'b'] })
    await streaming.write('bob', 'moved', { in: ['a'] })
    await streaming.write('bob', 'moved', { in: ['b'] })
    await streaming.write('alice', 'gone')
    await streaming.remove('alice', 'gone')
    await streaming.stratos.setBoundaries('carol', ['c'])
    await followed.same()
    expect((await followed.rows()).length).toBeGreaterThan(names.length)
  })

  test('after it was away what changed meanwhile, also of whoever left', async () => {
    await using followed = await open()
    await streaming.write('dave', 'of-before')
    await streaming.write('bob', 'to-go')
    followed.start()
    await followed.same()
    await followed.stop()
    await streaming.write('bob', 'meanwhile')
    await streaming.remove('bob', 'to-go')
    await streaming.stratos.setBoundaries('bob', ['a'])
    await streaming.leave('dave')
    followed.start()
    await followed.same()
    expect((await followed.rows()).join()).not.toContain(streaming.did('dave'))
  })

  test('what is written after its service or its connections were killed', async () => {
    await using followed = await open()
    followed.start()
    await followed.same()
    await streaming.stratos.kill()
    await streaming.run()
    await streaming.write('alice', 'after-service')
    await followed.same()
    await followed.sql`select pg_terminate_backend(pid) from pg_stat_activity
      where pid <> pg_backend_pid() and datname = current_database()`
    await streaming.write('alice', 'after-connections')
    await followed.same()
  })

  test('all, though it is given more at once than it keeps', async () => {
    await using followed = await open()
    const indexing = followed.start()
    await followed.same()
    // What is still to be read anew would come by no stream.
    await eventually('all repos', () =>
      indexing.state.services[0]?.backfills === 0 ? true : undefined,
    )
    await followed.stop()
    for (let at = 0; at < 40; at++) await streaming.write('erin', `e${at}`)
    followed.start({}, { bytesMax: 4_000 })
    await followed.same()
    expect(followed.log.join()).toContain('"kind":"behind"')
  })

  test('what a service holds that was put back to an earlier state', async () => {
    await using followed = await open()
    followed.start()
    await followed.same()
    await followed.stop()
    // As far as the index knows the log went on.
    await followed.sql`update stratos_sync_cursor set seq = 4102444800000000
      where did = ${streaming.did('alice')}`
    await followed.sql`update stratos_post set text = 'lost' where creator = ${streaming.did('alice')}`
    followed.start()
    await followed.same()
  })
})

test('an index says until when it holds all, and no more once the service is silent', async () => {
  await using followed = await open()
  const indexing = followed.start()
  await followed.same()
  const heard = async () => {
    const [row] = await followed.sql<{ heardAt: Date; serviceUrl: string }[]>`
      select "heardAt", "serviceUrl" from stratos_service_state`
    return row
  }
  const before = Date.now()
  const first = await eventually('heartbeat', async () => {
    const row = await heard()
    return row !== undefined && row.heardAt.getTime() > before ? row : undefined
  })
  expect(first.serviceUrl).toBe(streaming.stratos.url)
  expect(first.heardAt.getTime()).toBeLessThanOrEqual(Date.now())
  const [state] = indexing.state.services
  expect(state).toMatchObject({ isLive: true, waiting: 0, backfills: 0 })
  expect(state?.heardMs).toBeGreaterThan(before)
  await streaming.stratos.terminate()
  const stopped = Date.now()
  await eventually('end', () => (indexing.state.services[0]?.isLive === false ? true : undefined))
  expect((await heard())?.heardAt.getTime()).toBeLessThanOrEqual(stopped)
  await streaming.run()
})

test('an index that cannot store what it was told ends when it is told to', async () => {
  await using followed = await open()
  const indexing = followed.start()
  await followed.same()
  await eventually('live', () => (indexing.state.services[0]?.isLive === true ? true : undefined))
  await server.kill()
  try {
    await eventually('delay', () =>
      followed.log.join().includes('index.delayed') ? true : undefined,
    )
    // Twice as much as is given to the writer before anybody waits.
    await Bun.sleep(4_000)
    await within(15_000, 'end', indexing.stop())
  } finally {
    await server.restart()
  }
})

test('an index that is told to end while it connects waits for no word of the service', async () => {
  await using followed = await open()
  await using silent = new ScriptedService()
  const asked = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<string>()
  const authorize = async () => {
    asked.resolve()
    return await gate.promise
  }
  const indexing = followed.start({ ...silent.followed, authorize })
  await asked.promise
  const ended = indexing.stop()
  gate.resolve('Bearer none')
  await within(5_000, 'end', ended)
})

async function open(): Promise<Followed> {
  return await Followed.open(streaming, names, server)
}
