import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { BlobMissing } from '../../src/store/blob-storage.ts'
import { noBytes } from '../kit/blob-bytes.ts'
import { Gate } from '../kit/gate.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { collect, some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { BlobWorld } from './blob-world.ts'

const folder = temporaryFolder()
const cut = new Error('the disk does not answer')
let world: BlobWorld
beforeEach(async () => {
  world = await BlobWorld.open(folder)
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

/** Lets a step of the storage wait, before or after it is done. */
function hold(step: 'keep' | 'remove' | 'quarantine' | 'restore', when: 'before' | 'after'): Gate {
  const gate = new Gate()
  const { storage } = world.world
  const pass: (...args: readonly never[]) => Promise<void> = storage[step].bind(storage)
  storage[step] = async (...args: readonly never[]) => {
    storage[step] = pass
    if (when === 'before') await gate.pass()
    await pass(...args)
    if (when === 'after') await gate.pass()
  }
  return gate
}

/** Fails at the step, once, with or without having done it. */
function fail(step: 'keep' | 'remove' | 'quarantine' | 'restore', when: 'before' | 'after'): void {
  const { storage } = world.world
  const pass: (...args: readonly never[]) => Promise<void> = storage[step].bind(storage)
  storage[step] = async (...args: readonly never[]) => {
    storage[step] = pass
    if (when === 'after') await pass(...args)
    throw cut
  }
}

const moments = ['before', 'after'] as const

describe('bytes survive', () => {
  test.each(moments)('that come anew %s the old ones are removed, and are named', async (when) => {
    const bytes = some(1_000)
    const first = await world.upload(bytes)
    await world.name('one', first)
    await world.tidy()
    await world.unname('one')
    const gate = hold('remove', when)
    const tidied = world.tidy()
    await gate.reached
    const second = await world.upload(bytes)
    await world.name('two', second)
    expect(await world.read(first.cid)).toEqual(bytes)
    gate.open()
    await tidied
    expect(await world.read(first.cid)).toEqual(bytes)
    expect((await world.bytes()).permanent).toEqual([first.cid])
  })

  test.each(moments)('that come anew %s the row is forgotten', async (when) => {
    const bytes = some(1_000)
    const first = await world.upload(bytes)
    await world.name('one', first)
    await world.tidy()
    await world.unname('one')
    const gate = new Gate()
    world.world.seams.call = (pass) => async (did, requestId, call) => {
      if (call.kind !== 'blob-worked') return await pass(did, requestId, call)
      world.world.seams.call = (next) => next
      if (when === 'before') await gate.pass()
      const answer = await pass(did, requestId, call)
      if (when === 'after') await gate.pass()
      return answer
    }
    const tidied = world.tidy()
    await gate.reached
    await world.name('two', await world.upload(bytes))
    gate.open()
    await tidied
    expect(await world.read(first.cid)).toEqual(bytes)
    expect((await world.use()).temporary).toBe(0)
  })

  test.each(moments)('that come anew %s they are moved', async (when) => {
    const bytes = some(1_000)
    const first = await world.upload(bytes)
    await world.name('one', first)
    const gate = hold('keep', when)
    const tidied = world.tidy()
    await gate.reached
    const second = await world.upload(bytes)
    expect(await world.read(first.cid)).toEqual(bytes)
    gate.open()
    await tidied
    expect(second.key).not.toBe(first.key)
    expect(await world.read(first.cid)).toEqual(bytes)
    expect((await world.use()).temporary).toBe(0)
    expect(world.logged('blob.bytes-missing')).toEqual([])
  })

  test.each(moments)('in the hands of a reader who looked %s they were moved', async (when) => {
    const bytes = some(1_000_000)
    const { did } = world.alice
    const { cid, key } = await world.upload(bytes)
    await world.name('one', { cid, mimeType: 'image/png', size: bytes.length })
    const gate = hold('keep', when)
    const tidied = world.tidy()
    await gate.reached
    const found = await world.storage.read({ kind: 'temporary', did, key })
    gate.open()
    await tidied
    expect(await collect(found)).toEqual(bytes)
  })
})

describe('a failure', () => {
  test.each(moments)('%s a move is made up for', async (when) => {
    const bytes = some(1_000)
    const { cid, ...rest } = await world.upload(bytes)
    await world.name('one', { cid, ...rest })
    fail('keep', when)
    expect(await failureOf(world.tidy())).toBe(cut)
    expect(await world.read(cid)).toEqual(bytes)
    await world.tidy()
    expect(await world.read(cid)).toEqual(bytes)
    expect((await world.bytes()).permanent).toEqual([cid])
  })

  test.each(moments)('%s a removal is made up for', async (when) => {
    const blob = await world.upload(some(1_000))
    await world.name('one', blob)
    await world.tidy()
    await world.unname('one')
    fail('remove', when)
    expect(await failureOf(world.tidy())).toBe(cut)
    expect((await world.use()).usedBytes).toBe(1_000)
    await world.tidy()
    expect((await world.use()).usedBytes).toBe(0)
    expect((await world.bytes()).permanent).toEqual([])
  })

  test.each(moments)('%s the rows are told is made up for', async (when) => {
    const [stays, goes] = [await world.upload(some(1_000)), await world.upload(some(1_000))]
    await world.name('goes', goes)
    await world.tidy()
    await world.unname('goes')
    await world.name('stays', stays)
    world.world.seams.call = (pass) => async (did, requestId, call) => {
      if (call.kind !== 'blob-worked') return await pass(did, requestId, call)
      world.world.seams.call = (next) => next
      if (when === 'after') await pass(did, requestId, call)
      throw cut
    }
    expect(await failureOf(world.tidy())).toBe(cut)
    expect(await world.read(stays.cid)).toEqual(stays.bytes)
    await world.tidy()
    expect(await world.read(stays.cid)).toEqual(stays.bytes)
    expect((await world.bytes()).permanent).toEqual([stays.cid])
    expect(await world.use()).toEqual({ usedBytes: 1_000, temporary: 0 })
  })

  test('of a nudge is logged, and the next nudge does its work', async () => {
    const blob = await world.upload(some(1_000))
    await world.name('one', blob)
    fail('keep', 'before')
    world.world.blobs.nudge(world.alice.did, 'test')
    await eventually('word of it', () => world.logged('blobs.untidied')[0], { everyMs: 2 })
    world.world.blobs.nudge(world.alice.did, 'test')
    await eventually('permanent bytes', async () => (await world.bytes()).permanent[0], {
      everyMs: 2,
    })
  })
})

test('bytes that were moved stay for their readers at the place before, until the blob goes', async () => {
  const bytes = some(1_000)
  for (const rkey of ['one', 'two']) {
    const blob = await world.upload(bytes)
    await world.name(rkey, blob)
    const gate = hold('keep', 'before')
    const tidied = world.tidy()
    await gate.reached
    const anew = await world.upload(bytes)
    gate.open()
    await tidied
    expect((await world.bytes()).temporary).toEqual([blob.key, anew.key].toSorted())
    await world.unname(rkey)
    await world.tidy()
    expect(await world.bytes()).toEqual(noBytes)
  }
})

describe('lost bytes', () => {
  test('at their temporary place are missing from then on, and come back by an upload', async () => {
    const bytes = some(1_000)
    const { did } = world.alice
    const lost = await world.upload(bytes)
    await world.name('one', lost)
    await world.storage.remove({ kind: 'temporary', did, key: lost.key })
    await world.tidy()
    expect(world.logged('blob.bytes-missing')).toHaveLength(1)
    expect(await world.missing()).toEqual([lost.cid])
    expect((await world.use()).usedBytes).toBe(0)
    await world.tidy()
    expect(world.logged('blob.bytes-missing')).toHaveLength(1)
    await world.upload(bytes)
    await world.tidy()
    expect(await world.missing()).toEqual([])
    expect(await world.read(lost.cid)).toEqual(bytes)
  })

  test('of very many do not keep the others from their place', async () => {
    const { did } = world.alice
    const blobs = []
    for (let index = 0; index < 130; index++) {
      const blob = await world.upload(new Uint8Array(Buffer.from(`${index}`)))
      await world.name(`r${index}`, blob)
      blobs.push(blob)
    }
    const sorted = blobs.toSorted((one, other) => (one.cid < other.cid ? -1 : 1))
    for (const { key } of sorted.slice(0, 110)) {
      await world.storage.remove({ kind: 'temporary', did, key })
    }
    await world.tidy()
    expect((await world.bytes()).permanent).toEqual(sorted.slice(110).map(({ cid }) => cid))
  })

  test('that come anew while they are looked for are not given up', async () => {
    const bytes = some(1_000)
    const { did } = world.alice
    const lost = await world.upload(bytes)
    await world.name('one', lost)
    const { storage } = world.world
    const keep = storage.keep.bind(storage)
    storage.keep = async () => {
      storage.keep = keep
      await storage.remove({ kind: 'temporary', did, key: lost.key })
      await world.upload(bytes)
      throw new BlobMissing('not there')
    }
    await world.tidy()
    expect(await world.missing()).toEqual([])
    expect(await world.read(lost.cid)).toEqual(bytes)
  })
})

describe('what is taken down', () => {
  test.each(moments)('%s its bytes are moved ends in quarantine', async (when) => {
    const blob = await world.upload(some(1_000))
    await world.name('one', blob)
    const gate = hold('keep', when)
    const tidied = world.tidy()
    await gate.reached
    await takeDown(blob)
    const placed = place(blob)
    gate.open()
    await Promise.all([tidied, placed])
    const { permanent, quarantined } = await world.bytes()
    expect({ permanent, quarantined }).toEqual({ permanent: [], quarantined: [blob.cid] })
  })

  test.each(moments)(
    'goes from quarantine with its last record, cut off %s or not',
    async (when) => {
      const blob = await world.upload(some(1_000))
      await world.name('one', blob)
      await world.tidy()
      await takeDown(blob)
      await place(blob)
      await world.unname('one')
      fail('remove', when)
      expect(await failureOf(world.tidy())).toBe(cut)
      await world.tidy()
      const { permanent, quarantined } = await world.bytes()
      expect({ permanent, quarantined }).toEqual({ permanent: [], quarantined: [] })
    },
  )

  test.each(['quarantine', 'restore'] as const)(
    '%s that was cut off is done later',
    async (step) => {
      const blob = await world.upload(some(1_000))
      await world.name('one', blob)
      await world.tidy()
      await takeDown(blob)
      if (step === 'restore') {
        await place(blob)
        await world.world.takedowns.lift(subject(blob))
      }
      for (const when of moments) {
        fail(step, when)
        expect(await failureOf(place(blob))).toBe(cut)
      }
      await place(blob)
      const { permanent, quarantined } = await world.bytes()
      const isBack = step === 'restore'
      expect(isBack ? permanent : quarantined).toEqual([blob.cid])
      expect(isBack ? quarantined : permanent).toEqual([])
    },
  )

  test('and comes back finds its place though a move was cut off behind quarantine', async () => {
    const blob = await world.upload(some(1_000))
    await world.name('one', blob)
    await takeDown(blob)
    fail('quarantine', 'after')
    expect(await failureOf(world.tidy())).toBe(cut)
    await world.tidy()
    expect((await world.bytes()).quarantined).toEqual([blob.cid])
    await world.world.takedowns.lift(subject(blob))
    await place(blob)
    expect(await world.read(blob.cid)).toEqual(blob.bytes)
    expect((await world.bytes()).quarantined).toEqual([])
  })

  test('of what nobody names or knows moves nothing', async () => {
    const blob = await world.upload(some(1_000))
    const before = await world.bytes()
    await takeDown(blob)
    await place(blob)
    await world.tidy()
    expect(await world.bytes()).toEqual(before)
  })
})

interface Named {
  readonly cid: Awaited<ReturnType<BlobWorld['upload']>>['cid']
}

function subject({ cid }: Named) {
  return { kind: 'blob', did: world.alice.did, cid } as const
}

async function takeDown(blob: Named): Promise<void> {
  await world.world.takedowns.apply(subject(blob), { ref: undefined, nowMs: 0 })
}

async function place({ cid }: Named): Promise<void> {
  await world.world.blobs.place(world.alice.did, cid)
}
