import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { overloaded } from '../../src/atproto/errors.ts'
import { parseCid } from '../../src/atproto/cid.ts'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { CallActor } from '../../src/service/calls.ts'
import type { Eyes } from '../../src/service/event-view.ts'
import { TakedownStore } from '../../src/store/takedown.ts'
import { Following } from '../../src/stream/following.ts'
import { RepoStream } from '../../src/stream/repo-stream.ts'
import { ToldCursors } from '../../src/stream/told-cursors.ts'
import { serviceSql } from '../kit/service-store.ts'
import { eventually } from '../kit/wait.ts'
import { a, b, boundary, collection, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House } from '../shard/pools.ts'
import { Sink } from './sink.ts'

const folder = temporaryFolder()
const cid = parseCid('bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a')

let house: House
let actor: Actor
let takedowns: TakedownStore
let following: Following
let call: CallActor
let told: ToldCursors
let nowMs: number

beforeEach(async () => {
  house = await House.open('worker', join(folder, crypto.randomUUID()))
  actor = await house.actor()
  told = new ToldCursors(house.dataDir)
  takedowns = new TakedownStore(await serviceSql(folder))
  following = new Following((pushed) => house.pool.follow(pushed))
  call = (did, requestId, ask) => house.pool.call(did, requestId, ask)
  nowMs = Date.now()
})
afterEach(async () => {
  await house.pool.close()
})

describe('what is taken down is never sent with its content', () => {
  test('where it was taken down while a page was read', async () => {
    await actor.create('bad')
    const [inner, sink] = [call, new Sink()]
    call = async (did, requestId, ask) => {
      const answer = await inner(did, requestId, ask)
      // After the page was read by what was known before, and before it arrives.
      if (ask.kind === 'events' && !(await takedowns.of(did)).records.length) await takeDown('bad')
      return answer
    }
    await streamOf(sink, { cursor: 0 }).start()
    expect(textsOf(sink)).toEqual([])
    expect(sink.told).toHaveLength(2)
  })

  test('where it was written by what was known before, and told after', async () => {
    const sink = new Sink()
    await streamOf(sink).start()
    await actor.create('good')
    await eventually('good', () => (sink.told.length === 1 ? true : undefined), { everyMs: 1 })
    await takeDown('bad')
    await actor.create('bad')
    await eventually('bad', () => (sink.told.length === 2 ? true : undefined), { everyMs: 1 })
    expect(textsOf(sink)).toEqual(['good'])
  })

  test('but to the operator', async () => {
    const sink = new Sink()
    await streamOf(sink, { seesTakendown: true }).start()
    await takeDown('bad')
    await actor.create('bad')
    await eventually('bad', () => (sink.told.length === 1 ? true : undefined), { everyMs: 1 })
    expect(textsOf(sink)).toEqual(['bad'])
  })
})

describe('who sees a part is told where to go on from', () => {
  test('by a time of a minute ago, once a minute, whatever happens that is not for them', async () => {
    const sink = new Sink()
    const stream = streamOf(sink, { eyes: [a] })
    await stream.start()
    nowMs += 59_999
    stream.tick()
    expect(sink.told).toEqual([])
    await hiddenWrite()
    nowMs += 1
    await ticked(stream, sink)
    for (let ticks = 0; ticks < 3; ticks++) stream.tick()
    const seq = (nowMs - 60_000) * 1000
    expect(sink.told).toEqual([['#info', { name: 'Cursor', seq }]])
    const again = streamOf(new Sink(), { eyes: [a], cursor: seq })
    await again.start()
    again.stop()
    stream.stop()
  })

  test('by what they were told, where that is later', async () => {
    const sink = new Sink()
    const stream = streamOf(sink, { eyes: [a], cursor: 0 })
    await actor.create('seen')
    await stream.start()
    const seen = sink.told.at(-1)?.[1]['seq']
    await hiddenWrite()
    nowMs += 60_000
    await ticked(stream, sink)
    expect(sink.told.at(-1)).toEqual(['#info', { name: 'Cursor', seq: Number(seen) }])
    stream.stop()
  })

  test('of whom nobody passes over what is written under a clock that was set back', async () => {
    // To the reader it is an hour later than to whoever writes.
    nowMs += 3_600_000
    const cursor = await toldCursor()
    await actor.create('by-the-same')
    const same = new Sink()
    await streamOf(same, { eyes: [a], cursor }).start()
    nowMs += 3_600_000
    const later = await toldCursor()
    await house.pool.close()
    const known = new ToldCursors(house.dataDir)
    expect(known.most).toBeGreaterThanOrEqual(later)
    house = await House.open('worker', house.dataDir, [{ vouched: known.most }])
    await house.known(actor.did, actor.signingKey).create('by-the-next')
    // By now the clock is put right, and what the reader has is in the future.
    nowMs = Date.now()
    told = known
    const next = new Sink()
    await streamOf(next, { eyes: [a], cursor: later }).start()
    expect([textsOf(same), textsOf(next)]).toEqual([['by-the-same'], ['by-the-next']])
  })

  test('but not before they have what was logged meanwhile', async () => {
    const [inner, sink] = [call, new Sink()]
    let asked = 0
    call = async (did, requestId, ask) => {
      const answer = await inner(did, requestId, ask)
      if (ask.kind !== 'vouch' || !('seq' in answer)) return answer
      asked += 1
      // At first as if the news of one more event were still on its way.
      return asked === 1 ? { ...answer, seq: Number.MAX_SAFE_INTEGER } : answer
    }
    const stream = streamOf(sink, { eyes: [a] })
    await stream.start()
    nowMs += 60_000
    await ticked(stream, sink)
    expect([asked, sink.told.length]).toEqual([2, 1])
    stream.stop()
  })

  test('and who sees all is not', async () => {
    const sink = new Sink()
    const stream = streamOf(sink)
    await stream.start()
    nowMs += 3_600_000
    stream.tick()
    expect(sink.told).toEqual([])
    stream.stop()
  })
})

