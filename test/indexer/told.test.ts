import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from 'bun:test'
import { commitFrame, errorFrame, messageFrame } from '../../src/atproto/stream-frame.ts'
import { parseDid, parseTid } from '../../src/atproto/syntax.ts'
import type { BackfillPage } from '../../src/indexer/backfill.ts'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { Indexing } from '../../src/indexer/indexing.ts'
import { createLog } from '../../src/lib/log.ts'
import { post, put, remove, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually } from '../kit/wait.ts'
import { committed, enrolled, heartbeat, ScriptedService } from './scripted-service.ts'

setDefaultTimeout(30_000)

const alice = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const bob = parseDid('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb')
const a = `${service}/a`

let server: PostgresServer
let scripted: ScriptedService
let sql: IndexSql
let indexing: Indexing
let log: string[]

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
})
beforeEach(async () => {
  const url = await server.database()
  sql = await openIndex({ url })
  scripted = new ScriptedService()
  log = []
  const lines = createLog('debug', (line) => void log.push(line))
  indexing = new Indexing({
    index: { url },
    sql,
    services: [scripted.followed],
    log: lines,
    allowPrivateNetwork: true,
  })
})
afterEach(async () => {
  await indexing.stop()
  await scripted[Symbol.asyncDispose]()
  await sql.end({ timeout: 1 })
})

describe('of what a service says nothing is believed', () => {
  test('that is no frame: the connection ends, and begins again where the index is', async () => {
    const peer = await live(alice)
    peer.send(committed(alice, 5, put('kept', post([a]))))
    await seen('kept')
    peer.send(new Uint8Array([1, 2, 3]))
    peer.send(committed(alice, 9, put('unseen', post([a]))))
    await eventually('end', () => (peer.isOpen ? undefined : true))
    const next = await scripted.everybody()
    expect(JSON.parse(next.said[0] ?? '')).toEqual({ cursors: { [alice]: 5 }, more: false })
    expect(await uris()).toEqual(['kept'])
    expect(log.join()).toContain('index.stream.failed')
  })

  test('of boundaries of others, or of people who are not enrolled', async () => {
    const peer = await live(alice)
    peer.send(enrolled(alice, [a, 'did:web:other.test/a']))
    peer.send(committed(alice, 5, put('foreign', post(['did:web:other.test/a']))))
    peer.send(committed(bob, 5, put('stranger', post([a]))))
    peer.send(committed(alice, 6, put('own', post([a]))))
    await seen('foreign', 'own')
    const [member] = await sql`select boundaries from stratos_enrollment`
    expect(member?.['boundaries']).toEqual([a])
    const places = await sql`select boundary from stratos_post_boundary`
    expect(places.map(({ boundary }) => boundary)).toEqual([a])
    expect(await uris()).not.toContain('stranger')
  })

  test('about what was sent by a stream that is behind, or longer ago than it says', async () => {
    const peer = await live(alice)
    const first = await heard()
    peer.send(heartbeat({ behind: true }))
    peer.send(committed(alice, 5, put('one', post([a]))))
    await seen('one')
    expect(await heard()).toEqual(first)
    const sentMs = Date.now()
    peer.send(heartbeat({ age: 60_000 }))
    await eventually('heartbeat', async () => ((await heard()) === first ? undefined : true))
    expect(await heard()).toBeGreaterThanOrEqual(sentMs - 60_000 - 5_000)
    expect(await heard()).toBeLessThanOrEqual(Date.now() - 60_000)
  })
})

describe('an event that cannot be read', () => {
  test('takes the rows of its actor away until the repo was read, and nobody else’s', async () => {
    const peer = await live(alice, bob)
    peer.send(committed(alice, 5, put('old', post([a]))))
    peer.send(committed(bob, 5, put('bobs', post([a]))))
    await seen('bobs', 'old')
    const gate = Promise.withResolvers<void>()
    scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
      await gate.promise
      yield { records: [put('present', post([a]))], seq: 7 }
    })
    const time = new Date().toISOString()
    const ops = [{ action: 'delete', path: 'no-path' }] as const
    peer.send(commitFrame({ seq: 6, did: alice, time, rev: parseTid('3jzfcijpj2z2a'), ops }))
    await seen('bobs')
    const [parked] = await sql`select did, seq, error from stratos_parked_event`
    expect(parked).toMatchObject({ did: alice, seq: 6 })
    gate.resolve()
    await seen('bobs', 'present')
  })

  test('in a log that cannot be read, or is not whole, does so, too', async () => {
    const peer = await live(alice)
    let before: string[] = []
    for (const name of ['RepoUnavailable', 'OutdatedCursor']) {
      peer.send(committed(alice, 5, put('old', post([a]))))
      await seen('old', ...before)
      scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
        yield { records: [put(name.toLowerCase(), post([a]))], seq: 4 }
      })
      peer.send(messageFrame('#info', { name, did: alice }))
      await seen(name.toLowerCase())
      before = [name.toLowerCase()]
    }
  })
})

