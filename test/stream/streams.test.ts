import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { createLog } from '../../src/lib/log.ts'
import { type Stream, Streams, type Wanted } from '../../src/stream/streams.ts'
import { eventually } from '../kit/wait.ts'
import { Sink } from './sink.ts'

/** The far end, whose outlet is the stream's own. */
class Far extends Sink {
  stream: Stream | undefined

  override close(code: number, reason: string): void {
    this.closed = [code, reason]
    this.stream?.closed()
  }
}

let streams: Streams
let changes = 0
let lines: string[] = []
const overloaded = { status: 503, error: 'Overloaded' }

beforeEach(() => {
  lines = []
  changes = 0
  streams = new Streams({
    changes: () => changes,
    log: createLog('warn', (line) => void lines.push(line)),
    times: { tickMs: 5, upgradeMsMax: 50, cursorsMsMax: 50 },
  })
})
afterEach(() => streams.stop())

describe('a stream has no place', () => {
  test('beyond those of its caller, or of all, and gives it back', async () => {
    const two = { callerMax: 2 }
    const first = streams.admit(wanted(two))
    streams.admit(wanted(two))
    expect(refusalOf(() => streams.admit(wanted(two)))).toMatchObject(overloaded)
    streams.admit(wanted({ ...two, caller: 'other' }))
    first.closed()
    first.closed()
    streams.admit(wanted(two))
    expect(refusalOf(() => streams.admit(wanted(two)))).toMatchObject(overloaded)
    for (let one = 0; one < 19_997; one++) streams.admit(wanted({ caller: `of all ${one}` }))
    expect(refusalOf(() => streams.admit(wanted({ caller: 'last' })))).toMatchObject(overloaded)
  })

  test('while the service is stopping', () => {
    const { far } = opened()
    const late = streams.admit(wanted())
    streams.stop()
    expect(far.closed).toEqual([1001, 'the service is stopping'])
    expect(refusalOf(() => streams.admit(wanted()))).toMatchObject(overloaded)
    expectNever(late)
  })

  test('once its socket has not come for so long', async () => {
    const stream = streams.admit(wanted())
    await eventually('free place', () => (openCount() === 0 ? true : undefined), { everyMs: 5 })
    expectNever(stream)
  })
})

describe('a stream ends', () => {
  test('when its reader lost their right between the door and the socket', async () => {
    // Others were looked at: of this one nobody hears that anything changed.
    await ticks()
    const stream = streams.admit(wanted({ isEntitled: async () => false }))
    await eventually('its end', () => (openCount() === 0 ? true : undefined), { everyMs: 5 })
    expect(streams.counts().ended['not-entitled']).toBe(1)
    expectNever(stream)
  })

  test('when its reader loses their right, though nobody had to look before', async () => {
    let looks = 0
    let isEntitled = true
    const { far } = opened({
      isEntitled: async () => {
        looks += 1
        return isEntitled
      },
    })
    await eventually('first look', () => (looks > 0 ? true : undefined), { everyMs: 1 })
    const before = looks
    isEntitled = false
    await ticks()
    expect(looks).toBe(before)
    changes += 1
    await eventually('its end', () => far.closed, { everyMs: 1 })
    expect(far.closed).toEqual([1008, 'not entitled any more'])
    expect(far.told).toEqual([])
  })

  test('when its credential does', async () => {
    const { far } = opened({ expiresAtMs: Date.now() + 40 })
    expect(far.closed).toBeUndefined()
    await eventually('its end', () => far.closed, { everyMs: 1 })
    expect(far.closed).toEqual([1008, 'not entitled any more'])
  })

  test('where it cannot be said that its reader is entitled, and that of nobody else does', async () => {
    const { far: broken } = opened({ isEntitled: () => Promise.reject(new Error('no table')) })
    let looks = 0
    const { far: sound } = opened({
      isEntitled: async () => {
        looks += 1
        return true
      },
    })
    await eventually('its end', () => broken.closed, { everyMs: 1 })
    await eventually('another look', () => (looks > 0 ? true : undefined), { everyMs: 1 })
    changes += 1
    await eventually('one more', () => (looks > 1 ? true : undefined), { everyMs: 1 })
    expect(broken.closed?.[0]).toBe(1011)
    expect(sound.closed).toBeUndefined()
    expect(lines.filter((line) => line.includes('stream.look.failed'))).toHaveLength(1)
  })

  test('when its cursors do not come', async () => {
    const { far } = opened({ kind: 'commits' })
    await eventually('its end', () => far.closed, { everyMs: 1 })
    expect(far.told).toMatchObject([['error', { error: 'InvalidRequest' }]])
  })

  test('with what sends into it', async () => {
    let state = 'new'
    const source = {
      start: async () => void (state = 'started'),
      stop: () => void (state = 'stopped'),
      tick: () => undefined,
    }
    const { stream } = opened({ open: () => source })
    expect(state).toBe('started')
    stream.closed()
    expect(state).toBe('stopped')
  })

  test('when what sends into it fails, and says so in the log alone', async () => {
    const start = () => Promise.reject(new Error('secret text'))
    const source = { start, stop: () => undefined, tick: () => undefined }
    const { far } = opened({ open: () => source })
    await eventually('its end', () => far.closed, { everyMs: 1 })
    expect(far.told).toMatchObject([['error', { error: 'InternalServerError' }]])
    expect(JSON.stringify(far.told)).not.toContain('secret')
    expect(lines.join()).toContain('stream.failed')
  })
})

test('a socket is pinged now and then', async () => {
  const { far } = opened()
  await eventually('ping', () => (far.pings > 0 ? true : undefined), { everyMs: 5 })
})

test('ends are counted by their reason', async () => {
  const { stream } = opened()
  stream.closed()
  opened({ expiresAtMs: 0 })
  await eventually('end', () => (openCount() === 0 ? true : undefined), { everyMs: 1 })
  opened()
  streams.stop()
  expect(streams.counts()).toMatchObject({
    open: { repo: 0, commits: 0, enrollments: 0 },
    ended: { left: 1, 'not-entitled': 1, stopping: 1, failed: 0, refused: 0, 'too-slow': 0 },
  })
})

function opened(over: Partial<Wanted> = {}): { readonly stream: Stream; readonly far: Far } {
  const stream = streams.admit(wanted(over))
  const far = new Far()
  far.stream = stream
  stream.opened(far)
  return { stream, far }
}

/** A socket that comes too late is closed, and nothing is opened for it. */
function expectNever(stream: Stream): void {
  const far = new Far()
  far.stream = stream
  stream.opened(far)
  expect(far.closed?.[0]).toBe(1008)
  expect(far.told).toEqual([])
}

function wanted(over: Partial<Wanted> = {}): Wanted {
  return {
    caller: 'somebody',
    callerMax: 100,
    format: 'cbor',
    kind: 'repo',
    isEntitled: async () => true,
    open: () => ({ start: async () => undefined, stop: () => undefined, tick: () => undefined }),
    ...over,
  }
}

function openCount(): number {
  const { open } = streams.counts()
  return open.repo + open.commits + open.enrollments
}

/** Some more looks than one. */
async function ticks(): Promise<void> {
  let left = 3
  const { stream } = opened({
    open: () => ({
      start: async () => undefined,
      stop: () => undefined,
      tick: () => void (left -= 1),
    }),
  })
  await eventually('ticks', () => (left <= 0 ? true : undefined), { everyMs: 1 })
  stream.closed()
}

function refusalOf(task: () => unknown): unknown {
  try {
    task()
    return undefined
  } catch (error) {
    return error
  }
}
