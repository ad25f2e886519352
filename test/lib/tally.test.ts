import { expect, test } from 'bun:test'
import { Tally } from '../../src/lib/tally.ts'

const options = { windowMs: 1000, keysMax: 3 }

test('counts start anew with the next window', () => {
  const tally = new Tally(options)
  tally.add('a', 5000)
  tally.add('a', 5999)
  expect(tally.count('a', 5999)).toBe(2)
  expect(tally.count('b', 5999)).toBe(0)
  expect(tally.count('a', 6000)).toBe(0)
})

test('a window starts with the first thing counted after the last one', () => {
  const tally = new Tally(options)
  tally.add('a', 5000)
  expect(tally.remainingMs(5400)).toBe(600)
  expect(tally.remainingMs(7000)).toBe(0)
  tally.add('a', 7000)
  expect(tally.remainingMs(7400)).toBe(600)
})

test('a clock that goes back begins a new window', () => {
  const tally = new Tally(options)
  tally.add('a', 5000)
  expect(tally.count('a', 4000)).toBe(0)
  tally.add('a', 4000)
  expect(tally.count('a', 4500)).toBe(1)
})

test('a flood of new keys is counted together and takes nothing from known ones', () => {
  const tally = new Tally(options)
  for (const key of ['a', 'b', 'c']) tally.add(key, 0)
  for (let index = 0; index < 100; index++) tally.add(`flood ${index}`, 0)
  tally.add('a', 0)
  expect(tally.count('a', 0)).toBe(2)
  expect(tally.count('b', 0)).toBe(1)
  expect(tally.count('anybody else', 0)).toBe(100)
  expect(tally.count('anybody else', 1000)).toBe(0)
})
