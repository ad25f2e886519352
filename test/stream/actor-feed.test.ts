import { beforeEach, describe, expect, test } from 'bun:test'
import { commitFrame } from '../../src/atproto/stream-frame.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import type { EventsAnswer } from '../../src/service/calls.ts'
import { ActorFeed } from '../../src/stream/actor-feed.ts'
import type { Happened } from '../../src/stream/following.ts'
import { withDice } from '../crash/dice.ts'
import { failureOf } from '../kit/wait.ts'
import { Sink } from './sink.ts'

const did = parseDid('did:web:actor.test')
const rev = nextTid({ nowMs: 1_800_000_000_000, clockId: 1 })
const pageMax = 3

/** A log as a shard keeps it, of which a test decides when a page is read and when it arrives. */
class Log {
  readonly seqs: number[] = []
  pruned = 0
  /** Those that the reader does not see. */
  readonly hidden = new Set<number>()
  readonly pages: number[] = []
  onPage: (after: number) => void | Promise<void> = () => undefined

  /** Stored, and told to whoever follows. */
  store(seq: number): Happened {
    const prev = this.seqs.at(-1) ?? 0
    this.seqs.push(seq)
    return { did, prev, seq, isWhole: !this.hidden.has(seq), frame: frameOf(seq) }
  }

  async page(after: number): Promise<EventsAnswer> {
    const rows = this.seqs.filter((seq) => seq > after && seq > this.pruned).slice(0, pageMax)
    const head = this.seqs.at(-1) ?? 0
    const { pruned } = this
    this.pages.push(after)
    await this.onPage(after)
    const seqs = rows.filter((seq) => !this.hidden.has(seq))
    const frames = seqs.map(frameOf)
    const lengths = frames.map(({ length }) => length)
    const bytes = Bun.concatArrayBuffers(frames, Infinity, true)
    return { bytes, seqs, lengths, last: rows.at(-1) ?? after, head, pruned }
  }
}

let log: Log
let sink: Sink

beforeEach(() => {
  log = new Log()
  sink = new Sink()
})

describe('a reader gets each event once, and in order', () => {
  test('that is there, over several pages', async () => {
    for (const seq of [1, 2, 5, 9, 10, 11, 12]) log.store(seq)
    await feedFrom(0).catchUp()
    expect(told()).toEqual([1, 2, 5, 9, 10, 11, 12])
    await feedFrom(9).catchUp()
    expect(told().slice(7)).toEqual([10, 11, 12])
  })

  test('that comes before the first page is read', async () => {
    log.store(1)
    const feed = feedFrom(0)
    tell(feed, log.store(2))
    await feed.catchUp()
    tell(feed, log.store(3))
    expect(told()).toEqual([1, 2, 3])
  })

  test('that comes after a page was read and before it arrives', async () => {
    log.store(1)
    const feed = feedFrom(0)
    once(() => tell(feed, log.store(2)))
    await feed.catchUp()
    tell(feed, log.store(3))
    expect(told()).toEqual([1, 2, 3])
    expect(log.pages).toEqual([0, 1])
  })

  test('that is in a page, and told only once the page was sent', async () => {
    const feed = feedFrom(0)
    const first = log.store(1)
    await feed.catchUp()
    tell(feed, first)
    tell(feed, log.store(2))
    expect(told()).toEqual([1, 2])
    expect(log.pages).toEqual([0])
  })

  test('that comes while it waits for a slow reader in the midst of a page', async () => {
    log.store(1)
    sink.waiting = 10_000_000
    const feed = feedFrom(0)
    const reading = feed.catchUp()
    await eventLoop()
    tell(feed, log.store(2))
    expect(told()).toEqual([])
    sink.take(Infinity)
    await reading
    expect(told()).toEqual([1, 2])
  })

  test('after one whose news went astray, or that has none', async () => {
    const feed = feedFrom(0)
    await feed.catchUp()
    log.store(1)
    expect(feed.happened(log.store(2))).toBe(true)
    await feed.catchUp()
    expect(told()).toEqual([1, 2])
    expect(feed.happened({ ...log.store(3), prev: -1 })).toBe(true)
    await feed.catchUp()
    tell(feed, log.store(4))
    expect(told()).toEqual([1, 2, 3, 4])
  })

  test('of which some came before one that has to be read', async () => {
    const feed = feedFrom(0)
    await feed.catchUp()
    expect(feed.happened(log.store(1))).toBe(false)
    log.store(2)
    expect(feed.happened(log.store(3))).toBe(true)
    const reading = feed.catchUp()
    sink.outlet.send(feed.take())
    await reading
    expect(told()).toEqual([1, 2, 3])
  })

  test('in any order of pages, news and readings', async () => {
    await withDice(async (dice) => {
      for (let round = 0; round < 300; round++) {
        log = new Log()
        sink = new Sink()
        const started = dice.below(5)
        for (let seq = 1; seq <= started; seq++) log.store(seq)
        const cursor = dice.below(started + 1)
        const feed = feedFrom(cursor)
        const late: Happened[] = []
        const deliver = () => {
          for (const one of late.splice(0, dice.below(late.length + 1))) {
            if (feed.happened(one, dice.oneIn(6))) again()
          }
          sink.outlet.send(feed.take())
        }
        const running: Promise<void>[] = []
        const again = () => void running.push(feed.catchUp())
        log.onPage = async () => {
          while (dice.oneIn(2)) late.push(log.store((log.seqs.at(-1) ?? 0) + 1 + dice.below(3)))
          if (dice.oneIn(2)) deliver()
          if (dice.oneIn(3)) await eventLoop()
        }
        again()
        for (let step = 0; step < 20; step++) {
          if (dice.oneIn(2)) late.push(log.store((log.seqs.at(-1) ?? 0) + 1 + dice.below(3)))
          if (dice.oneIn(2)) deliver()
          if (dice.oneIn(4)) await eventLoop()
        }
        log.onPage = () => undefined
        while (late.length > 0) deliver()
        while (running.length > 0) await running.shift()
        expect(told()).toEqual(log.seqs.filter((seq) => seq > cursor))
        expect(feed.isLive).toBe(true)
      }
    })
  })
})

