import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { isTid, parseTid } from '../../src/atproto/syntax.ts'
import { nextTid, tidTimeMs } from '../../src/atproto/tid.ts'

const nowMs = Date.UTC(2026, 10, 23)
const clock = fc.record({
  nowMs: fc.double({ min: 0, max: 8e12, noNaN: true }),
  clockId: fc.integer({ min: 0, max: 1023 }),
})

describe('what is out of range is refused', () => {
  test.each([-1, 1024, 1.5, Number.NaN])('clock id %p', (clockId) => {
    expect(() => nextTid({ nowMs, clockId })).toThrow('clockId')
  })

  test.each([-1, 1e13, Number.NaN, Number.POSITIVE_INFINITY])('time %p', (time) => {
    expect(() => nextTid({ nowMs: time, clockId: 0 })).toThrow('53 bits')
  })

  test('a TID after the last one', () => {
    const after = parseTid('bzzzzzzzzzzzz')
    expect(() => nextTid({ nowMs, clockId: 0, after })).toThrow('53 bits')
  })
})

test('a TID is valid and tells its time', () => {
  fc.assert(
    fc.property(clock, (input) => {
      const tid = nextTid(input)
      expect(isTid(tid)).toBeTrue()
      expect(tidTimeMs(tid)).toBe(Math.floor(input.nowMs * 1000) / 1000)
    }),
  )
})

test('TIDs sort like their times', () => {
  fc.assert(
    fc.property(clock, clock, (a, b) => {
      const order = Math.floor(a.nowMs * 1000) - Math.floor(b.nowMs * 1000)
      if (order !== 0) expect(nextTid(a) < nextTid(b)).toBe(order < 0)
    }),
  )
})

test('the next one is greater when the clock stands still, goes back and changes its id', () => {
  fc.assert(
    fc.property(clock, fc.array(clock, { maxLength: 20 }), (first, rest) => {
      let after = nextTid(first)
      for (const input of rest) {
        const tid = nextTid({ ...input, after })
        expect(tid > after).toBeTrue()
        after = tid
      }
    }),
  )
})

test('a clock that stands still costs one microsecond a TID', () => {
  const first = nextTid({ nowMs, clockId: 7 })
  const second = nextTid({ nowMs, clockId: 7, after: first })
  expect(tidTimeMs(second)).toBe(nowMs + 0.001)
})

test('a known TID has its known time', () => {
  const tid = parseTid('3jzfcijpj2z2a')
  expect(new Date(tidTimeMs(tid)).toISOString()).toBe('2023-06-30T15:03:01.887Z')
})
