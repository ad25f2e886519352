import { expect, test } from 'bun:test'
import { Lanes } from '../../src/lib/lanes.ts'

test('a full lane lets nobody in, and the others are not held up', () => {
  const lanes = new Lanes<string>(2)
  expect(['a', 'b', 'c'].map((name) => lanes.enter('slow', name))).toEqual([true, true, false])
  expect(lanes.enter('quick', 'd')).toBeTrue()
})

test('whoever waited longest is next', () => {
  const lanes = new Lanes<string>(1)
  for (const name of ['a', 'b', 'c']) lanes.enter('one', name)
  expect(lanes.leave('one')).toBe('b')
  expect(lanes.enter('one', 'b')).toBeTrue()
  expect(lanes.leave('one')).toBe('c')
  expect(lanes.enter('one', 'c')).toBeTrue()
  expect(lanes.leave('one')).toBeUndefined()
  expect(lanes.leave('one')).toBeUndefined()
  expect(lanes.enter('one', 'a')).toBeTrue()
})
