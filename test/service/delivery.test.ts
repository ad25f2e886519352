import { Database } from 'bun:sqlite'
import type { ActorCall } from '../../src/service/calls.ts'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseNsid } from '../../src/atproto/syntax.ts'
import { eventually } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, type Person } from './delivering.ts'
import { type PdsCall, refuse } from './pds-server.ts'
import { collection, serviceDid } from './posts.ts'

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

describe('a row that the PDS refuses for good is parked, and the next ones go on', () => {
  test.each([
    [400, 'InvalidRequest'],
    [403, 'ScopeMissingError'],
    [413, 'PayloadTooLarge'],
  ])('%i', async (status, error) => {
    world.pds.before = ({ rkey }) => (rkey === 'bad' ? refuse(status, error) : undefined)
    await alice.post('one', 'bad', 'two')
    await world.quiet()
    expect(world.pds.written).toEqual(['put one', 'put two'])
    expect(await parked(alice)).toEqual([
      { rkey: 'bad', parked: `the PDS refused: ${status} ${error}` },
    ])
    expect(await alice.pending()).toEqual([])
  })
})

describe('of the write budget at the PDS', () => {
  test('no more is used than is ours, also after a restart', async () => {
    await world.outbox.stop()
    // 15 points at once are five creations.
    world.outbox = world.fresh({ pointsPerHour: 30 })
    await alice.post('a', 'b', 'c', 'd', 'e', 'f', 'g')
    await eventually('five stubs', () => (world.pds.written.length === 5 ? true : undefined))
    await world.outbox.stop()
    world.outbox = world.fresh({ pointsPerHour: 30 })
    await world.outbox.start()
    await eventually('a look', () => (delayed() ? true : undefined))
    expect(world.pds.written).toHaveLength(5)
    expect(await alice.pending()).toEqual(['f', 'g'])
    await world.outbox.stop()
    world.outbox = world.fresh()
    await world.outbox.start()
    await world.quiet()
    expect(world.pds.written).toHaveLength(7)
  })

  test('what the PDS refused counts, too', async () => {
    await world.outbox.stop()
    world.outbox = world.fresh({ pointsPerHour: 12 })
    world.pds.before = ({ rkey }) => (rkey < 'c' ? refuse(400, 'InvalidRequest') : undefined)
    await alice.post('a', 'b', 'c')
    await eventually('two refusals', () => (world.pds.calls.length === 2 ? true : undefined))
    await eventually('a look', () => (delayed() ? true : undefined))
    expect(world.pds.calls).toHaveLength(2)
  })

  test('half is left to the person when the PDS says how much there is', async () => {
    const resetSeconds = Math.floor(Date.now() / 1000) + 600
    const answer = (remaining: number) => () => {
      const headers = {
        'ratelimit-limit': '5000',
        'ratelimit-remaining': `${remaining}`,
        'ratelimit-reset': `${resetSeconds}`,
      }
      return Response.json({ uri: 'at://x', cid: 'bafy' }, { headers })
    }
    world.pds.before = answer(2500)
    await alice.post('a', 'b')
    await world.quiet()
    expect(world.pds.calls).toHaveLength(2)
    world.pds.before = answer(2499)
    await alice.post('c', 'd')
    await eventually('a look', () => (delayed() ? true : undefined))
    expect(world.pds.calls).toHaveLength(3)
    expect(await alice.pending()).toEqual(['d'])
  })

  test('half is left to the person also between writes that come one by one', async () => {
    const headers = {
      'ratelimit-limit': '5000',
      'ratelimit-remaining': '2499',
      'ratelimit-reset': `${Math.floor(Date.now() / 1000) + 600}`,
    }
    world.pds.before = () => Response.json({ uri: 'at://x', cid: 'bafy' }, { headers })
    await alice.post('a')
    await eventually('a look', () => (delayed() ? true : undefined))
    await alice.post('b')
    // Whose turn comes after hers.
    const bob = await world.person()
    await bob.post('c')
    await eventually('of bob', () => (world.pds.callsOf(bob.did).length > 0 ? true : undefined))
    expect(world.pds.callsOf(alice.did)).toEqual(['put a on null'])
  })

  /** Whether the outbox has work and nothing of it is under way. */
  function delayed(): boolean {
    return world.outbox.counts().actors.delayed === 1
  }
})

