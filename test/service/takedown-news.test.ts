import { afterEach, beforeEach, expect, test } from 'bun:test'
import { takedownMethods } from '../../src/api/takedown.ts'
import { createLog } from '../../src/lib/log.ts'
import { TakedownNews } from '../../src/service/takedown-news.ts'
import { subjectOf } from '../../src/store/takedown.ts'
import { Gate } from '../kit/gate.ts'
import { updateStatus } from '../kit/takedown.ts'
import { some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { BlobWorld } from './blob-world.ts'

const folder = temporaryFolder()
let world: BlobWorld
beforeEach(async () => {
  world = await BlobWorld.open(folder)
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

/** Lets a step of the storage wait before it is done. */
function hold(step: 'quarantine' | 'restore'): Gate {
  const gate = new Gate()
  const { storage } = world.world
  const pass: (...args: readonly never[]) => Promise<void> = storage[step].bind(storage)
  storage[step] = async (...args: readonly never[]) => {
    storage[step] = pass
    await gate.pass()
    await pass(...args)
  }
  return gate
}

test('a change that is cut off is followed up, though another one was told meanwhile', async () => {
  const { alice, enrollments } = world
  const { takedowns, blobs, call } = world.world
  const log = createLog('silent', () => undefined)
  const news = new TakedownNews({ takedowns, blobs, enrollments, call, log })
  const methods = takedownMethods({ takedowns, enrollments, news, blobs, call, log })
  const { cid } = await world.upload(some(1_000))
  const set = async (applied: boolean) => {
    const subject = { $type: 'com.atproto.admin.defs#repoBlobRef', did: alice.did, cid }
    return await methods[updateStatus]?.handle({
      request: new Request('http://localhost'),
      caller: { kind: 'admin' },
      params: {},
      input: { subject, takedown: { applied } },
      requestId: 'test',
      upgrade: () => false,
    })
  }
  await set(true)
  const [told, cut] = [hold('quarantine'), hold('restore')]
  const first = set(true)
  await told.reached
  const second = set(false)
  told.open()
  await first
  await cut.reached
  // Here the process may end: the bytes are out of quarantine, and the takedown counts.
  const subject = subjectOf({ kind: 'blob', did: alice.did, cid })
  const due = await takedowns.hasNews(subject)
  cut.open()
  await second
  expect(due).toBe(true)
  expect(await takedowns.hasNews(subject)).toBe(false)
  expect((await takedowns.of(alice.did)).blobs).toEqual([])
})
