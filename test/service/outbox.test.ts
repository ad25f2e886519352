import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { CallActor } from '../../src/service/calls.ts'
import { eventually, within } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, Person, stubs } from './delivering.ts'
import { refuse } from './pds-server.ts'
import { collection } from './posts.ts'

const folder = temporaryFolder()
let world: Delivering
let alice: Person

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = await world.person()
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('nothing is delivered for somebody without an enrollment row', async () => {
  const actor = await world.house.actor()
  const stranger = new Person(world, actor)
  await stranger.post('one')
  await world.quiet()
  expect(world.pds.calls).toEqual([])
  expect(await stranger.pending()).toEqual(['one'])
  // Once the enrollment has come about, what was queued for it goes out.
  await stranger.held(() => world.enroll(actor))
  await world.quiet()
  expect(world.pds.written).toEqual(['put one'])
})

test('for somebody inactive delivery goes on', async () => {
  await world.store.enforce({ dids: [], pds: [], list: null })
  await alice.post('one')
  await world.quiet()
  expect(world.pds.written).toEqual(['put one'])
})

test('a PDS that never answers leaves room for the people of others', async () => {
  const slow = await Promise.all(
    Array.from({ length: 40 }, () => world.person('https://slow.test')),
  )
  const hanging = new Set<string>(slow.map(({ did }) => did))
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>()
  world.pds.before = async ({ repo }) => {
    if (hanging.has(repo)) await answered
    return undefined
  }
  for (const person of slow) await person.post('one')
  await alice.post('one')
  await eventually('stub of alice', () => world.pds.at(alice.did, 'one'), { everyMs: 2 })
  answer()
  await world.quiet()
  expect(world.pds.written).toHaveLength(41)
})

describe('when the session is lost', () => {
  test('the person waits, whatever else they write, and goes on after signing in', async () => {
    world.signedOut.add(alice.did)
    await alice.post('one')
    await logged('outbox.session.lost')
    await alice.post('two')
    world.outbox.resume((await world.person()).did)
    await world.outbox.stop()
    expect(world.pds.calls).toEqual([])
    expect(await alice.pending()).toEqual(['one', 'two'])
    expect(await world.store.outboxDirty()).toEqual([alice.did])

    world.outbox = world.fresh()
    await world.outbox.start()
    await eventually('second loss', () => (losses() === 2 ? true : undefined), { everyMs: 2 })
    world.signedOut.delete(alice.did)
    world.outbox.resume(alice.did)
    await world.quiet()
    expect(world.pds.written).toEqual(['put one', 'put two'])
  })

  test('a sign-in during the very try that finds it lost is not missed', async () => {
    const asked = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    world.beforeSession = async () => {
      asked.resolve()
      await gate.promise
    }
    world.signedOut.add(alice.did)
    await alice.post('one')
    await asked.promise
    world.signedOut.delete(alice.did)
    world.outbox.resume(alice.did)
    gate.resolve()
    await world.quiet()
    expect(world.pds.written).toEqual(['put one'])
  })

  test('others are not held up', async () => {
    world.signedOut.add(alice.did)
    const bob = await world.person()
    await alice.post('one')
    await bob.post('two')
    await eventually('stub of bob', () => world.pds.at(bob.did, 'two'), { everyMs: 2 })
    expect(world.pds.callsOf(alice.did)).toEqual([])
  })
})

describe('a PDS in trouble is tried again', () => {
  test('after a while, and the rows behind wait for their turn', async () => {
    let refusals = 0
    world.pds.before = () => (refusals++ === 0 ? refuse(502, 'UpstreamFailure') : undefined)
    const startMs = performance.now()
    await alice.post('one', 'two')
    await world.quiet()
    expect(world.pds.written).toEqual(['put one', 'put two'])
    expect(performance.now() - startMs).toBeWithin(500, 3_000)
  })

  test('not before it says', async () => {
    world.pds.before = ({ rkey }) =>
      rkey === 'one' ? refuse(429, 'RateLimitExceeded', { 'retry-after': '3600' }) : undefined
    const bob = await world.person()
    const nowMs = Date.now()
    await alice.post('one', 'two')
    await logged('outbox.postponed')
    // A new write does not make it try earlier.
    await alice.post('three')
    await bob.post('four')
    await eventually('stub of bob', () => world.pds.at(bob.did, 'four'), { everyMs: 2 })
    expect(world.pds.callsOf(alice.did)).toEqual(['put one on null'])
    const ask = { kind: 'outbox', limit: 1 } as const
    const { rows } = await world.house.pool.call(alice.did, 'test', ask)
    expect(rows).toMatchObject([{ attempts: 1 }])
    expect((rows[0]?.nextAttemptAtMs ?? 0) - nowMs).toBeWithin(3_600_000, 3_660_000)

    // Nor does a restart.
    await world.outbox.stop()
    world.outbox = world.fresh()
    await world.outbox.start()
    await bob.post('five')
    await eventually('stub of bob', () => world.pds.at(bob.did, 'five'), { everyMs: 2 })
    expect(world.pds.callsOf(alice.did)).toHaveLength(1)
  })
})

