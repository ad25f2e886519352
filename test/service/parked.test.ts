import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { parseRkey } from '../../src/atproto/syntax.ts'
import { eventually } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, type Person } from './delivering.ts'
import { collection, post, serviceDid } from './posts.ts'

const folder = temporaryFolder()
const key = ServiceKey.generate()
let world: Delivering
let alice: Person

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = await world.person()
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('who has rows that were given up is marked until there are none', async () => {
  await alice.post('one')
  await world.quiet()
  expect(await world.store.isParked(alice.did)).toBeFalse()
  refusing(true)
  await alice.post('bad')
  await world.quiet()
  expect(await world.store.isParked(alice.did)).toBeTrue()
  // What is delivered beside them changes nothing.
  refusing(false)
  await alice.post('two')
  await world.quiet()
  expect(await world.store.isParked(alice.did)).toBeTrue()
  await alice.remove('bad')
  await world.quiet()
  expect(await world.store.isParked(alice.did)).toBeFalse()
})

test('the mark is there before the row, and a kill in between costs nothing', async () => {
  refusing(true)
  const { promise: reached, resolve } = Promise.withResolvers<boolean>()
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (call.kind === 'report' && call.outcome.kind === 'parked') {
      resolve(await world.store.isParked(did))
      throw new Error('killed in between')
    }
    return await pass(did, requestId, call)
  }
  await alice.post('bad')
  expect(await reached).toBeTrue()
  world.seams.call = (pass) => pass
  refusing(false)
  await world.restart()
  await world.outbox.start()
  await world.quiet()
  expect(await world.store.isParked(alice.did)).toBeFalse()
  expect(world.pds.written).toEqual(['put bad'])
})

test('a stub that was refused, of a record that has changed since, is not published as it was', async () => {
  refusing(true)
  await alice.post('bad')
  await world.quiet()
  refusing(false)
  await alice.post('good')
  await world.quiet()
  // The person signs in anew and grants less, edits, and grants all again.
  world.pds.before = refusal
  const cids = new Map<string, unknown>()
  for (const rkey of ['bad', 'good']) {
    const op = { action: 'update', collection, rkey: parseRkey(rkey) } as const
    const record = post({ text: 'edited' })
    await alice.held(async () => {
      cids.set(rkey, (await alice.actor.write({ ...op, record }, { keepsStubs: true })).cid)
    })
  }
  await world.quiet()
  refusing(false)
  await alice.held(async () => {
    await world.house.pool.call(alice.did, 'test', { kind: 'open', outbox: [] })
  })
  await world.quiet()
  for (const [rkey, cid] of cids) {
    expect(world.pds.at(alice.did, rkey)).toMatchObject({ source: { subject: { cid } } })
  }
})

test('a departure tells what is left to be deleted, and ends with the mark', async () => {
  refusing(true)
  await alice.post('bad')
  await world.quiet()
  refusing(false)
  await alice.post('one', 'two')
  await world.quiet()
  expect(await world.departures.outboxState(alice.did, 5)).toBeUndefined()

  world.pds.before = ({ rkey }) => (rkey === 'one' ? refusal() : undefined)
  await world.enrollments(key).unenroll(alice.did, 'test')
  const state = await eventually('refusal', async () => {
    const found = await world.departures.outboxState(alice.did, 5)
    return found?.parkedCount === 1 && found.pending === 0 ? found : undefined
  })
  const reason = 'the PDS refused: 400 InvalidRequest'
  expect<object>(state).toEqual({
    pending: 0,
    parkedCount: 1,
    parked: [{ collection, rkey: 'one', reason }],
  })
  // Long after, when no more is tried.
  await world.leaving.giveUp(Date.now() + 31 * 24 * 3_600_000)
  await world.restart()
  await world.outbox.start()
  await world.quiet()
  expect(await world.departures.outboxState(alice.did, 5)).toBeUndefined()
  expect(await world.store.isParked(alice.did)).toBeFalse()
})

function refusing(isRefusing: boolean): void {
  world.pds.before = ({ rkey }) => (isRefusing && rkey === 'bad' ? refusal() : undefined)
}

function refusal(): Response {
  const body = { error: 'InvalidRequest', message: `not at ${serviceDid}` }
  return Response.json(body, { status: 400 })
}
