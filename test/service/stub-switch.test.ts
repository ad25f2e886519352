import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseNsid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { enrollmentCollection } from '../../src/atproto/enrollment.ts'
import { defaultCollections } from '../../src/service/collections.ts'
import { StubSwitch } from '../../src/service/stub-switch.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, type Person } from './delivering.ts'
import { collection } from './posts.ts'

const folder = temporaryFolder()
const never = () => false
let world: Delivering
let alice: Person
let bob: Person

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = await world.person()
  bob = await world.person()
  await switchTo('full').run(never)
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('switching off removes every stub, also one that is not written yet, and nothing else', async () => {
  await alice.post('one', 'two')
  await bob.post('three')
  await world.quiet()
  await alice.queue('self', { $type: enrollmentCollection }, enrollmentCollection)
  await world.quiet()
  await world.outbox.stop()
  await bob.post('four')
  world.outbox = world.fresh()

  await switchTo('off').run(never)
  await world.outbox.start()
  await world.quiet()
  expect(world.pds.keysOf(alice.did)).toEqual([`${enrollmentCollection}/self`])
  expect(world.pds.keysOf(bob.did)).toEqual([])
  // The records are as they were.
  expect(await bob.actor.rkeys()).toEqual(['four', 'three'])
})

test('switching off removes stubs of collections, too, that are no longer configured', async () => {
  const left = parseNsid('com.example.notes.left')
  await alice.post('one')
  // More than one page of them.
  const rkeys = Array.from({ length: 210 }, (_, index) => `left-${index}`)
  await alice.queue(rkeys, { $type: left }, left)
  await alice.queue('self', { $type: enrollmentCollection }, enrollmentCollection)
  await world.quiet()
  await switchTo('off').run(never)
  await world.quiet()
  expect(world.pds.keysOf(alice.did)).toEqual([`${enrollmentCollection}/self`])
})

test('switching on again writes a stub for each record, of the record’s own time', async () => {
  await alice.post('one')
  await world.quiet()
  await switchTo('off').run(never)
  await world.quiet()
  const { cid } = await alice.actor.create('two')
  await alice.actor.create('gone')
  await alice.actor.remove('gone')
  expect(world.pds.keysOf(alice.did)).toEqual([])

  await switchTo('full').run(never)
  await world.quiet()
  expect(world.pds.keysOf(alice.did)).toEqual([`${collection}/one`, `${collection}/two`])
  const createdAt = (await alice.actor.read('two'))?.value['createdAt']
  expect(world.pds.at(alice.did, 'two')).toMatchObject({
    $type: collection,
    source: { subject: { cid } },
    createdAt,
  })
})

test('without a change nothing is looked at', async () => {
  await alice.post('one')
  await world.quiet()
  const asked: string[] = []
  world.seams.call = (pass) => async (did, requestId, call) => {
    asked.push(call.kind)
    return await pass(did, requestId, call)
  }
  await switchTo('full').run(never)
  expect(asked).toEqual([])
})

test('a switch that is cut short goes on at the next start', async () => {
  await alice.post('one')
  await bob.post('two')
  await world.quiet()
  let asked = 0
  const cut = switchTo('off')
  await cut.run(() => asked++ > 0)
  expect(cut.progress()).toEqual({ to: 'off', done: 1, all: 2 })
  await switchTo('off').run(never)
  await world.quiet()
  expect([...world.pds.keysOf(alice.did), ...world.pds.keysOf(bob.did)]).toEqual([])
  expect(world.log.filter((line) => line.includes('stubs.switch.done'))).toHaveLength(1)
})

test('one broken actor does not keep the others, and is tried again at the next start', async () => {
  await alice.post('one')
  await bob.post('two')
  await world.quiet()
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (call.kind === 'restub' && did === alice.did) throw new Error('disk full')
    return await pass(did, requestId, call)
  }
  await switchTo('off').run(never)
  await world.quiet()
  expect(world.pds.keysOf(bob.did)).toEqual([])
  expect(world.pds.keysOf(alice.did)).toEqual([`${collection}/one`])
  world.seams.call = (pass) => pass
  await switchTo('off').run(never)
  await world.quiet()
  expect(world.pds.keysOf(alice.did)).toEqual([])
})

test('a large repo is dealt with page by page', async () => {
  const rkeys = Array.from({ length: 450 }, (_, index) => `post-${index}`)
  await world.outbox.stop()
  for (const rkey of rkeys) await alice.actor.create(rkey)
  await switchTo('off').run(never)
  await switchTo('full').run(never)
  const ask = { kind: 'outbox', limit: 1_000 } as const
  const { rows } = await world.house.pool.call(alice.did, 'test', ask)
  expect(rows.map(({ rkey }) => String(rkey)).toSorted()).toEqual(rkeys.toSorted())
})

function switchTo(mode: 'full' | 'off'): StubSwitch {
  const { store, call, outbox } = world
  const log = createLog('info', (line) => void world.log.push(line))
  return new StubSwitch({
    mode,
    stubCollections: () => defaultCollections,
    store,
    call,
    outbox,
    log,
  })
}
