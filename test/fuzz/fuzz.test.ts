import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { heldBytes } from '../kit/held.ts'
import { fixtures } from './fixtures.ts'
import { fuzz } from './run.ts'
import { outcomeOf, targets } from './targets.ts'

const growthBytesMax = 16 * 1024 * 1024

describe.each(targets)('whatever the bytes, a $name', (target) => {
  const known = fixtures.filter(({ of }) => of === target.name)

  test.each(known)('of a fixture is refused: $why', ({ hex }) => {
    expect(outcomeOf(target, Uint8Array.fromHex(hex))).toBe('refused')
  })

  test('is read to what gives the same bytes, or refused by name, at bounded memory', () => {
    const before = heldBytes()
    const outcomes = { read: 0, refused: 0 }
    fc.assert(
      fc.property(target.bytes, (bytes) => void (outcomes[outcomeOf(target, bytes)] += 1)),
      { numRuns: 1000 },
    )
    // Else the inputs are too good or too bad to find anything.
    expect(outcomes.read).toBeGreaterThan(20)
    expect(outcomes.refused).toBeGreaterThan(200)
    expect(heldBytes() - before).toBeLessThan(growthBytesMax)
  })
})

test('the first fault ends a run, with the seed by which it comes again', () => {
  const read = (bytes: Uint8Array) => {
    if (bytes.length > 10) throw new RangeError('a fault')
  }
  const faulty = {
    name: 'faulty',
    bytes: fc.uint8Array({ maxLength: 50 }),
    refusals: [],
    read,
  }
  const run = () => fuzz({ targets: [faulty], seed: 7, milliseconds: 0, tell: () => {} })
  const [first] = run()?.split('\n') ?? []
  expect(first).toMatch(/^faulty, seed 7: [0-9a-f]{22}$/)
  expect(run()).toStartWith(first ?? '')
  expect(run()).toContain('RangeError: a fault')
})

test('a run without a fault tells how much was read', () => {
  const told: string[] = []
  const tell = (text: string) => void told.push(text)
  expect(fuzz({ targets, seed: 1, milliseconds: 0, tell })).toBeUndefined()
  expect(told).toHaveLength(1)
  expect(told[0]).toMatch(/^\d+ read, \d+ refused by name, and nothing else$/)
})
