import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { noBytes } from '../kit/blob-bytes.ts'
import { Gate } from '../kit/gate.ts'
import { newDid } from '../shard/pools.ts'
import { contentOf, received, some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { BlobWorld } from './blob-world.ts'

const folder = temporaryFolder()
const hourMs = 3_600_000
const dayMs = 24 * hourMs
let world: BlobWorld
beforeEach(async () => {
  world = await BlobWorld.open(folder)
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

async function sweep(): Promise<void> {
  await world.freshSweep().run(() => false)
}

describe('what nothing names', () => {
  test('goes after a day, and not before', async () => {
    const { cid, key } = await world.upload(some(1_000))
    world.nowMs += dayMs - 1
    await sweep()
    expect((await world.bytes()).temporary).toEqual([key])
    expect((await world.use()).usedBytes).toBe(1_000)
    world.nowMs += 2
    await sweep()
    expect(await world.bytes()).toEqual(noBytes)
    expect(await world.use()).toEqual({ usedBytes: 0, temporary: 0 })
    expect(await world.read(cid)).toBeUndefined()
  })

  test('stays a day more when it is uploaded anew', async () => {
    const bytes = some(1_000)
    await world.upload(bytes)
    world.nowMs += dayMs - 1
    const { key } = await world.upload(bytes)
    world.nowMs += dayMs - 1
    await sweep()
    expect((await world.bytes()).temporary).toEqual([key])
  })

  test('stays when a record comes to name it in time, and moves', async () => {
    const blob = await world.upload(some(1_000))
    world.nowMs += dayMs - 1
    await world.name('one', blob)
    world.nowMs += dayMs
    await sweep()
    expect(await world.bytes()).toEqual({ ...noBytes, permanent: [blob.cid] })
    expect(await world.read(blob.cid)).toEqual(blob.bytes)
  })

  test('goes also where its bytes were lost', async () => {
    const { key } = await world.upload(some(1_000))
    await world.storage.remove({ kind: 'temporary', did: world.alice.did, key })
    world.nowMs += dayMs + 1
    await sweep()
    expect((await world.use()).usedBytes).toBe(0)
  })

  test('goes from its permanent place, too, after a move that a kill cut off', async () => {
    const bytes = some(1_000)
    const blob = await world.upload(bytes)
    await world.name('one', blob)
    // The bytes are moved; the process ends before the rows say so, and the record goes first then.
    await world.storage.keep(world.alice.did, blob.key, blob.cid)
    await world.unname('one')
    await sweep()
    expect((await world.bytes()).temporary).toEqual([blob.key])
    world.nowMs += dayMs + 1
    await sweep()
    expect(await world.bytes()).toEqual(noBytes)
    expect((await world.use()).usedBytes).toBe(0)
  })

  test('goes from its permanent place when it came anew while it was moved there', async () => {
    const bytes = some(1_000)
    const blob = await world.upload(bytes)
    await world.name('one', blob)
    const { storage } = world.world
    const keep = storage.keep.bind(storage)
    storage.keep = async (...args) => {
      storage.keep = keep
      await keep(...args)
      await world.unname('one')
      await world.upload(bytes)
    }
    await world.tidy()
    expect((await world.use()).temporary).toBe(1)
    world.nowMs += dayMs + 1
    await sweep()
    expect(await world.bytes()).toEqual(noBytes)
  })
})

describe('what no row knows', () => {
  test.each([
    ['finished', async () => void (await received(world.storage, world.alice.did, some(10)))],
    ['unfinished', async () => await unfinished()],
  ])('goes after an hour, %s or not', async (_, leave) => {
    await leave()
    world.nowMs = Date.now() + hourMs - 5_000
    await sweep()
    expect((await world.bytes()).temporary).toHaveLength(1)
    world.nowMs = Date.now() + hourMs + 5_000
    await sweep()
    expect(await world.bytes()).toEqual(noBytes)
  })

  test('goes where a named blob left it', async () => {
    const blob = await world.upload(some(10))
    await world.name('one', blob)
    await world.tidy()
    expect((await world.bytes()).temporary).toEqual([blob.key])
    world.nowMs = Date.now() + hourMs + 5_000
    await sweep()
    expect(await world.bytes()).toEqual({ ...noBytes, permanent: [blob.cid] })
    expect(await world.read(blob.cid)).toEqual(blob.bytes)
  })
})

describe('bytes of somebody', () => {
  test('who is unknown stay, and the operator is told', async () => {
    const did = newDid()
    const place = await received(world.storage, did, some(10))
    await sweep()
    expect(await contentOf(world.storage, place)).toHaveLength(10)
    expect(world.logged('blobs.of-nobody')).toHaveLength(1)
    world.nowMs += 2 * dayMs
    await sweep()
    expect(await contentOf(world.storage, place)).toHaveLength(10)
  })

  test('who has left are removed', async () => {
    const blob = await world.upload(some(10))
    await world.name('one', blob)
    await world.tidy()
    const { did } = world.alice
    await world.enrollments.unenroll(did, 'test')
    expect(world.hasFolders()).toBeFalse()
    // Of an upload that came to its end behind that.
    await received(world.storage, did, some(10))
    await sweep()
    expect(world.hasFolders()).toBeFalse()
  })

  test('who comes back meanwhile stay', async () => {
    const { did } = world.alice
    await world.enrollments.unenroll(did, 'test')
    await received(world.storage, did, some(10))
    const gate = new Gate()
    const back = world.enrollments.inTurn(did, async () => {
      await gate.pass()
      await world.world.house.actor(did)
      await world.world.enroll(world.alice.actor)
    })
    await gate.reached
    const swept = sweep()
    gate.open()
    await Promise.all([back, swept])
    expect(await world.world.departures.departed(did)).toBeDefined()
    expect((await world.bytes()).temporary).toHaveLength(1)
  })
})

test('one broken person does not keep the others from it', async () => {
  const others = [await world.world.person(), await world.world.person()]
  const people = [world.alice, ...others]
  for (const person of people) {
    const blob = await world.upload(some(10), person)
    await world.name('one', blob, person)
    await world.upload(some(20), person)
  }
  const [broken, ...sound] = people.toSorted((one, other) => (one.did < other.did ? -1 : 1))
  world.world.seams.call = (pass) => async (did, requestId, call) => {
    if (did === broken?.did) throw new Error('disk I/O error')
    return await pass(did, requestId, call)
  }
  world.nowMs += dayMs + 1
  await sweep()
  for (const person of sound) {
    const { temporary, permanent } = await world.bytes(person)
    expect([temporary.length, permanent.length]).toEqual([0, 1])
  }
  expect((await world.bytes(broken)).temporary).toHaveLength(2)
  expect(world.logged('blobs.sweep-failed').length).toBeGreaterThan(0)
})

test('it looks once an hour', async () => {
  const once = world.freshSweep()
  await once.run(() => false)
  const blob = await world.upload(some(10))
  await world.name('one', blob)
  world.nowMs += hourMs - 1
  await once.run(() => false)
  expect((await world.bytes()).permanent).toEqual([])
  world.nowMs += 1
  await once.run(() => false)
  expect((await world.bytes()).permanent).toEqual([blob.cid])
})

test('it ends early when it is told to', async () => {
  const blob = await world.upload(some(10))
  await world.name('one', blob)
  await world.freshSweep().run(() => true)
  expect((await world.bytes()).permanent).toEqual([])
})

async function unfinished(): Promise<void> {
  const incoming = await world.storage.receive(world.alice.did)
  await incoming.write(some(10))
}
