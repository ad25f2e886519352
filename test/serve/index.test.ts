import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from 'bun:test'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { eventually, within } from '../kit/wait.ts'
import { xrpc } from '../kit/xrpc.ts'
import { Reader, RunningIndexer } from './running-indexer.ts'

setDefaultTimeout(120_000)

/** Some seconds, on a machine that does much else. */
const endMsMax = 15_000
let server: PostgresServer
let reader: Reader
let stratos: SeededStratos
let url: string
let sql: IndexSql

beforeAll(async () => {
  server = await PostgresServer.start()
  reader = new Reader()
  const env = { STRATOS_ALLOWED_APPVIEWS: reader.did }
  stratos = await SeededStratos.start({ people: { ann: ['a'] }, env })
})
afterAll(async () => {
  await sql?.end({ timeout: 1 })
  await stratos?.stop()
  await reader?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await sql?.end({ timeout: 1 })
  url = await server.database()
  sql = await openIndex({ url })
})

function indexer(): Promise<RunningIndexer> {
  return RunningIndexer.start({
    reader,
    indexUrl: url,
    services: `${stratos.did}=${stratos.url}`,
  })
}

async function write(text: string): Promise<void> {
  const record = privatePost(text, [stratos.boundary('a')])
  const input = { repo: stratos.person('ann').did, collection: postCollection, record }
  const { status } = await stratos.callAs('ann', 'zone.stratos.repo.createRecord', { input })
  expect(status).toBe(200)
}

async function indexed(text: string): Promise<void> {
  await eventually(`row of ${text}`, async () => {
    const rows = await sql`select text from stratos_post where text = ${text}`
    return rows.length === 1 ? true : undefined
  })
}

test('an indexer is not ready before its service is there, nor once it is gone', async () => {
  await stratos.terminate()
  await using only = await indexer()
  await only.plays('leading')
  const waiting = { service: stratos.did, isLive: false, waiting: 0, backfills: 0 }
  expect(await only.ready(503)).toEqual({ role: 'leading', services: [waiting] })
  await stratos.run()
  const lag = await eventually('index that holds all', async () => {
    const [state] = (await only.ready(200)).services
    const { lagSeconds, ...rest } = state ?? {}
    const isWhole = Bun.deepEquals(rest, { ...waiting, isLive: true })
    return isWhole && lagSeconds !== undefined ? lagSeconds : undefined
  })
  expect(lag).toBeNumber()
  expect(lag).toBeLessThan(30)
  await stratos.terminate()
  expect(await only.ready(503)).toMatchObject({ role: 'leading', services: [{ isLive: false }] })
  expect(await within(endMsMax, 'end', only.terminate())).toBe(0)
  await stratos.run()
})

test('of two indexers one leads, and when it is killed the other one goes on', async () => {
  await using first = await indexer()
  await first.plays('leading')
  await using second = await indexer()
  await second.plays('waiting')
  expect(await second.ready(200)).toEqual({ role: 'waiting', services: [] })
  await write('by the first')
  await indexed('by the first')
  await first.kill()
  await write('by nobody')
  await second.plays('leading')
  await second.ready(200)
  await write('by the second')
  for (const text of ['by nobody', 'by the second']) await indexed(text)
  await using third = await indexer()
  await third.plays('waiting')
  expect(await within(endMsMax, 'end', second.terminate())).toBe(0)
  await third.plays('leading')
})

test('an indexer outlives its PostgreSQL, and ends without it', async () => {
  await using only = await indexer()
  await only.ready(200)
  await server.kill()
  await only.ready(503)
  await write('meanwhile')
  await server.restart()
  await indexed('meanwhile')
  await server.kill()
  expect(await within(endMsMax, 'end', only.terminate())).toBe(0)
  expect(only.log).not.toContain(new URL(url).password)
  await server.restart()
})

test('nobody may ask an indexer for anything but how it is', async () => {
  await using only = await indexer()
  for (const nsid of ['zone.stratos.feed.getTimeline', 'zone.stratos.sync.getRepo']) {
    expect((await xrpc(only.url, nsid)).status).toBe(501)
  }
  expect((await fetch(`${only.url}/.well-known/did.json`)).status).toBe(404)
  expect((await xrpc(only.url, '_health')).status).toBe(200)
})
