import { afterEach, beforeEach, expect, test } from 'bun:test'
import { takedownMethods } from '../../src/api/takedown.ts'
import { createLog } from '../../src/lib/log.ts'
import type { CallActor } from '../../src/service/calls.ts'
import { TakedownNews } from '../../src/service/takedown-news.ts'
import { subjectOf } from '../../src/store/takedown.ts'
import { Gate } from '../kit/gate.ts'
import { updateStatus } from '../kit/takedown.ts'
import { some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { BlobWorld } from './blob-world.ts'

const folder = temporaryFolder()
let world: BlobWorld
let methods: ReturnType<typeof takedownMethods>
/** How their repo was said to stand to those who follow it. */
let told: boolean[]
beforeEach(async () => {
  world = await BlobWorld.open(folder)
  told = []
  const { enrollments } = world
  const { takedowns, blobs, call: callActor } = world.world
  const log = createLog('silent', () => undefined)
  const call: CallActor = async (did, requestId, ask) => {
    if (ask.kind === 'status') told.push(ask.takendown)
    return await callActor(did, requestId, ask)
  }
  const news = new TakedownNews({ takedowns, blobs, enrollments, call, log })
  methods = takedownMethods({ takedowns, enrollments, news, blobs, call, log })
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

/** Takes a subject down, or lets it up again. */
async function set(subject: Readonly<Record<string, unknown>>, applied: boolean): Promise<void> {
  await methods[updateStatus]?.handle({
    request: new Request('http://localhost'),
    caller: { kind: 'admin' },
    params: {},
    input: { subject, takedown: { applied } },
    requestId: 'test',
    upgrade: () => false,
  })
}

test('a change that is cut off is followed up, though another one was told meanwhile', async () => {
  const { alice } = world
  const { takedowns } = world.world
  const { cid } = await world.upload(some(1_000))
  const blob = { $type: 'com.atproto.admin.defs#repoBlobRef', did: alice.did, cid }
  await set(blob, true)
  const [kept, cut] = [hold('quarantine'), hold('restore')]
  const first = set(blob, true)
  await kept.reached
  const second = set(blob, false)
  kept.open()
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

test('what an earlier change did not come to tell is told by one that changes nothing', async () => {
  const { did } = world.alice
  const { takedowns } = world.world
  const repo = { $type: 'com.atproto.admin.defs#repoRef', did }
  await set(repo, true)
  // It is lifted, and the process ends before anybody is told.
  await takedowns.markNews({ kind: 'repo', did })
  await takedowns.lift({ kind: 'repo', did })
  await set(repo, false)
  expect(told).toEqual([true, false])
  await set(repo, false)
  expect(told).toEqual([true, false])
  expect(await takedowns.hasNews(did)).toBe(false)
})
