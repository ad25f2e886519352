import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { XrpcError } from '../../src/atproto/errors.ts'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import type { Enrollments } from '../../src/service/enrollment.ts'
import type { Eyes } from '../../src/service/event-view.ts'
import { MemberLog } from '../../src/store/member-log.ts'
import { TakedownStore } from '../../src/store/takedown.ts'
import { Following } from '../../src/stream/following.ts'
import { ToldCursors } from '../../src/stream/told-cursors.ts'
import { Memberships } from '../../src/stream/memberships.ts'
import { ServiceStream } from '../../src/stream/service-stream.ts'
import { eventually } from '../kit/wait.ts'
import { Delivering } from '../service/delivering.ts'
import { a } from '../service/posts.ts'
import { newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Sink } from './sink.ts'

const folder = temporaryFolder()
const key = ServiceKey.generate()

let world: Delivering
let members: Enrollments
let following: Following
let alice: Did
let bob: Did

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  members = world.enrollments(key)
  following = new Following((pushed) => world.house.pool.follow(pushed))
  alice = newDid()
  bob = newDid()
  for (const did of [alice, bob]) await enroll(did)
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

describe('whoever leaves', () => {
  test('is told to have left, and nothing of theirs follows, not even what was being read', async () => {
    await actor(alice).create('one')
    const sink = new Sink()
    const stream = streamOf(sink, {})
    // The page with it is on its way when they leave.
    const arrives = hold(alice)
    await stream.start()
    await arrives.asked
    await members.unenroll(alice, 'test')
    stream.changed()
    await until(sink, 'its end', () => actionsOf(sink, alice).at(-1) === 'unenroll')
    arrives.let()
    await actor(bob).create('two')
    await until(sink, 'others', () => textsOf(sink, bob).includes('two'))
    expect(actionsOf(sink, alice)).toEqual(['enroll', 'unenroll'])
    expect(commitsOf(sink, alice)).toEqual([])
  })

  test('is told so where nothing else is left of them by then', async () => {
    const sink = new Sink()
    const stream = streamOf(sink, {})
    await stream.start()
    await members.unenroll(alice, 'test')
    await world.quiet()
    expect((await world.store.events(0, 10)).map(({ did }) => did)).not.toContain(alice)
    stream.changed()
    await until(sink, 'its end', () => actionsOf(sink, alice).at(-1) === 'unenroll')
  })

  test('and is back before that was told, left, came, and begins anew', async () => {
    await actor(alice).create('of-before')
    const sink = new Sink()
    const stream = streamOf(sink, {})
    await stream.start()
    await until(sink, 'record', () => textsOf(sink, alice).includes('of-before'))
    await members.unenroll(alice, 'test')
    await world.quiet()
    await enroll(alice)
    await actor(alice).create('of-after')
    stream.changed()
    await until(sink, 'record', () => textsOf(sink, alice).includes('of-after'))
    expect(actionsOf(sink, alice).slice(0, 3)).toEqual(['enroll', 'unenroll', 'enroll'])
    const after = sink.told.findLastIndex(([, body]) => body['action'] === 'unenroll')
    const seqs = commitsOf(sink, alice)
    expect(seqs).toEqual(seqs.toSorted((left, right) => left - right))
    expect(sink.told.slice(after).some(([type]) => type === '#commit')).toBe(true)
  })

  test('while the reader is away is missed by nobody, also when they are back', async () => {
    await actor(alice).create('of-before')
    const sink = new Sink()
    const first = streamOf(sink, {})
    await first.start()
    await until(sink, 'record', () => textsOf(sink, alice).includes('of-before'))
    first.stop()
    const cursor = commitsOf(sink, alice).at(-1) ?? 0
    await members.unenroll(alice, 'test')
    await world.quiet()
    const gone = new Sink()
    await streamOf(gone, { [alice]: cursor }).start()
    expect(actionsOf(gone, alice)).toEqual(['unenroll'])
    await enroll(alice)
    const back = new Sink()
    await streamOf(back, { [alice]: cursor }).start()
    await until(back, 'commit', () => commitsOf(back, alice).length > 0)
    const outdated = ['#info', { name: 'OutdatedCursor', did: alice }]
    expect(back.told.filter(([type]) => type === '#info')).toMatchObject([outdated])
  })
})