describe('a cursor past the end is refused', () => {
  test('to who sees all at the first number that is not there yet', async () => {
    await actor.create('one')
    const { seq } = await call(actor.did, 'test', { kind: 'last' })
    const sink = new Sink()
    await streamOf(sink, { cursor: seq + 1 }).start()
    expect(sink.told).toMatchObject([['error', { error: 'FutureCursor' }]])
    const sound = new Sink()
    await streamOf(sound, { cursor: seq }).start()
    expect(sound.told).toEqual([])
  })

  test('to who sees a part once it is past now, be there something or not', async () => {
    const [past, future] = [new Sink(), new Sink()]
    await streamOf(past, { eyes: [a], cursor: nowMs * 1000 }).start()
    await streamOf(future, { eyes: [a], cursor: nowMs * 1000 + 1 }).start()
    expect(past.told).toEqual([])
    expect(future.told).toMatchObject([['error', { error: 'FutureCursor' }]])
  })
})

test('a shard that is busy is asked again', async () => {
  await actor.create('one')
  const [inner, sink] = [call, new Sink()]
  let refusals = 3
  call = async (did, requestId, ask) => {
    if (refusals-- > 0) throw overloaded('busy')
    return await inner(did, requestId, ask)
  }
  await streamOf(sink, { cursor: 0 }).start()
  expect(textsOf(sink)).toEqual(['one'])
})

test('a stream that has ended is told of nothing, and nobody is, once all have', async () => {
  const [one, two] = [new Sink(), new Sink()]
  const streams = [streamOf(one), streamOf(two)]
  for (const stream of streams) await stream.start()
  streams[0]?.stop()
  await actor.create('x')
  await eventually('x', () => (two.told.length === 1 ? true : undefined), { everyMs: 1 })
  expect(one.told).toEqual([])
  streams[1]?.stop()
  let pushes = 0
  house.pool.follow(() => (pushes += 1))
  house.pool.follow(undefined)
  await actor.create('y')
  expect(pushes).toBe(0)
})

function streamOf(
  { outlet }: Sink,
  over: { readonly cursor?: number; readonly eyes?: Eyes; readonly seesTakendown?: boolean } = {},
): RepoStream {
  const { cursor, eyes = 'all', seesTakendown = false } = over
  const reading = { eyes, seesWhole: eyes === 'all', seesTakendown, requestId: 'test' }
  const sources = { call, takedowns, following, told, now: () => nowMs }
  return new RepoStream({ ...sources, ...reading, did: actor.did, outlet, cursor })
}

/** What a reader of a part is told who has been there for a minute. */
async function toldCursor(): Promise<number> {
  const sink = new Sink()
  const stream = streamOf(sink, { eyes: [a] })
  await stream.start()
  nowMs += 60_000
  await ticked(stream, sink)
  stream.stop()
  return Number(sink.told.at(-1)?.[1]['seq'])
}

async function takeDown(rkey: string): Promise<void> {
  const { did } = actor
  const uri = recordUri(did, collection, parseRkey(rkey))
  await takedowns.apply({ kind: 'record', did, uri, cid }, { ref: undefined, nowMs: Date.now() })
}

/** Until it has said something: while it reads the log it does not. */
async function ticked(stream: RepoStream, sink: Sink): Promise<void> {
  const before = sink.told.length
  await eventually(
    'something',
    () => {
      stream.tick()
      return sink.told.length > before ? true : undefined
    },
    { everyMs: 1 },
  )
}

/** One that readers of a do not see, and whose place in the log is read past by now. */
async function hiddenWrite(): Promise<void> {
  await actor.create(undefined, { record: post({ text: 'hidden', boundary: boundary(b) }) })
  await actor.rkeys()
}

function textsOf({ told }: Sink): unknown[] {
  return told.flatMap(([, { ops }]) =>
    Array.isArray(ops)
      ? ops.flatMap(({ record }) => (record === undefined ? [] : [record.text]))
      : [],
  )
}