describe('what is not ours on the PDS is left alone', () => {
  const theirs = { $type: collection, text: 'my own', createdAt: '2026-11-01T10:00:00.000Z' }
  const source = { vary: 'authenticated', service: `${serviceDid}#atproto_pns` }
  const foreign: Record<string, (did: string) => object> = {
    'a record of another program': () => theirs,
    'a stub of another service': (did) => ({
      ...theirs,
      source: {
        ...source,
        service: 'did:web:other.test#atproto_pns',
        subject: subject(did, 'one'),
      },
    }),
    'a stub of another record': (did) => ({
      ...theirs,
      source: { ...source, subject: subject(did, 'other') },
    }),
    'a stub of somebody else': () => ({
      ...theirs,
      source: { ...source, subject: subject('did:plc:somebody', 'one') },
    }),
    'a record of another type': (did) => ({
      ...theirs,
      $type: 'com.example.other',
      source: { ...source, subject: subject(did, 'one') },
    }),
    'a source that is no object': () => ({ ...theirs, source: 'yours' }),
  }
  test.each(Object.entries(foreign))('%s', async (_, make) => {
    const record = make(alice.did)
    world.pds.place(alice.did, 'one', record)
    await alice.post('one', 'two')
    await world.quiet()
    expect(world.pds.at(alice.did, 'one')).toEqual(record)
    expect(world.pds.written).toEqual(['put two'])
    expect(await parked(alice)).toEqual([
      { rkey: 'one', parked: 'another record stands at this key on the PDS' },
    ])
    // Deleting the private record does not delete it either.
    await alice.remove('one')
    await world.quiet()
    expect(world.pds.at(alice.did, 'one')).toEqual(record)
    expect(await parked(alice)).toEqual([])
  })

  test('a record that took the place of our stub', async () => {
    await alice.post('one')
    await world.quiet()
    world.pds.place(alice.did, 'one', theirs)
    await alice.remove('one')
    await world.quiet()
    expect(world.pds.at(alice.did, 'one')).toEqual(theirs)
    expect(await alice.pending()).toEqual([])
  })
})

test('a stub is put where nothing stands, and deleted where ours stands', async () => {
  await alice.post('one')
  await world.quiet()
  const { uri, cid } = (await alice.actor.read('one')) ?? {}
  const stub = world.pds.at(alice.did, 'one')
  expect(stub).toMatchObject({ $type: collection, source: { subject: { uri, cid } } })
  await alice.remove('one')
  await world.quiet()
  expect(world.pds.at(alice.did, 'one')).toBeUndefined()
  expect(world.pds.callsOf(alice.did)).toEqual([
    'put one on null',
    expect.stringMatching(/^delete one on "bafy/),
  ])
})

test('a record that goes before its stub was written leaves no stub', async () => {
  await alice.held(async () => {
    await alice.post('brief')
    await alice.remove('brief')
  })
  await world.quiet()
  expect(world.pds.at(alice.did, 'brief')).toBeUndefined()
  expect(await alice.pending()).toEqual([])
})

test('a put that was not acknowledged is recognized and not repeated', async () => {
  let lost = 0
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (isSettled(call) && lost++ === 0) throw new Error('killed before it could be noted')
    return await pass(did, requestId, call)
  }
  await alice.post('one')
  await eventually('lost report', () => (lost === 1 ? true : undefined), { everyMs: 2 })
  await nextProcess()
  await world.quiet()
  expect(world.pds.written).toEqual(['put one'])
  expect(world.pds.callsOf(alice.did)).toEqual(['put one on null', 'put one on null', 'get one'])
  // And what stands there is known: the deletion swaps on it.
  await alice.remove('one')
  await world.quiet()
  expect(world.pds.written).toEqual(['put one', 'delete one'])
})

