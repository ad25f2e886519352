import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { type FollowedService, Follower } from '../../src/indexer/follower.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { createLog } from '../../src/lib/log.ts'
import { service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually } from '../kit/wait.ts'
import { enrolled, heartbeat, ScriptedService } from './scripted-service.ts'

const alice = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const a = `${service}/a`

let server: PostgresServer
let scripted: ScriptedService
let sql: IndexSql
let writer: IndexWriter
let lines: string[]
/** Whom the service was asked about. */
let asked: string[]
let stopping: AbortController
let running: Promise<void> | undefined

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
})
beforeEach(async () => {
  const url = await server.database()
  sql = await openIndex({ url })
  writer = new IndexWriter({ index: { url } })
  scripted = new ScriptedService()
  stopping = new AbortController()
  lines = []
  asked = []
})
afterEach(async () => {
  stopping.abort()
  await running
  await writer[Symbol.asyncDispose]()
  await scripted[Symbol.asyncDispose]()
  await sql.end({ timeout: 1 })
})

/** In which any frame comes. */
const longMs = 1_000

/** Of a service that is asked how somebody stands; live with nobody enrolled. */
async function live(standing: FollowedService['standing'], hintMs = 20) {
  const follower = new Follower({
    service: {
      ...scripted.followed,
      standing: async (did) => {
        asked.push(did)
        return await standing(did)
      },
    },
    index: { url: '' },
    sql,
    writer,
    log: createLog('debug', (line) => void lines.push(line)),
    hintMs,
  })
  running = follower.run(stopping.signal)
  const peer = await told()
  await eventually('live', () => (follower.state.isLive ? true : undefined))
  return { follower, peer }
}

/** A connection that has told of everybody who is enrolled: those of `dids`. */
async function told(...dids: readonly (typeof alice)[]) {
  const first = await scripted.peer((params) => !params.has('commits'))
  for (const did of dids) first.send(enrolled(did, [a]))
  first.send(heartbeat())
  const peer = await scripted.everybody()
  for (const did of dids) peer.send(enrolled(did, [a]))
  peer.send(heartbeat())
  return peer
}

const said = (event: string) => lines.filter((line) => line.includes(`"${event}"`)).length

const saidOnce = (event: string) =>
  eventually(event, () => (said(event) > 0 ? true : undefined), { everyMs: 5 })

describe('a hint', () => {
  test('changes nothing where the service answers what the index was told', async () => {
    const { follower, peer } = await live(async () => ({ isEnrolled: false, boundaries: [] }))
    expect(follower.hint(alice)).toBe(true)
    await saidOnce('index.hint')
    await eventually('second look', () => {
      follower.hint(alice)
      return said('index.hint') > 1 ? true : undefined
    })
    expect(peer.isOpen).toBe(true)
    expect(said('index.stream.renewed')).toBe(0)
  })

  test('is looked into once at a time, and for few accounts at once', async () => {
    const gate = Promise.withResolvers<void>()
    const { follower } = await live(async () => {
      await gate.promise
      return { isEnrolled: false, boundaries: [] }
    })
    const others = Array.from({ length: 20 }, (_, at) =>
      parseDid(`did:plc:${String.fromCharCode(98 + at).repeat(24)}`),
    )
    const taken = [alice, alice, ...others].map((did) => follower.hint(did))
    expect(taken).toEqual([...Array.from({ length: 21 }, () => true), false])
    expect(asked).toHaveLength(20)
    gate.resolve()
    await eventually('room', () => (follower.hint(others.at(-1) ?? alice) ? true : undefined))
  })

  test('of which the service says nothing is told in the log, and no connection ends', async () => {
    const { follower, peer } = await live(async () => {
      throw new Error('away')
    })
    follower.hint(alice)
    await saidOnce('index.hint.failed')
    expect(peer.isOpen).toBe(true)
  })

  test('that the stream tells meanwhile ends no connection', async () => {
    const { follower, peer } = await live(async () => {
      peer.send(enrolled(alice, [a]))
      return { isEnrolled: true, boundaries: [a] }
    }, longMs)
    follower.hint(alice)
    await eventually('member', async () => {
      const rows = await sql`select did from stratos_enrollment`
      return rows.length === 1 ? true : undefined
    })
    await saidOnce('index.hint')
    await eventually('known', () => {
      follower.hint(alice)
      return lines.some((line) => line.includes('"isKnown":true')) ? true : undefined
    })
    expect(said('index.stream.renewed')).toBe(0)
    expect(peer.isOpen).toBe(true)
  })

  test('of what the stream did not tell begins a connection that tells of everybody', async () => {
    const { follower, peer } = await live(async () => ({ isEnrolled: true, boundaries: [a] }))
    follower.hint(alice)
    await eventually('end', () => (peer.isOpen ? undefined : true))
    expect(said('index.stream.renewed')).toBe(1)
    scripted.repos.set(alice, async function* () {
      yield { records: [], seq: 1 }
    })
    await told(alice)
    await eventually('member', async () => {
      const rows = await sql<{ did: string }[]>`select did from stratos_enrollment`
      return rows[0]?.did === alice ? true : undefined
    })
    await eventually('live', () => (follower.state.isLive ? true : undefined))
    // A service that says one thing and tells another one is not connected to again and again.
    await eventually('third look', () => {
      follower.hint(parseDid('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb'))
      return said('index.hint') > 2 ? true : undefined
    })
    expect(said('index.stream.renewed')).toBe(1)
  })
})
