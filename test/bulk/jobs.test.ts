import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { verifyRepoCar } from '@atproto/repo'
import { cidToBytes } from '../../src/atproto/cid.ts'
import { PackedMst } from '../../src/atproto/mst-packed.ts'
import { unackedBytesMax } from '../../src/bulk/flow.ts'
import { Jobs } from '../../src/bulk/jobs.ts'
import type { BulkBoot, BulkSign } from '../../src/bulk/messages.ts'
import { createLog } from '../../src/lib/log.ts'
import { ActorSnapshot } from '../../src/store/actor-snapshot.ts'
import { eventually } from '../kit/wait.ts'
import { type Actor, House, newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { bulkBoot } from './boot.ts'
import { fillWithLarge, isPinned, largeBytes } from './large.ts'

const folder = temporaryFolder()
const pace = { msMax: 60_000, windowBytesMin: 1, windowMs: 200, lookEveryMs: 20 }
const pieceBytesMax = 300 * 1024
let house: House
let actor: Actor

beforeAll(async () => {
  house = await House.open('inline', join(folder, 'jobs'))
  actor = await house.actor()
  await fillWithLarge(actor)
  await actor.stored()
})
afterAll(async () => {
  await house.pool.close()
})

describe('a reader that takes nothing', () => {
  test('has a MiB read ahead for it, and no more', async () => {
    const thread = new Thread()
    await thread.holdUp(1)
    await Bun.sleep(50)
    expect(thread.bytesOf(1)).toBeLessThanOrEqual(unackedBytesMax)
    await thread.close()
  })

  test('is cut off by the pace, and its database is closed', async () => {
    const thread = new Thread({ pace })
    await thread.holdUp(1)
    expect(isPinned(actor)).toBeTrue()
    const fault = await eventually('fault', () => thread.faultOf(1), { everyMs: 5 })
    expect(fault).toMatchObject({ status: 408, message: 'its reader was too slow' })
    expect(thread.log).toEqual([expect.stringContaining('"reason":"RequestTimeout"')])
    expect(thread.log[0]).toContain(actor.did)
    expect(isPinned(actor)).toBeFalse()
    expect(thread.ended(1)).toBeFalse()
  })

  test('does not hold up another one', async () => {
    const thread = new Thread()
    await thread.holdUp(1)
    const taken = await thread.take(2)
    expect((await verifyRepoCar(taken, actor.did, actor.signingKey)).creates).toHaveLength(40)
    expect(thread.ended(1)).toBeFalse()
    await thread.close()
  })
})

test('a reader that takes too long is cut off, though it takes all the time', async () => {
  const thread = new Thread({ pace: { ...pace, windowBytesMin: 0, msMax: 100 } })
  thread.ask(1)
  const fault = await eventually(
    'fault',
    () => {
      thread.takeOne(1)
      return thread.faultOf(1)
    },
    { everyMs: 20 },
  )
  expect(fault).toMatchObject({ status: 408, message: 'it took too long' })
  expect(isPinned(actor)).toBeFalse()
})

test('of what is cancelled nothing more is sent, and its database is closed', async () => {
  const thread = new Thread()
  await thread.holdUp(1)
  expect(isPinned(actor)).toBeTrue()
  const said = thread.signs.length
  thread.jobs.receive({ id: 1, cancel: true })
  await eventually('end', () => (isPinned(actor) ? undefined : true), { everyMs: 1 })
  thread.jobs.receive({ id: 1, taken: unackedBytesMax })
  await thread.close()
  expect(thread.signs.slice(said).filter((sign) => 'piece' in sign || 'end' in sign)).toEqual([])
  expect(thread.faultOf(1)).toBeUndefined()
  expect(thread.log).toEqual([])
})

test('of what is cancelled before its first piece nothing is sent', async () => {
  const thread = new Thread()
  thread.ask(1)
  thread.jobs.receive({ id: 1, cancel: true })
  await thread.close()
  expect(thread.pieces(1)).toEqual([])
  expect(thread.faultOf(1)).toBeUndefined()
  expect(isPinned(actor)).toBeFalse()
})

describe('closing', () => {
  test('ends what runs, and says so only when all databases are closed', async () => {
    const pinned: boolean[] = []
    const thread = new Thread({}, (sign) => {
      if ('closed' in sign) pinned.push(isPinned(actor))
    })
    for (const id of [1, 2, 3]) await thread.holdUp(id)
    expect(isPinned(actor)).toBeTrue()
    thread.jobs.receive({ close: true })
    await eventually('closed', () => (pinned[0] === undefined ? undefined : true), { everyMs: 1 })
    expect(pinned).toEqual([false])
    expect([1, 2, 3].filter((id) => thread.ended(id))).toEqual([])
  })

  test('of a thread without jobs is done at once', () => {
    const thread = new Thread()
    thread.jobs.receive({ close: true })
    expect(thread.signs).toEqual([{ closed: true }])
  })
})

describe('memory', () => {
  test('a repo that takes too much by itself is refused', async () => {
    const treeBytesMax = Math.floor(((await treeBytesOf(actor)) - 1) / 5)
    const thread = new Thread({ treeBytesMax })
    thread.ask(1)
    const fault = await eventually('fault', () => thread.faultOf(1), { everyMs: 1 })
    expect(fault).toMatchObject({ status: 413, error: 'RepoTooLarge' })
    expect(thread.pieces(1)).toEqual([])
    expect(isPinned(actor)).toBeFalse()
  })

  test('a large one alone may take more than all of several', async () => {
    const thread = new Thread({ treeBytesMax: Math.ceil((await treeBytesOf(actor)) / 5) })
    expect((await thread.take(1)).length).toBeGreaterThan(largeBytes)
  })

  test('a second one that does not fit waits for its turn, and no small one', async () => {
    const small = await house.actor()
    await small.create()
    await small.stored()
    const treeBytesMax = (await treeBytesOf(actor)) + (await treeBytesOf(small))
    const thread = new Thread({ treeBytesMax })
    await thread.holdUp(1)
    thread.ask(2)
    const fault = await eventually('fault', () => thread.faultOf(2), { everyMs: 1 })
    expect(fault).toMatchObject({
      status: 503,
      error: 'Overloaded',
      headers: { 'retry-after': '1' },
    })
    expect(thread.pieces(2)).toEqual([])
    expect((await thread.take(3, small)).length).toBeGreaterThan(0)
    thread.jobs.receive({ id: 1, cancel: true })
    await eventually('end', () => (isPinned(actor) ? undefined : true), { everyMs: 1 })
    expect((await thread.take(4)).length).toBeGreaterThan(largeBytes)
  })

  async function treeBytesOf({ did, database }: Actor): Promise<number> {
    await using snapshot = await ActorSnapshot.open(database, did)
    const tree = new PackedMst()
    for (const { path, cid } of snapshot.entries()) tree.add(path, cidToBytes(cid))
    return tree.heldBytes
  }
})

test('a repo that is not there is a fault of ours, told without detail and logged', async () => {
  const thread = new Thread()
  const nobody = house.known(newDid(), actor.signingKey)
  thread.ask(1, nobody)
  const fault = await eventually('fault', () => thread.faultOf(1), { everyMs: 1 })
  expect(fault).toEqual({
    status: 500,
    error: 'InternalServerError',
    message: 'Internal Server Error',
    headers: {},
    fields: {},
  })
  expect(thread.log).toEqual([expect.stringContaining(nobody.did)])
})

test('what is altered far behind breaks the stream off, without the text of a record', async () => {
  const other = await house.actor()
  await fillWithLarge(other)
  using database = new Database(await other.stored())
  const altered = `update stratos_repo_block set content = cast(x'a0' as blob)
    where id = (select max(id) from stratos_repo_block)`
  expect(database.run(altered).changes).toBe(1)
  const thread = new Thread()
  thread.ask(1, other)
  const fault = await eventually(
    'fault',
    () => {
      thread.takeOne(1)
      return thread.faultOf(1)
    },
    { everyMs: 1 },
  )
  expect(fault).toMatchObject({ status: 500, message: 'Internal Server Error' })
  expect(thread.bytesOf(1)).toBeGreaterThan(unackedBytesMax)
  expect(thread.ended(1)).toBeFalse()
  expect(thread.log).toEqual([expect.stringContaining('RepoCorrupt')])
  expect(thread.log[0]).not.toContain('xxxx')
  expect(isPinned(other)).toBeFalse()
})

test('a folder that went away meanwhile breaks nothing of what is open', async () => {
  const leaving = await house.actor()
  await fillWithLarge(leaving)
  await leaving.stored()
  const thread = new Thread()
  await thread.holdUp(1, leaving)
  rmSync(leaving.folder, { recursive: true })
  const bytes = await thread.take(1)
  expect((await verifyRepoCar(bytes, leaving.did, leaving.signingKey)).creates).toHaveLength(40)
})

/** What a thread would be told and say. */
class Thread {
  readonly jobs: Jobs
  readonly signs: BulkSign[] = []
  readonly log: string[] = []
  readonly #taken = new Map<number, number>()

  constructor(over: Partial<BulkBoot> = {}, heard: (sign: BulkSign) => void = () => undefined) {
    this.jobs = new Jobs(bulkBoot(house.dataDir, over), {
      log: createLog('info', (line) => void this.log.push(line)),
      send: (sign) => {
        this.signs.push(sign)
        heard(sign)
      },
    })
  }

  ask(id: number, { did, signingKey }: Actor = actor): void {
    this.jobs.receive({ id, ask: { kind: 'export', did, view: 'all', signingKey } })
  }

  pieces(id: number): Uint8Array<ArrayBuffer>[] {
    return this.signs.flatMap((sign) => ('piece' in sign && sign.id === id ? [sign.piece] : []))
  }

  bytesOf(id: number): number {
    return this.pieces(id).reduce((sum, { length }) => sum + length, 0)
  }

  ended(id: number): boolean {
    return this.signs.some((sign) => 'end' in sign && sign.id === id)
  }

  faultOf(id: number) {
    for (const sign of this.signs) if ('fault' in sign && sign.id === id) return sign.fault
    return undefined
  }

  /** Takes one piece, if there is one. */
  takeOne(id: number): void {
    const count = this.#taken.get(id) ?? 0
    const piece = this.pieces(id)[count]
    if (piece === undefined) return
    this.#taken.set(id, count + 1)
    this.jobs.receive({ id, taken: piece.length })
  }

  /** All of an export, which is begun if it was not. */
  async take(id: number, of = actor): Promise<Uint8Array> {
    if (this.pieces(id).length === 0) this.ask(id, of)
    await eventually(
      'end',
      () => {
        this.takeOne(id)
        return this.ended(id) ? true : undefined
      },
      { everyMs: 1 },
    )
    return new Uint8Array(Bun.concatArrayBuffers(this.pieces(id)))
  }

  /** Begins an export, and waits until it waits for a reader who takes nothing. */
  async holdUp(id: number, of = actor): Promise<void> {
    this.ask(id, of)
    const full = () => (this.bytesOf(id) > unackedBytesMax - pieceBytesMax ? true : undefined)
    await eventually('a MiB', full, { everyMs: 1 })
  }

  async close(): Promise<void> {
    this.jobs.receive({ close: true })
    await eventually('closed', () => this.signs.find((sign) => 'closed' in sign), { everyMs: 1 })
  }
}