test('a membership that changes while the present is told is told', async () => {
  const sink = new Sink()
  const held = hold(alice, 'last')
  const starting = streamOf(sink, {}).start()
  await held.asked
  await members.unenroll(bob, 'test')
  const carol = newDid()
  await enroll(carol)
  held.let()
  await starting
  await until(sink, 'carol', () => actionsOf(sink, carol).at(-1) === 'enroll')
  await until(sink, 'bob', () => actionsOf(sink, bob).at(-1) === 'unenroll')
})

describe('a time up to which all was sent is not told', () => {
  test('while something of somebody from before is on its way', async () => {
    await actor(alice).create('one')
    const sink = new Sink()
    const stream = streamOf(sink, {})
    const arrives = hold(alice)
    await stream.start()
    await arrives.asked
    for (let ticks = 0; ticks < 3; ticks++) stream.tick()
    expect(timesOf(sink)).toEqual([])
    arrives.let()
    await until(sink, 'one', () => textsOf(sink, alice).includes('one'))
    stream.tick()
    await until(sink, 'a time', () => timesOf(sink).length === 1)
    expect(sink.told.at(-1)).toMatchObject(['#info', { age: expect.any(Number) }])
  })

  test('by the tick that takes it, nor while a membership is to be told', async () => {
    const sink = new Sink()
    const stream = streamOf(sink, {})
    await stream.start()
    await until(sink, 'bob', () => actionsOf(sink, bob).length > 0)
    const before = Date.now()
    stream.tick()
    expect(timesOf(sink)).toEqual([])
    await members.unenroll(alice, 'test')
    stream.changed()
    stream.tick()
    expect(timesOf(sink)).toEqual([])
    await until(sink, 'its end', () => actionsOf(sink, alice).at(-1) === 'unenroll')
    await until(sink, 'a time', () => {
      stream.tick()
      return timesOf(sink).length > 0
    })
    expect(timesOf(sink)[0]).toBeGreaterThanOrEqual(before)
    expect(actionsOf(sink, alice).at(-1)).toBe('unenroll')
  })

  test('while a takedown is in no log yet', async () => {
    const sink = new Sink()
    const stream = streamOf(sink, {})
    await stream.start()
    const takedowns = new TakedownStore(world.sql)
    await takedowns.markNews({ kind: 'repo', did: alice })
    for (let ticks = 0; ticks < 3; ticks++) {
      stream.tick()
      await takedowns.hasUntold()
    }
    expect(timesOf(sink)).toEqual([])
    await takedowns.clearNews(alice)
    await until(sink, 'a time', () => {
      stream.tick()
      return timesOf(sink).length > 0
    })
  })

  test('of whose log it was said before that it cannot be read', async () => {
    await actor(alice).create('one')
    const sink = new Sink()
    const failing = { is: true }
    world.seams.call = (pass) => async (did, requestId, call) => {
      if (failing.is && did === alice && call.kind === 'events') throw new Error('unreadable')
      return await pass(did, requestId, call)
    }
    const unavailable = () => sink.told.filter(([, { name }]) => name === 'RepoUnavailable').length
    const stream = streamOf(sink, {})
    await stream.start()
    await until(sink, 'a failure', () => unavailable() === 1)
    for (let ticks = 0; ticks < 3; ticks++) stream.tick()
    expect(timesOf(sink)).toEqual([])
    await until(sink, 'another one', () => unavailable() === 2)
    stream.tick()
    await until(sink, 'a time', () => timesOf(sink).length === 1)
    failing.is = false
    await until(sink, 'one', () => textsOf(sink, alice).includes('one'))
  })

  test('for whoever goes on writing more than is sent, but for what is later', async () => {
    await actor(alice).create('one')
    const [sink, live] = [new Sink(), new Sink()]
    await streamOf(live, {}).start()
    await until(live, 'one', () => textsOf(live, alice).includes('one'))
    const stream = streamOf(sink, {})
    const arrives = hold(alice)
    await stream.start()
    await arrives.asked
    stream.tick()
    await actor(alice).create('two')
    await until(live, 'two', () => textsOf(live, alice).includes('two'))
    const later = hold(alice)
    arrives.let()
    await later.asked
    stream.tick()
    await until(sink, 'a time', () => timesOf(sink).length === 1)
    expect(textsOf(sink, alice)).toEqual(['one'])
    later.let()
  })
})

