import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { enrollmentCollection } from '../../src/atproto/enrollment.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { Firehose } from '../../src/indexer/firehose.ts'
import { firehoseCursor } from '../../src/indexer/firehose-cursor.ts'
import { parseFirehoseUrl } from '../../src/indexer/firehose-url.ts'
import type { Hint } from '../../src/indexer/hint-queue.ts'
import { createLog } from '../../src/lib/log.ts'
import { type Account, Network } from '../kit/network.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually } from '../kit/wait.ts'
import { xrpc } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const service = parseDid('did:web:stratos.test%3A3100')
const rkey = 'did:web:stratos.test:3100'

let network: Network
let server: PostgresServer
let sql: IndexSql

beforeAll(async () => {
  network = await Network.start()
  server = await PostgresServer.start()
  sql = await openIndex({ url: await server.database() })
})
afterAll(async () => {
  await sql?.end()
  await server?.[Symbol.asyncDispose]()
  await network?.stop()
})

function follow() {
  const hints: Hint[] = []
  const stopping = new AbortController()
  const firehose = new Firehose({
    at: parseFirehoseUrl(network.pdsUrl.replace('http', 'ws'), { allowPrivateNetwork: true }),
    services: new Set([service]),
    sql,
    log: createLog('silent', () => undefined),
    tell: async (hint) => void hints.push(hint),
    allowPrivateNetwork: true,
    timing: { saveMs: 20, windowMs: 20, againMs: 50, againMsMax: 500 },
  })
  const ended = firehose.run(stopping.signal)
  const told = (count: number) =>
    eventually(`hint ${count}`, () => (hints.length >= count ? true : undefined))
  const stop = async () => {
    stopping.abort()
    await ended
  }
  return { firehose, hints, told, [Symbol.asyncDispose]: stop }
}

const isOpen = (events: number, at: ReturnType<typeof follow>) =>
  eventually('events', () => (at.firehose.counts.events > events ? true : undefined))

async function ask(account: Account, method: string, more: object): Promise<void> {
  const input = { repo: account.did, collection: enrollmentCollection, rkey, ...more }
  const authorization = `Bearer ${account.accessJwt}`
  const { status } = await xrpc(network.pdsUrl, `com.atproto.repo.${method}`, {
    input,
    authorization,
  })
  expect(status).toBe(200)
}

function recordAt(createdAt: string) {
  const record = { $type: enrollmentCollection, service: 'https://stratos.test', createdAt }
  return { record, validate: false }
}

const kept = (after: number) =>
  eventually('cursor', async () => {
    const { name } = parseFirehoseUrl(network.pdsUrl.replace('http', 'ws'), {
      allowPrivateNetwork: true,
    })
    const seq = (await firehoseCursor(sql, name)) ?? 0
    return seq > after ? seq : undefined
  })

test('what people write to their PDS is told, and what they did meanwhile after a restart', async () => {
  const alice = await network.createAccount('alice')
  const bob = await network.createAccount('bob')
  let before: number
  {
    await using at = follow()
    // It follows from now on: the first event says that it does.
    await eventually('first event', async () => {
      await ask(bob, 'putRecord', { rkey: 'did:web:other.test', ...recordAt(`${Date.now()}`) })
      return at.firehose.counts.events > 0 ? true : undefined
    })
    await ask(alice, 'putRecord', recordAt('2026-01-01T00:00:00Z'))
    await at.told(1)
    await ask(alice, 'putRecord', recordAt('2026-01-02T00:00:00Z'))
    await at.told(2)
    await ask(alice, 'deleteRecord', {})
    await at.told(3)
    const did = parseDid(alice.did)
    expect(at.hints).toEqual([
      { did, service, action: 'create' },
      { did, service, action: 'update' },
      { did, service, action: 'delete' },
    ])
    expect(at.firehose.counts.broken).toBe(0)
    before = await kept(0)
    await eventually('cursor of the last', async () => {
      const now = await kept(0)
      const isStill = now === before
      before = now
      return isStill ? true : undefined
    })
  }
  await ask(bob, 'putRecord', recordAt('2026-01-03T00:00:00Z'))
  await using again = follow()
  await again.told(1)
  expect(again.hints.at(-1)).toEqual({ did: parseDid(bob.did), service, action: 'create' })
  await kept(before)

  // The PDS itself goes, and comes back.
  await network.killPds()
  await network.restartPds()
  const { events } = again.firehose.counts
  await ask(bob, 'deleteRecord', {})
  await isOpen(events, again)
  await eventually('deletion', () => (again.hints.at(-1)?.action === 'delete' ? true : undefined))
})
