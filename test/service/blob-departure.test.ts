import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { noBytes } from '../kit/blob-bytes.ts'
import { Gate } from '../kit/gate.ts'
import { failureOf } from '../kit/wait.ts'
import { some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { BlobWorld, type UploadedFacts } from './blob-world.ts'

const folder = temporaryFolder()
const cut = new Error('the disk does not answer')
let world: BlobWorld
let shown: UploadedFacts
/** Alice has a picture that is shown, one that is taken down, one that waits, and one that comes. */
beforeEach(async () => {
  world = await BlobWorld.open(folder)
  shown = await world.upload(some(1_000))
  const hidden = await world.upload(some(1_000))
  await world.name('shown', shown)
  await world.name('hidden', hidden)
  await world.tidy()
  const { did } = world.alice
  const subject = { kind: 'blob', did, cid: hidden.cid } as const
  await world.world.takedowns.apply(subject, { ref: undefined, nowMs: 0 })
  await world.world.blobs.place(did, hidden.cid)
  await world.upload(some(1_000))
  const incoming = await world.storage.receive(did)
  await incoming.write(some(1_000))
  const { temporary, permanent, quarantined } = await world.bytes()
  expect([temporary.length, permanent.length, quarantined.length]).toEqual([4, 1, 1])
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('nothing stays of the bytes of somebody who leaves, nor their name', async () => {
  const other = await world.world.person()
  const theirs = await world.upload(some(10), other)
  await leave()
  expect(await world.bytes()).toEqual(noBytes)
  expect(world.hasFolders()).toBeFalse()
  expect((await world.bytes(other)).temporary).toEqual([theirs.key])
})

describe('a departure that is cut off', () => {
  test.each(['before', 'after'] as const)('%s the bytes go is ended later', async (when) => {
    const { storage } = world.world
    const pass = storage.removeAll.bind(storage)
    storage.removeAll = async (did) => {
      storage.removeAll = pass
      if (when === 'after') await pass(did)
      throw cut
    }
    await leave()
    expect(await world.enrollments.member(world.alice.did)).toBeUndefined()
    expect(world.logged('departure.not-erased')).toHaveLength(1)
    expect(world.hasFolders()).toBe(when === 'before')
    await world.enrollments.eraseDue('test')
    expect(world.hasFolders()).toBeFalse()
    expect(await world.world.departures.departure(world.alice.did)).not.toMatchObject({
      erased: false,
    })
  })

  test('is ended before the person is in again, who finds nothing of it', async () => {
    const { storage } = world.world
    const pass = storage.removeAll.bind(storage)
    storage.removeAll = () => Promise.reject(cut)
    await leave()
    expect(await failureOf(comeBack())).toBe(cut)
    expect(await world.enrollments.member(world.alice.did)).toBeUndefined()
    storage.removeAll = pass
    await comeBack()
    expect(await world.bytes()).toEqual(noBytes)
    expect(await world.use()).toEqual({ usedBytes: 0, temporary: 0 })
    expect(await world.read(shown.cid)).toBeUndefined()
    await world.upload(shown.bytes)
    await world.name('again', shown)
    await world.tidy()
    expect(await world.read(shown.cid)).toEqual(shown.bytes)
  })
})

test('a move that is under way ends first, and leaves nothing', async () => {
  const blob = await world.upload(some(1_000))
  await world.name('late', blob)
  const gate = new Gate()
  const { storage } = world.world
  const keep = storage.keep.bind(storage)
  storage.keep = async (...args) => {
    await gate.pass()
    await keep(...args)
  }
  const tidied = failureOf(world.tidy())
  await gate.reached
  const left = leave()
  gate.open()
  await Promise.all([tidied, left])
  expect(world.hasFolders()).toBeFalse()
})

test('a nudge of somebody who has left meanwhile is nothing to tell of', async () => {
  await leave()
  world.world.blobs.nudge(world.alice.did, 'test')
  await world.world.blobs.stop()
  expect(world.logged('blobs.untidied')).toEqual([])
  expect(world.hasFolders()).toBeFalse()
})

async function leave(): Promise<void> {
  await world.enrollments.unenroll(world.alice.did, 'test')
}

async function comeBack(): Promise<void> {
  await world.enrollments.enroll({
    did: world.alice.did,
    pdsEndpoint: world.world.pds.url,
    scope: 'atproto',
    oauthSession: '{}',
    requestId: 'test',
  })
}