test('a stream ends where it cannot be known whether somebody of no repo has left', async () => {
  await actor(alice).create('one')
  await world.quiet()
  const sink = new Sink()
  const started = Promise.withResolvers<void>()
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (did !== alice || call.kind !== 'events') return await pass(did, requestId, call)
    await started.promise
    await world.store.setBoundaries(alice, [a])
    await world.sql.run([{ sql: 'alter table enrollment rename to out_of_reach', args: [] }])
    throw new XrpcError(404, 'RepoNotFound', 'no repo')
  }
  await streamOf(sink, {}).start()
  started.resolve()
  await eventually('end', () => (sink.outlet.isOpen ? undefined : true))
  expect(sink.reasons).toEqual(['failed'])
  expect(String(sink.faults[0])).toContain('no such table')
})

describe('of an actor whose log the reader has to its end', () => {
  test('nothing is read, and what happens is sent', async () => {
    await actor(alice).create('one')
    const { seq } = await world.call(alice, 'test', { kind: 'last' })
    const kinds: string[] = []
    world.seams.call = (pass) => async (did, requestId, call) => {
      if (did === alice && /^(last|events|ops)$/.test(call.kind)) kinds.push(call.kind)
      return await pass(did, requestId, call)
    }
    const sink = new Sink()
    await streamOf(sink, { [alice]: seq }).start()
    expect(kinds).toEqual(['last'])
    await actor(alice).create('two')
    await until(sink, 'two', () => textsOf(sink, alice).includes('two'))
    expect(textsOf(sink, alice)).toEqual(['two'])
  })

  test('a cursor of one who sees all must be a place in the log, of others a time up to now', async () => {
    const cursors = { [alice]: Date.now() * 1000 }
    const { seq } = await world.call(alice, 'test', { kind: 'last' })
    expect(cursors[alice] ?? 0).toBeGreaterThan(seq)
    const [all, part] = [new Sink(), new Sink()]
    await streamOf(all, cursors).start()
    await streamOf(part, cursors, [a]).start()
    expect(all.told.at(-1)).toMatchObject(['error', { error: 'FutureCursor' }])
    expect(part.outlet.isOpen).toBe(true)
  })
})

function streamOf(sink: Sink, cursors: Readonly<Record<string, number>>, eyes: Eyes = 'all') {
  const { call, sql, store } = world
  const { outlet } = sink
  const parts = {
    store,
    members: new MemberLog(sql),
    enrollments: members,
    service: 'https://s.test',
  }
  const stream = new ServiceStream({
    call,
    takedowns: new TakedownStore(sql),
    told: new ToldCursors(folder),
    following,
    memberships: new Memberships(parts),
    outlet,
    eyes,
    seesWhole: eyes === 'all',
    seesTakendown: false,
    requestId: 'test',
    cursors: new Map(Object.entries(cursors).map(([did, seq]) => [parseDid(did), seq])),
    log: createLog('error', () => undefined),
  })
  return stream
}

/** Keeps the answers to one kind of call about somebody until they are let go. */
function hold(of: Did, kind: 'events' | 'last' = 'events') {
  const asked = Promise.withResolvers<void>()
  const free = Promise.withResolvers<void>()
  world.seams.call = (pass) => async (did, requestId, call) => {
    const answer = await pass(did, requestId, call)
    if (did !== of || call.kind !== kind) return answer
    asked.resolve()
    await free.promise
    return answer
  }
  return { asked: asked.promise, let: () => free.resolve() }
}

async function enroll(did: Did): Promise<void> {
  await members.enroll({
    did,
    pdsEndpoint: world.pds.url,
    scope: 'atproto',
    oauthSession: '{}',
    requestId: 'test',
  })
}

function actor(did: Did) {
  return world.house.known(did, '')
}

async function until(sink: Sink, what: string, look: () => boolean): Promise<void> {
  await eventually(what, () => (look() ? true : undefined), { withinMs: 10_000, everyMs: 2 })
  expect(sink.outlet.isOpen).toBe(true)
}

function actionsOf({ told }: Sink, did: Did): unknown[] {
  const mine = told.filter(([type, body]) => type === '#enrollment' && body['did'] === did)
  return mine.map(([, { action }]) => action)
}

/** Up to which all was said to be sent. */
function timesOf({ told }: Sink): number[] {
  return told.flatMap(([type, { time }]) =>
    type === '#info' && typeof time === 'string' ? [Date.parse(time)] : [],
  )
}

/** Their places. */
function commitsOf({ told }: Sink, of: Did): number[] {
  return told.flatMap(([type, { did, seq }]) =>
    type === '#commit' && did === of ? [Number(seq)] : [],
  )
}

function textsOf({ told }: Sink, of: Did): unknown[] {
  return told.flatMap(([, { did, ops }]) =>
    did === of && Array.isArray(ops) ? ops.map(({ record }) => record?.text) : [],
  )
}
