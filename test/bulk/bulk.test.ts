import { verifyRepoCar } from '@atproto/repo'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { XrpcError } from '../../src/atproto/errors.ts'
import { parseRkey } from '../../src/atproto/syntax.ts'
import { Bulk } from '../../src/bulk/bulk.ts'
import type { BulkBoot } from '../../src/bulk/messages.ts'
import { createLog } from '../../src/lib/log.ts'
import { eventually, failureOf, within } from '../kit/wait.ts'
import { collection, post } from '../service/posts.ts'
import { type Actor, House, type Kind, kinds } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { bulkBoot } from './boot.ts'
import { fillWithLarge, isPinned, largeBytes } from './large.ts'

const folder = temporaryFolder()
const quiet = createLog('silent', () => undefined)

describe.each(kinds)('%s', (kind) => {
  let house: House
  let large: Actor
  let small: Actor

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
    large = await house.actor()
    await fillWithLarge(large)
    small = await house.actor()
    await small.create('one')
  })
  afterAll(async () => {
    await house.bulk.close()
    await house.pool.close()
  })

  test('an export is the repo as it stood at its start, whatever is written meanwhile', async () => {
    const other = await house.actor()
    const before = await large.verified()
    const reader = (await large.exporting()).getReader()
    const { value: first = new Uint8Array() } = await reader.read()
    // What stands behind the first piece is changed, deleted, and joined by more.
    await large.write({
      action: 'update',
      collection,
      rkey: parseRkey('large-30'),
      record: post({ text: 'changed' }),
    })
    await large.remove('large-31')
    for (let count = 0; count < 10; count++) {
      const extra = 'y'.repeat(200 * 1024)
      const record = post({ extra })
      await within(5_000, 'write of the same actor', large.create(`later-${count}`, { record }))
      await within(5_000, 'write of another actor', other.create())
    }
    expect(await large.read('large-30')).toMatchObject({ value: { text: 'changed' } })
    await large.stored()
    expect(isPinned(large)).toBeTrue()
    const car = new Uint8Array(Bun.concatArrayBuffers([first, await restOf(reader)]))
    const { commit, creates } = await verifyRepoCar(car, large.did, large.signingKey)
    expect<string>(commit.rev).toBe(before.rev)
    expect(new Map(creates.map(({ rkey, cid }) => [rkey, cid.toString()]))).toEqual(before.cids)
    const now = await large.verified()
    expect(now.rkeys).toContain('later-9')
    expect(now.rkeys).not.toContain('large-31')
  })

  test('whoever leaves ends the work', async () => {
    const reader = (await large.exporting()).getReader()
    await reader.read()
    await large.create()
    expect(isPinned(large)).toBeTrue()
    await reader.cancel()
    await eventually('end', () => (isPinned(large) ? undefined : true), { everyMs: 5 })
  })

  describe('when its owner leaves, of an export', () => {
    test('that is being sent nothing more comes', async () => {
      const reader = (await large.exporting()).getReader()
      await reader.read()
      house.bulk.stop(large.did)
      // Pieces that were on their way from the thread have arrived by then.
      await eventually('end', () => (isPinned(large) ? undefined : true), { everyMs: 5 })
      await expectGone(reader.read())
    })

    test('whose reader waits for more nothing more comes', async () => {
      const reader = (await large.exporting()).getReader()
      for (let count = 0; count < 2; count++) await reader.read()
      const reading = reader.read()
      house.bulk.stop(large.did)
      // One that was on its way may come, and none after it.
      await failureOf(reading)
      await expectGone(reader.read())
    })

    test('of which nothing was taken nothing comes', async () => {
      for (const actor of [small, large]) {
        const stream = await actor.exporting()
        house.bulk.stop(actor.did)
        await expectGone(stream.getReader().read())
      }
    })

    test('that was read to its end and not taken nothing more comes', async () => {
      const actor = await house.actor()
      for (let count = 0; count < 3; count++) {
        await actor.create(`large-${count}`, { record: post({ extra: 'x'.repeat(200 * 1024) }) })
      }
      const reader = (await actor.exporting()).getReader()
      await reader.read()
      // The thread has nothing more to do with it once its log can be emptied.
      await actor.stored()
      await eventually('end', () => (isPinned(actor) ? undefined : true), { everyMs: 5 })
      house.bulk.stop(actor.did)
      await expectGone(reader.read())
    })

    test('that has not begun it is not begun', async () => {
      const settled = Promise.withResolvers<{ signingKey: string }>()
      const { did, signingKey } = large
      const exporting = house.bulk.export({ did, view: 'all' }, () => settled.promise)
      house.bulk.stop(did)
      settled.resolve({ signingKey })
      await expectGone(exporting)
      expect(isPinned(large)).toBeFalse()
    })

    test('of somebody else all comes', async () => {
      const reader = (await large.exporting()).getReader()
      const { value: first = new Uint8Array() } = await reader.read()
      house.bulk.stop(small.did)
      const rest = await restOf(reader)
      expect(first.length + rest.length).toBeGreaterThan(largeBytes)
    })
  })

  test('a refusal of the owner is passed on, and nothing is begun', async () => {
    const refusal = new XrpcError(404, 'RepoNotFound', 'nobody is here')
    const { did } = large
    const settled = () => Promise.reject(refusal)
    expect(await failureOf(house.bulk.export({ did, view: 'all' }, settled))).toBe(refusal)
    expect(isPinned(large)).toBeFalse()
  })

  test('closing ends what is sent, with its databases closed, and begins nothing', async () => {
    const bulk = bulkOf(kind, house)
    const readers = []
    for (let count = 0; count < 3; count++) {
      const reader = (await exporting(bulk, large)).getReader()
      await reader.read()
      readers.push(reader)
    }
    await large.create()
    expect(isPinned(large)).toBeTrue()
    await within(5_000, 'end of all jobs', bulk.close())
    expect(isPinned(large)).toBeFalse()
    const stopping = { status: 503, message: 'the service is stopping' }
    for (const reader of readers) expect(await failureOf(reader.read())).toMatchObject(stopping)
    expect(await failureOf(exporting(bulk, large))).toMatchObject(stopping)
    expect(house.died).toEqual([])
  })

  test('without jobs for a while it rests, and then begins anew', async () => {
    const bulk = bulkOf(kind, house, { idleMs: 20 })
    for (let count = 0; count < 3; count++) {
      const car = await new Response(await exporting(bulk, small)).bytes()
      expect((await verifyRepoCar(car, small.did, small.signingKey)).creates).toHaveLength(1)
      await Bun.sleep(count * 30)
    }
    await bulk.close()
    expect(house.died).toEqual([])
  })
})

