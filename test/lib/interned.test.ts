import { expect, test } from 'bun:test'

import { heapStats } from 'bun:jsc'

import { Interned } from '../../src/lib/interned.ts'

test('a text stays what it is, also once there were too many', () => {
  const texts = new Interned(3)
  for (const text of ['a', 'b', 'a', 'c', 'd', 'a', '', 'é']) expect(texts.one(text)).toBe(text)
})

test('equal texts are held once', () => {
  const texts = new Interned(10)
  const fresh = () => Buffer.from('x'.repeat(100)).toString()
  const strings = () => {
    Bun.gc(true)
    return heapStats().objectTypeCounts['string'] ?? 0
  }
  const before = strings()
  const held = Array.from({ length: 10_000 }, () => texts.one(fresh()))
  expect(strings() - before).toBeLessThan(1_000)
  expect(held).toHaveLength(10_000)
})
