import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { WriteRate, type WriteAction, type WriteRateRules } from '../../src/service/write-rate.ts'

const alice = parseDid('did:web:alice.test')
const bob = parseDid('did:web:bob.test')
const people = ['alice', 'bob', 'carol', 'dave', 'erin'].map((name) =>
  parseDid(`did:web:${name}.test`),
)
const actions = ['create', 'update', 'delete'] as const
const cost = { create: 3, update: 2, delete: 1 } as const

class Clock {
  ms = 5_000
  luck = 0

  rate(rules: Partial<WriteRateRules>, writersMax?: number): WriteRate {
    const usual = { limit: 3, unit: 'writes', windowMs: 60_000, cooldownMs: 10_000 } as const
    const max = writersMax === undefined ? {} : { writersMax }
    return new WriteRate(
      { ...usual, ...rules },
      { now: () => this.ms, random: () => this.luck, ...max },
    )
  }
}

function creates(count: number): WriteAction[] {
  return Array.from({ length: count }, () => 'create')
}

const rules = fc.record({
  limit: fc.integer({ min: 1, max: 20 }),
  unit: fc.constantFrom('writes' as const, 'points' as const),
  windowMs: fc.integer({ min: 1_000, max: 100_000 }),
  cooldownMs: fc.constantFrom(0, 1, 500, 10_000, 200_000),
})
const attempt = fc.record({
  // In parts of the window: at once, soon, and where the first writes are about to be forgotten.
  wait: fc.oneof(
    fc.constant(0),
    ...[
      { min: 0, max: 0.1 },
      { min: 0.3, max: 0.7 },
      { min: 0.97, max: 1 },
      { min: 0, max: 2 },
    ].map((range) => fc.double({ ...range, noNaN: true })),
  ),
  did: fc.constantFrom(...people.slice(0, 3)),
  actions: fc.array(fc.constantFrom(...actions), { maxLength: 8 }),
  luck: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
})