describe('the thread', () => {
  let house: House
  let actor: Actor

  beforeAll(async () => {
    house = await House.open('worker', join(folder, 'threads'))
    actor = await house.actor()
    await fillWithLarge(actor)
  })
  afterAll(async () => {
    await house.pool.close()
  })

  test('starts with the first job, and ends when there was none for a while', async () => {
    const workers = new Workers()
    const bulk = workers.bulk(house, { idleMs: 100 })
    expect(workers.started).toBe(0)
    const reader = (await exporting(bulk, actor)).getReader()
    await Bun.sleep(200)
    expect(workers.ended).toBe(0)
    for (let more = true; more;) more = !(await reader.read()).done
    await eventually('end', () => (workers.ended === 1 ? true : undefined), { everyMs: 5 })
    await new Response(await exporting(bulk, actor)).bytes()
    expect(workers.started).toBe(2)
    await bulk.close()
    await eventually('end', () => (workers.ended === 2 ? true : undefined), { everyMs: 5 })
    expect(workers.died).toEqual([])
  })

  test('that ends by itself is reported', async () => {
    const workers = new Workers()
    const bulk = workers.bulk(house)
    await new Response(await exporting(bulk, actor)).bytes()
    workers.last?.terminate()
    await eventually('report', () => workers.died[0], { everyMs: 5 })
    expect(workers.died).toEqual(['bulk: the thread ended'])
  })

  test('that throws outside of a job is reported', async () => {
    const workers = new Workers()
    const bulk = workers.bulk(house)
    await new Response(await exporting(bulk, actor)).bytes()
    workers.last?.postMessage('this is no order')
    const report = await eventually('report', () => workers.died[0], { everyMs: 5 })
    expect(report).toMatch(/^bulk: [^]*TypeError/)
  })
})

/** Threads of one bulk, and what became of them. */
class Workers {
  readonly died: string[]
  started = 0
  ended = 0
  last: Worker | undefined

  constructor(died: string[] = []) {
    this.died = died
  }

  bulk({ dataDir }: House, over: Partial<BulkBoot> = {}): Bulk {
    return Bulk.inWorker(bulkBoot(dataDir, over), {
      startWorker: () => {
        this.started += 1
        this.last = new Worker(new URL('../../src/worker.ts', import.meta.url).href)
        this.last.addEventListener('close', () => void (this.ended += 1))
        return this.last
      },
      died: (name, error) => void this.died.push(`${name}: ${String(error)}`),
    })
  }
}

/** A further one over the repos of a house. */
function bulkOf(kind: Kind, house: House, over: Partial<BulkBoot> = {}): Bulk {
  if (kind === 'inline') return Bulk.inline(bulkBoot(house.dataDir, over), quiet)
  return new Workers(house.died).bulk(house, over)
}

async function exporting(bulk: Bulk, actor: Actor): Promise<ReadableStream<Uint8Array>> {
  const { did, signingKey } = actor
  await actor.stored()
  return await bulk.export({ did, view: 'all' }, async () => ({ signingKey }))
}

interface Reading {
  read(): Promise<{ readonly value?: Uint8Array | undefined }>
}

async function restOf(reader: Reading): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for (;;) {
    const { value } = await reader.read()
    if (value === undefined) return new Uint8Array(Bun.concatArrayBuffers(pieces))
    pieces.push(value)
  }
}

async function expectGone(promise: Promise<unknown>): Promise<void> {
  expect(await failureOf(promise)).toMatchObject({ status: 404, error: 'RepoNotFound' })
}
