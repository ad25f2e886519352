import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { Lru } from '../../src/lib/lru.ts'

test('what was used least recently goes first', () => {
  const lru = new Lru<string, number>(2)
  lru.set('a', 1)
  lru.set('b', 2)
  expect(lru.get('a')).toBe(1)
  lru.set('c', 3)
  expect(['a', 'b', 'c'].map((key) => lru.get(key))).toEqual([1, undefined, 3])
})

test('one big entry pushes out as many small ones as it takes', () => {
  const lru = new Lru<string, string>(10)
  for (const key of ['a', 'b', 'c']) lru.set(key, key, 3)
  lru.set('big', 'big', 6)
  expect(['a', 'b', 'c', 'big'].map((key) => lru.get(key))).toEqual([
    undefined,
    undefined,
    'c',
    'big',
  ])
})

test('the newest entry is kept also when it is larger than the bound', () => {
  const lru = new Lru<string, string>(10)
  lru.set('a', 'a')
  lru.set('huge', 'huge', 11)
  expect(lru.get('a')).toBeUndefined()
  expect(lru.get('huge')).toBe('huge')
})

test('an entry that is set anew counts with its new size alone', () => {
  const lru = new Lru<string, number>(10)
  lru.set('a', 1, 9)
  lru.set('a', 2, 1)
  lru.set('b', 3, 9)
  expect(lru.get('a')).toBe(2)
  lru.delete('b')
  lru.delete('never there')
  lru.set('c', 4, 9)
  expect(lru.get('a')).toBe(2)
})

test('it keeps the longest run of last used entries that fits', () => {
  const use = fc.record({
    key: fc.integer({ min: 0, max: 6 }),
    size: fc.integer({ min: 0, max: 5 }),
    action: fc.constantFrom('get', 'set', 'set', 'delete'),
  })
  fc.assert(
    fc.property(fc.array(use, { maxLength: 40 }), (uses) => {
      const lru = new Lru<number, number>(8)
      // Last used last.
      let model: { key: number; size: number }[] = []
      for (const { key, size, action } of uses) {
        const known = model.find((entry) => entry.key === key)
        const others = model.filter((entry) => entry.key !== key)
        if (action === 'set') {
          lru.set(key, key, size)
          model = [...others, { key, size }]
          while (model.length > 1 && model.reduce((sum, entry) => sum + entry.size, 0) > 8) {
            model.shift()
          }
        } else if (action === 'delete') {
          lru.delete(key)
          model = others
        } else {
          expect(lru.get(key)).toBe(known?.key)
          if (known !== undefined) model = [...others, known]
        }
      }
      for (let key = 0; key <= 6; key++) {
        expect(lru.get(key)).toBe(model.find((entry) => entry.key === key)?.key)
      }
    }),
    { numRuns: 300 },
  )
})