test('one user is delivered in order, many users at once', async () => {
  const people = [alice]
  // Half of them elsewhere: the people of one PDS never get all of the room.
  const pdsOf = () => (people.length % 2 === 0 ? world.pds.url : 'https://other.test')
  while (people.length < 20) people.push(await world.person(pdsOf()))
  let now = 0
  let most = 0
  const nowOf = new Map<string, number>()
  const gate = Promise.withResolvers<void>()
  world.pds.before = async ({ repo }) => {
    const ofRepo = (nowOf.get(repo) ?? 0) + 1
    expect(ofRepo).toBe(1)
    nowOf.set(repo, ofRepo)
    most = Math.max(most, ++now)
    await gate.promise
    now -= 1
    nowOf.set(repo, ofRepo - 1)
    return undefined
  }
  const rkeys = ['c', 'a', 'd', 'b']
  await Promise.all(people.map((person) => person.post(...rkeys)))
  await eventually('sixteen at once', () => (now === 16 ? true : undefined), { everyMs: 2 })
  gate.resolve()
  await world.quiet()
  expect(most).toBe(16)
  for (const { did } of people) {
    expect(world.pds.callsOf(did)).toEqual(rkeys.map((rkey) => `put ${rkey} on null`))
  }
})

test('more rows than are fetched at once are delivered in order', async () => {
  const rkeys = Array.from({ length: 45 }, (_, index) => `post-${index}`)
  await alice.post(...rkeys)
  await world.quiet()
  expect(world.pds.written).toEqual(rkeys.map((rkey) => `put ${rkey}`))
})

test('a long outbox does not hold up those who come later', async () => {
  const people = [alice]
  while (people.length < 16) people.push(await world.person())
  const bob = await world.person()
  const gate = Promise.withResolvers<void>()
  world.pds.before = () => gate.promise.then(() => undefined)
  const rkeys = Array.from({ length: 25 }, (_, index) => `post-${index}`)
  await Promise.all(people.map((person) => person.queue(rkeys, { $type: collection })))
  await bob.post('late')
  gate.resolve()
  await world.quiet()
  // Sixteen at once and twenty rows a turn: his comes before their second turns end.
  expect(world.pds.written.indexOf('put late')).toBeWithin(1, 16 * 21)
  expect(world.pds.written).toHaveLength(16 * 25 + 1)
})

