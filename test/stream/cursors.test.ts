import { describe, expect, test } from 'bun:test'
import { Cursors, CursorsError } from '../../src/stream/cursors.ts'

const did = 'did:web:a.test'

describe('a message is refused', () => {
  test.each([
    ['that is no JSON', '{'],
    ['that is no object', '[]'],
    ['that is null', 'null'],
    ['without more', '{"cursors": {}}'],
    ['without cursors', '{"more": false}'],
    ['whose more is no boolean', '{"cursors": {}, "more": 0}'],
    ['whose cursors are a list', '{"cursors": [], "more": false}'],
    ['whose cursors are null', '{"cursors": null, "more": false}'],
    ['with a handle', message({ 'alice.test': 1 })],
    ['with __proto__', `{"cursors": {"__proto__": 1}, "more": false}`],
    ['with a text', message({ [did]: '1' })],
    ['with a fraction', message({ [did]: 1.5 })],
    ['with less than 0', message({ [did]: -1 })],
    ['with what is no safe integer', `{"cursors": {"${did}": 9007199254740993}, "more": false}`],
    ['with null', message({ [did]: null })],
  ])('%s', (_, text) => {
    expect(() => new Cursors().add(text)).toThrow(CursorsError)
  })

  test('of more than a mebibyte', () => {
    const padded = (length: number) => message({}).padEnd(length)
    expect(new Cursors().add(padded(1_048_576))).toBeDefined()
    expect(() => new Cursors().add(padded(1_048_577))).toThrow(CursorsError)
  })

  test('past 64 mebibytes of them', () => {
    const cursors = new Cursors()
    const most = JSON.stringify({ cursors: {}, more: true }).padEnd(1_048_576)
    for (let sent = 0; sent < 64; sent++) expect(cursors.add(most)).toBeUndefined()
    expect(() => cursors.add(message({}))).toThrow(CursorsError)
  })
})

test('cursors are those of all messages, the last word on each counts', () => {
  const cursors = new Cursors()
  expect(cursors.add(message({ [did]: 1, 'did:web:b.test': 2 }, true))).toBeUndefined()
  expect(cursors.add(message({}, true))).toBeUndefined()
  const all = cursors.add(message({ [did]: 3, 'did:web:c.test': 0 }))
  const expected = { [did]: 3, 'did:web:b.test': 2, 'did:web:c.test': 0 }
  expect(Object.fromEntries(all ?? [])).toEqual(expected)
})

function message(cursors: object, more = false): string {
  return JSON.stringify({ cursors, more })
}