test('a repo whose log cannot be read is read anew once nobody says so any more', async () => {
  const peer = await live(alice)
  peer.send(committed(alice, 5, put('old', post([a]))))
  await seen('old')
  let asked = 0
  scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
    asked += 1
    yield { records: [put('present', post([a]))], seq: 9 }
  })
  for (let times = 0; times < 20; times++) {
    peer.send(messageFrame('#info', { name: 'RepoUnavailable', did: alice }))
  }
  await seen()
  expect(asked).toBe(0)
  await seen('present')
  expect(asked).toBe(1)
})

describe('while a repo is read', () => {
  test('events of its actor wait, and are stored after it; and it is not said that all is', async () => {
    const peer = await live(alice, bob)
    const [gate, asked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
      asked.resolve()
      await gate.promise
      yield { records: [put('gone', post([a])), put('stays', post([a]))], seq: 6 }
    })
    peer.send(messageFrame('#status', { seq: 5, did: alice, time: now(), takendown: false }))
    await asked.promise
    peer.send(committed(alice, 6, put('before', post([a]))))
    peer.send(committed(alice, 7, remove('gone'), put('after', post([a]))))
    peer.send(committed(bob, 5, put('bobs', post([a]))))
    const first = await heard()
    peer.send(heartbeat())
    await seen('bobs')
    expect(await heard()).toEqual(first)
    expect(indexing.state.services[0]).toMatchObject({ waiting: 2, backfills: 1 })
    gate.resolve()
    await seen('after', 'bobs', 'stays')
    await eventually('heartbeat', async () => {
      peer.send(heartbeat())
      return (await heard()) === first ? undefined : true
    })
  })

  test('for long, the rows of its actor go, and others are heard again', async () => {
    const peer = await live(alice, bob)
    peer.send(committed(alice, 5, put('old', post([a]))))
    peer.send(committed(bob, 5, put('bobs', post([a]))))
    await seen('bobs', 'old')
    const [gate, asked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
      asked.resolve()
      await gate.promise
      yield { records: [put('stays', post([a]))], seq: 6 }
    })
    peer.send(messageFrame('#status', { seq: 6, did: alice, time: now(), takendown: false }))
    await asked.promise
    peer.send(heartbeat())
    const sent = Date.now()
    await eventually('heartbeat', async () =>
      ((await heard()) ?? 0) > sent - 1_000 ? true : undefined,
    )
    await seen('bobs', 'old')
    peer.send(committed(alice, 7, remove('old'), put('after', post([a]))))
    await eventually('heartbeat', async () => {
      peer.send(heartbeat())
      return ((await heard()) ?? 0) > sent + 2_000 ? true : undefined
    })
    await seen('bobs')
    // Another connection would go on there, and not from the beginning.
    const [cursor] = await sql`select seq from stratos_sync_cursor where did = ${alice}`
    expect(cursor).toMatchObject({ seq: 6 })
    gate.resolve()
    await seen('after', 'bobs', 'stays')
  })

  test('and its actor leaves, nothing of it is stored', async () => {
    const peer = await live(alice, bob)
    const [gate, asked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
      asked.resolve()
      await gate.promise
      yield { records: [put('gone', post([a]))], seq: 6 }
    })
    peer.send(messageFrame('#status', { seq: 5, did: alice, time: now(), takendown: false }))
    await asked.promise
    peer.send(enrolled(alice, [], 'unenroll'))
    peer.send(committed(bob, 5, put('bobs', post([a]))))
    await seen('bobs')
    gate.resolve()
    await eventually('end', () => (indexing.state.services[0]?.backfills === 0 ? true : undefined))
    await seen('bobs')
    expect(await sql`select did from stratos_enrollment`).toHaveLength(1)
  })
})

