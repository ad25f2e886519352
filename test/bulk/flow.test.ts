import { describe, expect, test } from 'bun:test'
import { Flow, unackedBytesMax } from '../../src/bulk/flow.ts'
import { failureOf } from '../kit/wait.ts'

const pace = { msMax: 60_000, windowBytesMin: 1_000, windowMs: 10_000 }
const tooLong = 'it took too long'
const tooSlow = 'its reader was too slow'
const { signal } = new AbortController()

describe('ahead of its reader', () => {
  test('there is a MiB at most, and always one piece', async () => {
    const flow = new Flow(pace, 0)
    await flow.room(unackedBytesMax + 1, signal)
    const waiting = state(flow.room(1, signal))
    expect(await waiting()).toBe('waits')
    flow.taken(unackedBytesMax)
    expect(await waiting()).toBe('sent')
    const next = state(flow.room(unackedBytesMax - 1, signal))
    expect(await next()).toBe('waits')
    flow.taken(1)
    expect(await next()).toBe('sent')
  })

  test('whoever waits is told at once why there will be no room', async () => {
    const ended = new AbortController()
    const flow = new Flow(pace, 0)
    await flow.room(unackedBytesMax, ended.signal)
    const waiting = failureOf(flow.room(1, ended.signal))
    const reason = new Error('nobody wants it')
    ended.abort(reason)
    flow.wake()
    expect(await waiting).toBe(reason)
    expect(await failureOf(flow.room(0, ended.signal))).toBe(reason)
  })
})

describe('a stream ends', () => {
  test('when all of it takes too long, however fast its reader is', () => {
    const flow = new Flow(pace, 500)
    for (let nowMs = 500; nowMs <= 60_500; nowMs += 500) {
      flow.taken(1_000_000)
      expect(flow.check(nowMs)).toBeUndefined()
    }
    expect(flow.check(60_501)).toBe(tooLong)
  })

  test('when its reader takes nothing for a whole window', async () => {
    const flow = await full()
    expect(flow.check(9_999)).toBeUndefined()
    expect(flow.check(10_000)).toBe(tooSlow)
  })

  test('when its reader takes a little too little', async () => {
    const flow = await full()
    expect(await slowAfterMs(flow, 99)).toBe(10_000)
  })
})

describe('a stream goes on', () => {
  test('when its reader takes just enough', async () => {
    const flow = await full()
    expect(await slowAfterMs(flow, 100)).toBeUndefined()
  })

  test('when it is the sender that is slow', async () => {
    const flow = new Flow(pace, 0)
    for (let nowMs = 1_000; nowMs <= 40_000; nowMs += 1_000) {
      expect(flow.check(nowMs)).toBeUndefined()
    }
    // The reader's time begins where it holds the sender up.
    await flow.room(unackedBytesMax, signal)
    void flow.room(1, signal)
    expect(flow.check(49_999)).toBeUndefined()
    expect(flow.check(50_000)).toBe(tooSlow)
  })
})

/** One whose reader holds things up. */
async function full(): Promise<Flow> {
  const flow = new Flow(pace, 0)
  await flow.room(unackedBytesMax, signal)
  void flow.room(unackedBytesMax, signal)
  return flow
}

/** Of a reader who takes so much a second, less than is waiting for it. */
async function slowAfterMs(flow: Flow, bytes: number): Promise<number | undefined> {
  for (let nowMs = 1_000; nowMs < 60_000; nowMs += 1_000) {
    flow.taken(bytes)
    await new Promise(setImmediate)
    const reason = flow.check(nowMs)
    if (reason !== undefined) return nowMs
  }
  return undefined
}

function state(promise: Promise<void>): () => Promise<'sent' | 'waits'> {
  let now: 'sent' | 'waits' = 'waits'
  void promise.then(() => (now = 'sent'))
  return async () => {
    await new Promise(setImmediate)
    return now
  }
}
