import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { openIndex } from '../../src/indexer/database.ts'
import { enrolled } from '../kit/enroll.ts'
import { Network } from '../kit/network.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { listOf } from '../kit/xrpc.ts'
import { Reader, RunningIndexer } from './running-indexer.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

let server: PostgresServer
let reader: Reader
let network: Network
let stratos: Stratos

beforeAll(async () => {
  server = await PostgresServer.start()
  reader = new Reader()
  network = await Network.start()
  const env = { STRATOS_ALLOWED_APPVIEWS: reader.did }
  stratos = await Stratos.start({ network, domains: ['engineering'], env })
})
afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
  await reader?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

test('what a PDS tells of an enrollment lets the indexer ask the service', async () => {
  const indexUrl = await server.database()
  const sql = await openIndex({ url: indexUrl })
  await using indexer = await RunningIndexer.start({
    reader,
    indexUrl,
    services: `${stratos.did}=${stratos.url}`,
    env: { STRATOS_INDEX_FIREHOSES: network.pdsUrl.replace('http', 'ws') },
  })
  await indexer.ready(200)
  // It follows from now on: the first event says that it does.
  for (let at = 0; (await firehose())['events'] === 0; at++)
    await network.createAccount(`nobody${at}`)
  expect(await firehose()).toMatchObject({ broken: 0, hints: 0 })
  const alice = await network.createAccount('alice')
  await enrolled(stratos, alice)
  const line = await eventually('look at the service', () =>
    indexer.log.split('\n').find((one) => one.includes('"index.hint"')),
  )
  const looked: unknown = JSON.parse(line)
  expect(looked).toMatchObject({ service: stratos.did, did: alice.did })
  expect(await firehose()).toMatchObject({ broken: 0, hints: 1 })
  await eventually('member', async () => {
    const rows = await sql`select did from stratos_enrollment where did = ${alice.did}`
    return rows.length === 1 ? true : undefined
  })
  await sql.end()

  async function firehose(): Promise<Readonly<Record<string, unknown>>> {
    const [counts = {}] = listOf(await indexer.state(), 'firehoses')
    return counts
  }
})