test('a repo is not read before what was told until then is stored', async () => {
  const peer = await live(alice)
  peer.send(committed(alice, 5, put('old', post([a]))))
  await seen('old')
  scripted.repos.set(alice, async function* (): AsyncGenerator<BackfillPage> {
    yield { records: [put('present', post([a]))], seq: 9 }
  })
  await sql.begin(async (transaction) => {
    // The reset waits for it; whoever read meanwhile would be undone by the reset.
    await transaction`select 1 from stratos_enrollment where did = ${alice} for update`
    peer.send(messageFrame('#info', { name: 'OutdatedCursor', did: alice }))
    await Bun.sleep(300)
  })
  await seen('present')
  const [cursor] = await sql`select seq, "backfillDue" from stratos_sync_cursor`
  expect(cursor).toMatchObject({ seq: 9, backfillDue: false })
})

test('a cursor past the end of a log lets its actor be read anew', async () => {
  const peer = await live(alice)
  peer.send(committed(alice, 5, put('lost', post([a]))))
  await seen('lost')
  peer.send(errorFrame('FutureCursor', `the cursor of ${alice} is past the end`))
  await seen()
})

describe('of a service without a stream of everybody', () => {
  test('each has one of their own, which says nothing of others', async () => {
    scripted.hasCommits = false
    indexing.start()
    for (let round = 0; round < 2; round++) {
      const peer = await scripted.peer((params) => !params.has('did'))
      for (const did of [alice, bob]) peer.send(enrolled(did, [a]))
      peer.send(heartbeat())
      await eventually('end', () => (peer.isOpen && round === 0 ? undefined : true))
    }
    const [ofAlice, ofBob] = [await own(alice), await own(bob)]
    expect(ofAlice.params.get('cursor')).toBe('0')
    ofAlice.send(committed(alice, 5, put('one', post([a]))))
    ofAlice.send(committed(bob, 5, put('forged', post([a]))))
    ofBob.send(committed(bob, 6, put('two', post([a]))))
    await seen('one', 'two')
    const enrollments = await scripted.peer((params) => !params.has('did'))
    const first = await heard()
    // The first one lets each stream be asked for a sign of life.
    await eventually('heartbeat', async () => {
      enrollments.send(heartbeat())
      return (await heard()) === first ? undefined : true
    })
    enrollments.send(enrolled(bob, [], 'unenroll'))
    await seen('one')
    await eventually('end', () => (ofBob.isOpen ? undefined : true))
    expect(ofAlice.isOpen).toBe(true)
  })

  test('whoever left while nobody listened is gone with the next connection', async () => {
    scripted.hasCommits = false
    indexing.start()
    for (const those of [[alice, bob], [alice]]) {
      const peer = await scripted.peer((params) => !params.has('did'))
      for (const did of those) peer.send(enrolled(did, [a]))
      peer.send(heartbeat())
      await eventually('end', () => (peer.isOpen && those.length > 1 ? undefined : true))
    }
    await eventually('one member', async () => {
      const members = await sql`select did from stratos_enrollment`
      return members.length === 1 && members[0]?.['did'] === alice ? true : undefined
    })
  })
})

/** A connection that has told who is enrolled. */
async function live(...dids: readonly string[]) {
  for (const did of dids) {
    scripted.repos.set(did, async function* (): AsyncGenerator<BackfillPage> {
      yield { records: [], seq: 1 }
    })
  }
  indexing.start()
  const first = await scripted.peer((params) => !params.has('commits'))
  for (const did of dids) first.send(enrolled(parseDid(did), [a]))
  first.send(heartbeat())
  const peer = await scripted.everybody()
  for (const did of dids) peer.send(enrolled(parseDid(did), [a]))
  peer.send(heartbeat())
  await eventually('live', () => {
    const [state] = indexing.state.services
    return state?.isLive === true && state.backfills === 0 ? true : undefined
  })
  for (const did of dids) scripted.repos.delete(did)
  return peer
}

async function own(did: string) {
  return await scripted.peer((params) => params.get('did') === did)
}

async function uris(): Promise<string[]> {
  const rows = await sql<{ rkey: string }[]>`select rkey from stratos_post order by rkey`
  return rows.map(({ rkey }) => rkey)
}

async function seen(...rkeys: readonly string[]): Promise<void> {
  let last: string[] = []
  try {
    await eventually(
      rkeys.join(),
      async () => (Bun.deepEquals((last = await uris()), [...rkeys]) ? true : undefined),
      { withinMs: 8_000, everyMs: 5 },
    )
  } catch (cause) {
    throw new Error(`the index has ${last.join()}\n${log.slice(-10).join('\n')}`, { cause })
  }
}

async function heard(): Promise<number | undefined> {
  const [row] = await sql<{ heardAt: Date }[]>`select "heardAt" from stratos_service_state`
  return row?.heardAt.getTime()
}

function now(): string {
  return new Date().toISOString()
}