test('what is not for the reader is read past, and leaves no trace in what they are told', async () => {
  for (const seq of [1, 2, 3, 4, 5, 6]) log.store(seq)
  for (const seq of [2, 3, 4, 6]) log.hidden.add(seq)
  const feed = feedFrom(0)
  await feed.catchUp()
  expect(told()).toEqual([1, 5])
  expect(feed.told).toBe(5)
  log.hidden.add(7)
  expect(feed.happened(log.store(7))).toBe(true)
  await feed.catchUp()
  expect(feed.told).toBe(5)
  expect(feed.isLive).toBe(true)
  const blind = new ActorFeed(parts(), 7, 0)
  await blind.catchUp()
  expect(blind.told).toBe(0)
})

describe('of what is no longer kept the reader is told', () => {
  const outdated = ['#info', { name: 'OutdatedCursor' }] as const

  test('once, and then gets the oldest that is kept', async () => {
    for (const seq of [1, 2, 3, 4, 5, 6, 7, 8]) log.store(seq)
    log.pruned = 3
    await feedFrom(2).catchUp()
    expect(sink.told[0]).toEqual(outdated)
    expect(sink.told.filter(([type]) => type === '#info')).toHaveLength(1)
    expect(told()).toEqual([4, 5, 6, 7, 8])
  })

  test('not where they have all that went, or want whatever is kept', async () => {
    for (const seq of [1, 2, 3, 4]) log.store(seq)
    log.pruned = 3
    await feedFrom(3).catchUp()
    await feedFrom(0).catchUp()
    expect(told()).toEqual([4, 4])
    expect(sink.told.some(([type]) => type === '#info')).toBe(false)
  })

  test('also where they know nothing of it, among others that they read', async () => {
    for (const seq of [1, 2, 3, 4]) log.store(seq)
    log.pruned = 3
    await new ActorFeed({ ...parts(), actor: { did: 'did:web:one.test' } }, 0).catchUp()
    expect(sink.told[0]).toEqual(['#info', { name: 'OutdatedCursor', did: 'did:web:one.test' }])
    expect(told()).toEqual([4])
  })

  test('also where it goes while they read', async () => {
    for (const seq of [1, 2, 3, 4, 5, 6, 7, 8]) log.store(seq)
    once(() => void (log.pruned = 6))
    await feedFrom(0).catchUp()
    expect(told()).toEqual([1, 2, 3, 7, 8])
    expect(sink.told[3]).toEqual(outdated)
  })
})

describe('nothing is sent', () => {
  test('after a feed was stopped, not even the rest of a page', async () => {
    for (const seq of [1, 2, 3]) log.store(seq)
    const feed = feedFrom(0)
    once(() => feed.stop())
    await feed.catchUp()
    expect(feed.happened(log.store(4))).toBe(false)
    sink.outlet.send(feed.take())
    expect(told()).toEqual([])
  })

  test('nor read once the reader is gone', async () => {
    log.store(1)
    sink.outlet.left()
    await feedFrom(0).catchUp()
    expect(log.pages).toEqual([])
  })
})

test('a log that lacks what its head has is a fault, not a stream without events', async () => {
  log.store(1)
  const feed = new ActorFeed({ ...parts(), page: lacking }, 0)
  expect(await failureOf(feed.catchUp())).toBeInstanceOf(Error)
  expect(feed.isLive).toBe(false)
})

async function lacking(after: number): Promise<EventsAnswer> {
  return { ...(await log.page(99)), last: after, head: 5 }
}

function parts() {
  return {
    outlet: sink.outlet,
    isFit: ({ isWhole }: Happened) => isWhole,
    page: (after: number) => log.page(after),
  }
}

function feedFrom(cursor: number): ActorFeed {
  return new ActorFeed(parts(), cursor)
}

function tell(feed: ActorFeed, event: Happened): void {
  expect(feed.happened(event)).toBe(false)
  sink.outlet.send(feed.take())
}

/** At the next page, between its reading and its arrival. */
function once(task: () => void): void {
  log.onPage = () => {
    log.onPage = () => undefined
    task()
  }
}

function told(): unknown[] {
  return sink.told.flatMap(([type, { seq }]) => (type === '#commit' ? [seq] : []))
}

function frameOf(seq: number): Uint8Array<ArrayBuffer> {
  return commitFrame({ seq, did, time: '2026-11-23T00:00:00.000Z', rev, ops: [] })
}

function eventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
