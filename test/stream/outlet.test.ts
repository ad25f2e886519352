import { describe, expect, test } from 'bun:test'
import { overloaded } from '../../src/atproto/errors.ts'
import { messageFrame } from '../../src/atproto/stream-frame.ts'
import { within } from '../kit/wait.ts'
import { Sink } from './sink.ts'

const mebibyte = 1024 * 1024
const info = (message: string) => messageFrame('#info', { name: 'Heartbeat', message })
const large = info('x'.repeat(100_000))

describe('a reader who takes nothing', () => {
  test('is closed by name once too much waits for them, at bounded memory', () => {
    const sink = new Sink()
    sink.takes = false
    for (let sent = 0; sent < 1000; sent++) sink.outlet.send([large])
    expect(sink.closed).toEqual([1008, 'ConsumerTooSlow'])
    expect(sink.reasons).toEqual(['too-slow'])
    expect(sink.told.at(-1)).toMatchObject(['error', { error: 'ConsumerTooSlow' }])
    expect(sink.told.slice(0, -1).every(([type]) => type === '#info')).toBe(true)
    expect(sink.waitingMost).toBeLessThan(mebibyte + 2 * large.length)
    expect(sink.outlet.isOpen).toBe(false)
  })

  test('is waited for with a page for so long, and then closed', async () => {
    const sink = new Sink('cbor', 20)
    sink.takes = false
    const pages = Array.from({ length: 100 }, () => large)
    await within(5_000, 'end of the page', sink.outlet.sendPage(pages))
    expect(sink.told.at(-1)).toMatchObject(['error', { error: 'ConsumerTooSlow' }])
    expect(sink.waitingMost).toBeLessThan(mebibyte + large.length)
  })

  test('but one frame larger than what may wait gets it', () => {
    const sink = new Sink()
    sink.takes = false
    sink.outlet.send([info('x'.repeat(2 * mebibyte))])
    expect(sink.outlet.isOpen).toBe(true)
    sink.take(Infinity)
    sink.outlet.send([large])
    expect(sink.sent).toHaveLength(2)
  })
})

test('a reader who takes a little now and then gets all of a page', async () => {
  const sink = new Sink('cbor', 200)
  sink.takes = false
  const page = Array.from({ length: 60 }, (_, index) => info(`${index} ${'x'.repeat(50_000)}`))
  const sending = sink.outlet.sendPage(page)
  const taking = setInterval(() => sink.take(100_000), 10)
  await within(20_000, 'end of the page', sending)
  clearInterval(taking)
  expect(sink.outlet.isOpen).toBe(true)
  expect(sink.sent).toEqual(page)
  expect(sink.waitingMost).toBeLessThan(mebibyte)
})

test('what a socket drops ends the stream: nothing follows a gap', () => {
  const sink = new Sink()
  sink.outlet.send([large])
  sink.drops = true
  sink.outlet.send([large, large])
  sink.drops = false
  sink.outlet.send([large])
  expect(sink.sent).toHaveLength(1)
  expect(sink.terminated).toBe(true)
  expect(sink.reasons).toEqual(['too-slow'])
})

describe('a stream ends once', () => {
  test('with the reason of whoever ended it, told by the socket or not', () => {
    const sink = new Sink()
    sink.outlet.end(1001, 'the service is stopping', 'stopping')
    sink.outlet.end(1008, 'not entitled any more', 'not-entitled')
    sink.outlet.left()
    expect(sink.reasons).toEqual(['stopping'])
    expect(sink.closed).toEqual([1001, 'the service is stopping'])
  })

  test('and a page that was waiting for its reader ends with it', async () => {
    const sink = new Sink()
    sink.takes = false
    const sending = sink.outlet.sendPage(Array.from({ length: 100 }, () => large))
    const before = sink.sent.length
    sink.outlet.left()
    await within(1_000, 'end of the page', sending)
    expect(sink.sent).toHaveLength(before)
  })
})

test('a refusal is told by its name, a fault of ours by none of its words', () => {
  const refused = new Sink()
  refused.outlet.broken(overloaded('busy'))
  expect(refused.told).toEqual([['error', { error: 'Overloaded', message: 'busy' }]])
  expect(refused.closed).toEqual([1008, 'Overloaded'])
  const failed = new Sink('json')
  const fault = new Error('secret text')
  failed.outlet.broken(fault)
  expect(failed.closed).toEqual([1011, 'InternalServerError'])
  expect(failed.faults).toEqual([fault])
  expect(failed.texts).toHaveLength(1)
  expect(failed.texts[0]).not.toContain('secret')
  expect(JSON.parse(failed.texts[0] ?? '')).toMatchObject({ $type: 'error' })
})