test('a put that was not acknowledged is replaced by the newer state', async () => {
  let lost = 0
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (isSettled(call) && lost++ === 0) throw new Error('killed before it could be noted')
    return await pass(did, requestId, call)
  }
  await alice.post('one')
  await eventually('lost report', () => (lost === 1 ? true : undefined), { everyMs: 2 })
  await world.outbox.stop()
  await alice.remove('one')
  await nextProcess()
  await world.quiet()
  expect(world.pds.written).toEqual(['put one', 'delete one'])
  expect(world.pds.at(alice.did, 'one')).toBeUndefined()
})

test('a deletion that was not acknowledged is found done', async () => {
  await alice.post('one')
  await world.quiet()
  let lost = 0
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (isSettled(call) && lost++ === 0) throw new Error('killed before it could be noted')
    return await pass(did, requestId, call)
  }
  await alice.remove('one')
  await eventually('lost report', () => (lost === 1 ? true : undefined), { everyMs: 2 })
  await nextProcess()
  await world.quiet()
  expect(world.pds.written).toEqual(['put one', 'delete one'])
  expect(await alice.pending()).toEqual([])
})

test('a stub that the person deleted is put again by the next state', async () => {
  const enrollment = parseNsid('zone.stratos.actor.enrollment')
  const record = { $type: enrollment, service: 'https://stratos.test' }
  await alice.queue('self', record, enrollment)
  await world.quiet()
  world.pds.remove(alice.did, 'self', enrollment)
  const next = { ...record, boundaries: [] }
  await alice.queue('self', next, enrollment)
  await world.quiet()
  expect(world.pds.at(alice.did, 'self', enrollment)).toEqual(next)
  expect(world.pds.callsOf(alice.did)).toEqual([
    'put self on null',
    expect.stringMatching(/^put self on "bafy/),
    'get self',
    'put self on null',
  ])
})

test('a stub that the person deleted need not be deleted again', async () => {
  await alice.post('one')
  await world.quiet()
  world.pds.remove(alice.did, 'one')
  await alice.remove('one')
  await world.quiet()
  expect(world.pds.written).toEqual(['put one'])
  expect(await alice.pending()).toEqual([])
})

test('an enrollment record of an earlier time is replaced', async () => {
  const enrollment = parseNsid('zone.stratos.actor.enrollment')
  world.pds.place(alice.did, 'self', { $type: enrollment, service: 'https://old.test' }, enrollment)
  const record = { $type: enrollment, service: 'https://stratos.test' }
  await alice.queue('self', record, enrollment)
  await world.quiet()
  expect(world.pds.at(alice.did, 'self', enrollment)).toEqual(record)
})

test('a state that is overtaken on its way is followed by the newer one', async () => {
  const gate = Promise.withResolvers<void>()
  const arrived = Promise.withResolvers<void>()
  world.pds.before = async ({ method }: PdsCall) => {
    if (method !== 'put') return undefined
    arrived.resolve()
    await gate.promise
    return undefined
  }
  await alice.post('one')
  await arrived.promise
  await alice.remove('one')
  gate.resolve()
  await world.quiet()
  expect(world.pds.written).toEqual(['put one', 'delete one'])
  expect(world.pds.at(alice.did, 'one')).toBeUndefined()
})

function subject(did: string, rkey: string) {
  const cid = 'bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq'
  return { uri: `at://${did}/${collection}/${rkey}`, cid }
}

/** The outbox of a process that starts where the one before was killed. */
async function nextProcess(): Promise<void> {
  await world.outbox.stop()
  world.outbox = world.fresh()
  await world.outbox.start()
}

async function parked({ actor }: Person): Promise<unknown[]> {
  using database = new Database(await actor.stored(), { readonly: true })
  return database
    .query('select rkey, parked from stratos_outbox where parked is not null order by rkey')
    .all()
}

function isSettled(call: ActorCall): boolean {
  return call.kind === 'report' && call.outcome.kind === 'settled'
}
