import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { pointsOf, spend, Spending } from '../../src/service/budget.ts'
import type { Budget } from '../../src/store/actor-outbox.ts'

const hourMs = 3_600_000

test('a key costs what a PDS counts for it', () => {
  expect(pointsOf({ record: '{}', pdsCid: null })).toBe(3)
  expect(pointsOf({ record: '{}', pdsCid: 'cid' })).toBe(2)
  expect(pointsOf({ record: null, pdsCid: 'cid' })).toBe(1)
})

test('no hour sees more than its points, whenever they are spent and however often', () => {
  const wishes = fc.array(
    fc.record({
      waitMs: fc.integer({ min: 0, max: hourMs / 4 }),
      points: fc.constantFrom(1, 2, 3),
    }),
    { minLength: 50, maxLength: 300 },
  )
  fc.assert(
    fc.property(wishes, fc.integer({ min: 10, max: 800 }), (asked, pointsPerHour) => {
      const spending = new Spending(pointsPerHour)
      const spent: { atMs: number; points: number }[] = []
      let budget: Budget | undefined
      let nowMs = 1_000_000
      for (const { waitMs, points } of asked) {
        nowMs += waitMs
        const before = spending.now(budget, nowMs)
        nowMs += spending.waitMs(before, points)
        const present = spending.now(before, nowMs)
        expect(spending.waitMs(present, points)).toBeLessThanOrEqual(1)
        budget = spend(present, points)
        spent.push({ atMs: nowMs, points })
      }
      for (const { atMs: from } of spent) {
        const within = spent.filter(({ atMs }) => atMs >= from && atMs < from + hourMs)
        const sum = within.reduce((total, { points }) => total + points, 0)
        // A wait is rounded to whole milliseconds, which may be one point short of nothing.
        expect(sum).toBeLessThanOrEqual(pointsPerHour + 1)
      }
    }),
  )
})

test('a clock that was set back neither gives points nor takes them', () => {
  const spending = new Spending(100)
  const budget = spend(spending.now(undefined, 10 * hourMs), 40)
  expect(spending.now(budget, 9 * hourMs).points).toBe(budget.points)
  expect(spending.now(budget, 11 * hourMs).points).toBe(50)
})