describe('the mark of an actor', () => {
  test('is there before the first row is acknowledged, and goes with the last', async () => {
    const release = await world.outbox.hold(alice.did)
    expect(await dirty()).toBeTrue()
    await alice.actor.create('one', { stubs })
    expect(await dirty()).toBeTrue()
    release()
    await world.quiet()
    expect(await alice.pending()).toEqual([])
  })

  test('stays while a write is under way, also when nothing is left to deliver', async () => {
    const release = await world.outbox.hold(alice.did)
    await alice.post('one')
    await eventually('stub', () => world.pds.at(alice.did, 'one'), { everyMs: 2 })
    await emptied(alice)
    expect(await dirty()).toBeTrue()
    await alice.actor.create('two', { stubs })
    release()
    await world.quiet()
    expect(world.pds.written).toEqual(['put one', 'put two'])
  })

  test('stays for a row that comes when the last look found none', async () => {
    const late = { done: false }
    world.seams.call = (pass) => async (did, requestId, call) => {
      const answer = await pass(did, requestId, call)
      if (call.kind === 'outbox' && !late.done && world.pds.at(alice.did, 'one') !== undefined) {
        late.done = true
        await alice.post('late')
      }
      return answer
    }
    await alice.post('one')
    await world.quiet()
    expect(late.done).toBeTrue()
    expect(world.pds.written).toEqual(['put one', 'put late'])
    expect(await alice.pending()).toEqual([])
  })

  test('is made anew by a write that comes while it is taken away', async () => {
    const clearing = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    world.seams.run = async (sql) => {
      if (!sql.startsWith('delete from outbox_dirty')) return
      clearing.resolve()
      await gate.promise
    }
    await alice.post('one')
    await clearing.promise
    const held = world.outbox.hold(alice.did)
    const order: string[] = []
    void held.then(() => order.push('held'))
    await turns()
    order.push('cleared')
    gate.resolve()
    const release = await within(1_000, 'hold', held)
    expect(order).toEqual(['cleared', 'held'])
    expect(await dirty()).toBeTrue()
    await alice.actor.create('two', { stubs })
    release()
    await world.quiet()
    expect(world.pds.written).toEqual(['put one', 'put two'])
  })

  test('that cannot be taken away stays, and deliveries go on', async () => {
    world.seams.run = async (sql) => {
      if (sql.startsWith('delete from outbox_dirty')) throw new Error('the disk is full')
    }
    await alice.post('one')
    await logged('the disk is full')
    world.seams.run = async () => undefined
    expect(await dirty()).toBeTrue()
    await alice.post('two')
    await world.quiet()
    expect(world.pds.written).toEqual(['put one', 'put two'])
  })

  test('of a write that fails goes as well', async () => {
    const release = await world.outbox.hold(alice.did)
    release()
    await world.quiet()
    expect(world.pds.calls).toEqual([])
  })
})

test('stopping waits for what runs and begins nothing new', async () => {
  const bob = await world.person()
  const arrived = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  world.pds.before = async () => {
    arrived.resolve()
    await gate.promise
    return undefined
  }
  await alice.post('one', 'two')
  await arrived.promise
  const stopped = world.outbox.stop()
  const order: string[] = []
  void stopped.then(() => order.push('stopped'))
  await bob.post('three')
  await turns()
  order.push('answered')
  gate.resolve()
  await within(2_000, 'end of the outbox', stopped)
  expect(order).toEqual(['answered', 'stopped'])
  expect(world.pds.written).toEqual(['put one'])
  expect(await alice.pending()).toEqual(['two'])

  world.outbox = world.fresh()
  await world.outbox.start()
  await world.quiet()
  expect(world.pds.written.toSorted()).toEqual(['put one', 'put three', 'put two'])
  expect(world.pds.callsOf(alice.did)).toEqual(['put one on null', 'put two on null'])
})

test('a look finds the rows of an actor whose mark was lost', async () => {
  await world.outbox.stop()
  await alice.post('one')
  await world.store.clearOutbox(alice.did)
  const bob = await world.person()
  world.outbox = world.fresh()
  await world.outbox.start()
  await world.outbox.look(alice.did)
  await world.outbox.look(bob.did)
  await world.quiet()
  expect(world.pds.written).toEqual(['put one'])
})

test('a fault of ours delays one actor and is logged', async () => {
  const bob = await world.person()
  world.seams.call = (pass: CallActor) => async (did, requestId, call) => {
    if (did === alice.did && call.kind === 'outbox') throw new Error('a fault of ours')
    return await pass(did, requestId, call)
  }
  await alice.post('one')
  await bob.post('two')
  await logged('a fault of ours')
  await eventually('stub of bob', () => world.pds.at(bob.did, 'two'), { everyMs: 2 })
  expect(await dirty()).toBeTrue()
})

async function dirty(): Promise<boolean> {
  return (await world.store.outboxDirty()).includes(alice.did)
}

async function emptied(person: Person): Promise<void> {
  const look = async () => ((await person.pending()).length === 0 ? true : undefined)
  await eventually('empty outbox', look, { everyMs: 2 })
}

async function logged(text: string): Promise<void> {
  const look = () => world.log.find((line) => line.includes(text))
  await eventually(`log of ${text}`, look, { withinMs: 5_000, everyMs: 2 })
}

/** Lets everything run that waits for nothing from outside. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
}

function losses(): number {
  return world.log.filter((line) => line.includes('outbox.session.lost')).length
}