describe('no window sees more than the limit', () => {
  test.each([
    ['of people with accounts of their own', undefined],
    ['of people who share one, or leave it', 2],
  ])('%s', (_, writersMax) => {
    fc.assert(
      fc.property(
        rules,
        fc.array(attempt, { minLength: 20, maxLength: 150 }),
        (rules, attempts) => {
          const clock = new Clock()
          const rate = clock.rate(rules, writersMax)
          const taken: { did: Did; atMs: number; cost: number }[] = []
          for (const { wait, did, actions, luck } of attempts) {
            clock.ms += wait * rules.windowMs
            clock.luck = luck
            if (rate.take(did, actions).kind !== 'taken') continue
            taken.push({ did, atMs: clock.ms, cost: costOf(actions, rules.unit) })
          }
          for (const { did, atMs: from } of taken) {
            const within = taken.filter((one) => {
              return one.did === did && one.atMs >= from && one.atMs < from + rules.windowMs
            })
            expect(within.reduce((sum, one) => sum + one.cost, 0)).toBeLessThanOrEqual(rules.limit)
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})

test('a refused attempt passes after the wait that it was told, and not before', () => {
  fc.assert(
    fc.property(rules, fc.array(attempt, { minLength: 20, maxLength: 80 }), (rules, attempts) => {
      const clock = new Clock()
      for (const early of [0, 2]) {
        const rate = clock.rate(rules)
        for (const { wait, actions, luck } of attempts) {
          clock.ms += wait * rules.windowMs
          clock.luck = luck
          const first = rate.take(alice, actions)
          if (first.kind !== 'refused') continue
          clock.ms += Math.max(0, first.waitMs - early)
          const second = rate.take(alice, actions).kind
          // Two milliseconds short of a wait of one are no wait.
          if (early === 0) expect(second).toBe('taken')
          else if (first.waitMs > early) expect(second).toBe('refused')
        }
      }
    }),
    { numRuns: 100 },
  )
})

test('what is told to remain can be taken at once, and no more', () => {
  fc.assert(
    fc.property(rules, fc.array(attempt, { minLength: 5, maxLength: 60 }), (given, attempts) => {
      const clock = new Clock()
      const rules = { ...given, unit: 'writes' } as const
      const rate = clock.rate(rules)
      for (const { wait, actions, luck } of attempts) {
        clock.ms += wait * rules.windowMs
        clock.luck = luck
        const first = rate.take(alice, actions)
        if (first.kind !== 'taken') continue
        expect(first.remaining).toBeWithin(0, rules.limit + 1)
        const all = rate.take(alice, creates(first.remaining))
        expect(all).toMatchObject({ kind: 'taken', remaining: 0 })
        expect(rate.take(alice, ['delete']).kind).toBe('refused')
      }
    }),
    { numRuns: 100 },
  )
})

test('once it is reset the whole limit can be taken', () => {
  fc.assert(
    fc.property(rules, fc.array(attempt, { minLength: 5, maxLength: 60 }), (given, attempts) => {
      const clock = new Clock()
      const rules = { ...given, unit: 'writes' } as const
      const rate = clock.rate(rules)
      for (const { wait, actions, luck } of attempts) {
        clock.ms += wait * rules.windowMs
        clock.luck = luck
        const first = rate.take(alice, actions)
        if (first.kind === 'too-large') continue
        clock.ms += Math.ceil(first.resetMs)
        expect(rate.take(alice, creates(rules.limit)).kind).toBe('taken')
      }
    }),
    { numRuns: 100 },
  )
})

test('a cooldown keeps out whoever has room again, a little longer by chance', () => {
  for (const [luck, cooldownMs] of [
    [0, 90_000],
    [0.5, 112_500],
  ] as const) {
    const clock = new Clock()
    clock.luck = luck
    const rate = clock.rate({ cooldownMs: 90_000 })
    expect(rate.take(alice, creates(3)).kind).toBe('taken')
    const refused = { kind: 'refused', remaining: 0 }
    expect(rate.take(alice, ['create'])).toMatchObject({ ...refused, waitMs: cooldownMs })
    // Trying again lengthens nothing.
    clock.ms += 80_000
    const left = cooldownMs - 80_000
    expect(rate.take(alice, ['create'])).toMatchObject({ ...refused, waitMs: left, resetMs: left })
    clock.ms += left
    expect(rate.take(alice, ['create'])).toMatchObject({ kind: 'taken', remaining: 2 })
  }
})

test('the writes of one person are nothing to another', () => {
  const clock = new Clock()
  const rate = clock.rate({})
  expect(rate.take(alice, creates(3)).kind).toBe('taken')
  expect(rate.take(alice, ['create']).kind).toBe('refused')
  expect(rate.take(bob, creates(3)).kind).toBe('taken')
})

test('writes count one each, or as a PDS counts them', () => {
  const clock = new Clock()
  const mixed = [...actions]
  expect(clock.rate({ limit: 10 }).take(alice, mixed)).toMatchObject({ remaining: 7 })
  const byPoints = clock.rate({ limit: 10, unit: 'points' })
  expect(byPoints.take(alice, mixed)).toMatchObject({ remaining: 4 })
  expect(byPoints.take(alice, [])).toMatchObject({ kind: 'taken', remaining: 4 })
})

test('a call that costs more than the limit is no attempt, and is told what it costs', () => {
  const clock = new Clock()
  const rate = clock.rate({ limit: 5, unit: 'points' })
  expect(rate.take(alice, creates(2))).toEqual({ kind: 'too-large', cost: 6 })
  expect(rate.take(alice, ['create', 'update'])).toMatchObject({ kind: 'taken', remaining: 0 })
})

test('when too many write, further ones share one account until others are idle', () => {
  const clock = new Clock()
  const rate = clock.rate({}, 2)
  const [, , carol, dave, erin] = people
  const left = (did: Did | undefined) => {
    const attempt = rate.take(did ?? alice, ['create'])
    return attempt.kind === 'taken' ? attempt.remaining : attempt.kind
  }
  expect([alice, bob, carol, dave, erin].map(left)).toEqual([2, 2, 2, 1, 0])
  expect([carol, dave, erin, alice].map(left)).toEqual(['refused', 'refused', 'refused', 1])
  clock.ms += 200_000
  expect([carol, dave].map(left)).toEqual([2, 2])
  expect([erin, alice].map(left)).toEqual([2, 1])
})

test('a cooldown is remembered when the writes before it are not, and others need the room', () => {
  const clock = new Clock()
  const rate = clock.rate({ cooldownMs: 200_000 }, 1)
  expect(rate.take(alice, creates(3)).kind).toBe('taken')
  expect(rate.take(alice, ['create']).kind).toBe('refused')
  clock.ms += 100_000
  expect(rate.take(bob, ['create']).kind).toBe('taken')
  expect(rate.take(alice, ['create'])).toMatchObject({ kind: 'refused', waitMs: 100_000 })
})

function costOf(all: readonly WriteAction[], unit: 'points' | 'writes'): number {
  return unit === 'writes' ? all.length : all.reduce((sum, action) => sum + cost[action], 0)
}
