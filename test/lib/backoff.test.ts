import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { backoffMs } from '../../src/lib/backoff.ts'

test('waits double up to the cap', () => {
  const random = 0.999_999_999
  const waits = [0, 1, 2, 3, 4, 50].map((attempt) =>
    backoffMs({ attempt, firstMs: 1000, mostMs: 10_000, random }),
  )
  expect(waits).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000])
})

test('jitter stays within the upper half of the wait', () => {
  fc.assert(
    fc.property(
      fc.nat(2000),
      fc.integer({ min: 1, max: 5000 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (attempt, firstMs, random) => {
        const mostMs = 60_000
        const full = Math.min(mostMs, firstMs * 2 ** attempt)
        const waitMs = backoffMs({ attempt, firstMs, mostMs, random })
        expect(waitMs).toBeWithin(Math.floor(full / 2), Math.ceil(full) + 1)
      },
    ),
  )
})
