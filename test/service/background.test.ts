import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { Background } from '../../src/service/background.ts'
import { SessionSecrets } from '../../src/service/session-secrets.ts'
import { KeepAlive } from '../../src/service/keep-alive.ts'
import { defaultCollections } from '../../src/service/collections.ts'
import { Retention } from '../../src/service/retention.ts'
import { StubSwitch } from '../../src/service/stub-switch.ts'
import { BlobSweep } from '../../src/service/blob-sweep.ts'
import { TakedownNews } from '../../src/service/takedown-news.ts'
import { SessionSecretStore } from '../../src/store/session-secret.ts'
import { sessionMs, Sessions } from '../../src/store/session.ts'
import { eventually } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, type Person } from './delivering.ts'
import { b, serviceDid } from './posts.ts'

const folder = temporaryFolder()
let world: Delivering
let alice: Person
let bob: Person
/** Whose session was refreshed. */
let refreshed: Did[]
let secrets: SessionSecrets
/** By the clock of the secrets. */
let laterMs: number

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = await world.person()
  bob = await world.person()
  refreshed = []
  laterMs = 0
  secrets = await SessionSecrets.open({
    store: new SessionSecretStore(world.sql),
    now: () => Date.now() + laterMs,
    log: createLog('info', (line) => void world.log.push(line)),
  })
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('after an end in order only marked actors are looked at', async () => {
  await leftBehind()
  await world.store.markOutbox(bob.did)
  const background = start({ clean: true })
  await world.quiet()
  expect(await background.stop()).toBe('swept')
  expect(world.pds.written).toEqual(['put bob'])
})

test('after a kill everybody is looked at', async () => {
  await leftBehind()
  const background = start({ clean: false })
  await eventually('both stubs', () => (world.pds.written.length === 2 ? true : undefined))
  await world.quiet()
  expect(await background.stop()).toBe('swept')
})

test('a sweep that is cut short is left to the next start', async () => {
  await leftBehind()
  expect(await start({ clean: false }).stop()).toBe('unswept')
})

test('one broken actor does not hide the rows of the others, and is looked at again', async () => {
  await leftBehind()
  const [broken, good] = [alice, bob].toSorted((one, other) => (one.did < other.did ? -1 : 1))
  await world.house.pool.close()
  {
    using database = new Database(broken?.actor.database ?? '')
    database.run('drop table stratos_outbox')
  }
  const background = start({ clean: false })
  await eventually('other stub', () => (world.pds.written.length === 1 ? true : undefined))
  expect(world.pds.callsOf(good?.did ?? '')).toHaveLength(1)
  expect(await background.stop()).toBe('unswept')
  expect(world.log.some((line) => line.includes(broken?.did ?? 'nobody'))).toBeTrue()
})

test('records that are due are queued', async () => {
  await world.store.setBoundaries(alice.did, [b])
  const background = start({ clean: true })
  const look = () => world.pds.at(alice.did, serviceDid, 'zone.stratos.actor.enrollment')
  expect(await eventually('enrollment record', look)).toMatchObject({ boundaries: [{ value: b }] })
  await world.quiet()
  expect(await background.stop()).toBe('swept')
})

test('records that are due are queued once, however long that takes', async () => {
  const queued: Did[] = []
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (call.kind === 'queue') queued.push(did)
    // Time for the next rounds to begin.
    await Bun.sleep(5)
    return await pass(did, requestId, call)
  }
  const people = [alice, bob, await world.person(), await world.person()].map(({ did }) => did)
  for (const did of people) await world.store.setBoundaries(did, [b])
  const background = start({ clean: true, dueEveryMs: 1 })
  await eventually(
    'records',
    async () => (await world.store.recordsDue()).length === 0 || undefined,
  )
  await world.quiet()
  await background.stop()
  expect(queued.toSorted()).toEqual(people.toSorted())
})

/** Rows whose marks were lost, and the outbox of the process that finds them. */
async function leftBehind(): Promise<void> {
  await world.outbox.stop()
  await alice.post('alice')
  await bob.post('bob')
  for (const { did } of [alice, bob]) await world.store.clearOutbox(did)
  world.outbox = world.fresh()
}

test('sessions that were not used for long are refreshed', async () => {
  const background = start({ clean: true, inDays: 8 })
  await eventually('both refreshes', () => (refreshed.length === 2 ? true : undefined))
  expect(refreshed.toSorted()).toEqual([alice.did, bob.did].toSorted())
  await background.stop()
})

test('sessions that are over are removed, and secrets that nothing needs are erased', async () => {
  const sessions = new Sessions(world.sql)
  const nowMs = Date.now()
  const over = { digest: 'over', did: alice.did, expiresAtMs: nowMs - 1 }
  const going = { digest: 'going', did: alice.did, expiresAtMs: nowMs + sessionMs }
  for (const session of [over, going]) expect(await sessions.create(session, 0)).toBeTrue()
  const before = secrets.current.kid
  const { kid } = await secrets.rotate()
  laterMs = sessionMs
  const background = start({ clean: true })
  await eventually('erased secret', async () => {
    const rows = await world.sql.all<{ kid: string }>('select kid from session_secret')
    return rows.length === 1 || undefined
  })
  await background.stop()
  expect(secrets.current.kid).toBe(kid)
  expect(secrets.find(before)).toBeUndefined()
  expect(await world.sql.all('select digest from session')).toEqual([{ digest: 'going' }])
})

function start(how: {
  readonly clean: boolean
  readonly inDays?: number
  readonly dueEveryMs?: number
}) {
  const { clean, inDays = 0, dueEveryMs = 30_000 } = how
  const { store, outbox, departures, takedowns, storage, blobs, call } = world
  const log = createLog('info', (line) => void world.log.push(line))
  const stubs = new StubSwitch({
    mode: 'full',
    stubCollections: () => defaultCollections,
    store,
    call,
    outbox,
    log,
  })
  const keepAlive = new KeepAlive({
    store,
    refresh: async (did) => void refreshed.push(did),
    troubled: () => undefined,
    now: () => Date.now() + inDays * 86_400_000,
    firstMs: 0,
    log,
  })
  const enrollments = world.enrollments(ServiceKey.generate(), { serviceDid })
  return new Background({
    dataDir: world.house.dataDir,
    clean,
    store,
    sessions: new Sessions(world.sql),
    secrets,
    departing: { store: departures, departures: world.leaving },
    outbox,
    enrollments,
    keepAlive,
    stubs,
    news: new TakedownNews({ takedowns, blobs, enrollments, call, log }),
    blobSweep: new BlobSweep({ storage, blobs, call, enrollments, departures, now: Date.now, log }),
    retention: new Retention({ store, call, retentionDays: 30, now: Date.now, log }),
    log,
    dueEveryMs,
  })
}
