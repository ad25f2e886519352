import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import {
  checkData,
  checkDataObject,
  DataError,
  dataDepthMax,
  dataValuesMax,
} from '../../src/atproto/data.ts'
import { anyValue } from './arbitrary.ts'
import { hasVectors, vectorJson } from './vectors.ts'

const cid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const rawCid = 'bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity'
const blob = { $type: 'blob', ref: { $link: rawCid }, mimeType: 'image/png', size: 1 }

describe('a value is refused with its place in the message', () => {
  test.each<[string, unknown, string]>([
    ['a float', { a: { b: [1, 2, 1.5] } }, '$.a.b[2]: must be an integer, not a float'],
    ['not a number', [Number.NaN], '$[0]: must be an integer, not a float'],
    ['infinity', Number.POSITIVE_INFINITY, '$: must be an integer, not a float'],
    ['an integer from 2^53 on', { a: 2 ** 53 }, '$.a: must be an integer within 2^53'],
    ['an integer to -2^53', { a: -(2 ** 53) }, '$.a: must be an integer within 2^53'],
    ['undefined', { a: undefined }, '$.a: must not be of type undefined'],
    ['a hole', Array.from({ length: 1 }), '$[0]: must not be of type undefined'],
    ['a function', { a: () => 1 }, '$.a: must not be of type function'],
    ['a big integer', { a: 1n }, '$.a: must not be of type bigint'],
    ['a date', { a: new Date() }, '$.a: must be a plain object'],
    ['bytes', { a: new Uint8Array() }, '$.a: must be a plain object'],
    ['an object without prototype', Object.create(null), '$: must be a plain object'],
    ['__proto__', JSON.parse('{"a":{"__proto__":1}}'), '$.a: must not have a member __proto__'],
    ['constructor', { a: { constructor: 1 } }, '$.a: must not have a member constructor'],
    ['half a character', { a: '\uD83D' }, '$.a: must be valid Unicode'],
    ['half a character in a key', { a: { '\uD83D': 1 } }, '$.a: must be valid Unicode'],
    ['an empty $type', { a: { $type: '' } }, '$.a: $type must be a text that is not empty'],
    ['a $type of null', { $type: null }, '$: $type must be a text that is not empty'],
    ['a link that is no text', { a: { $link: 1 } }, '$.a: $link must be a CID'],
    ['a link without CID', { a: { $link: 'x' } }, '$.a: $link must be a CID'],
    ['a link with more', { a: { $link: cid, b: 1 } }, '$.a: must have no member beside $link'],
    ['link and bytes', { $link: cid, $bytes: '' }, '$: must have no member beside $link'],
    ['bytes that are no text', { a: { $bytes: [1] } }, '$.a: $bytes must be base64'],
    ['bytes of one letter', { $bytes: 'A' }, '$: $bytes must be base64'],
    ['bytes with spare bits', { $bytes: 'AB' }, '$: $bytes must be base64'],
    ['bytes with white space', { $bytes: 'AAAA ' }, '$: $bytes must be base64'],
    ['bytes with half a padding', { $bytes: 'AA=' }, '$: $bytes must be base64'],
    ['bytes of padding', { $bytes: '=' }, '$: $bytes must be base64'],
    ['bytes for URLs', { $bytes: '-_-_' }, '$: $bytes must be base64'],
    ['a blob without ref', { ...blob, ref: null }, '$: ref of a blob'],
    ['a blob of DAG-CBOR', { ...blob, ref: { $link: cid } }, '$: ref of a blob'],
    ['a blob without type', { ...blob, mimeType: '' }, '$: mimeType of a blob'],
    ['a blob with a size in text', { a: [{ ...blob, size: '1' }] }, '$.a[0]: size of a blob'],
    ['a blob below zero', { ...blob, size: -1 }, '$: size of a blob'],
    ['a blob with more', { ...blob, alt: '' }, '$: a blob must have'],
  ])('%s', (_, value, message) => {
    expect(() => checkData(value)).toThrow(DataError)
    expect(() => checkData(value)).toThrow(message)
  })

  test('too deep', () => {
    expect(() => checkData(nested(dataDepthMax))).not.toThrow()
    expect(() => checkData(nested(dataDepthMax + 1))).toThrow('nested deeper')
    expect(() => checkData(JSON.parse('['.repeat(9000) + ']'.repeat(9000)))).toThrow(DataError)
  })

  test('too many values', () => {
    expect(() => checkData(Array(dataValuesMax - 1).fill(0))).not.toThrow()
    expect(() => checkData(Array(dataValuesMax).fill(0))).toThrow('more than')
  })
})

test.each([[[]], [null], ['text'], [1], [{ $link: cid }], [{ $bytes: '' }], [blob]])(
  'a record is no %p',
  (value) => {
    expect(() => checkDataObject(value)).toThrow(DataError)
  },
)

test.each([
  [{}],
  [{ a: -0 }],
  [{ $bytes: 'AA' }],
  [{ $bytes: 'AA==' }],
  [{ $bytes: 'AAA=' }],
  [{ $bytes: 'AAAA' }],
  [{ a: blob }],
  [{ cid: rawCid, mimeType: 'image/png' }],
])('%p passes', (value) => {
  expect(() => checkData(value)).not.toThrow()
})

test('every value of the data model passes', () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      checkData(value)
    }),
  )
})

test('anything else passes or throws DataError', () => {
  fc.assert(
    fc.property(fc.anything({ withBigInt: true, withDate: true, withMap: true }), (value) => {
      try {
        checkData(value)
      } catch (error) {
        expect(error).toBeInstanceOf(DataError)
      }
    }),
    { numRuns: 500 },
  )
})

interface DataVector {
  readonly note: string
  readonly json: unknown
}
const invalid: DataVector[] = vectorJson('data-model/data-model-invalid.json')
const valid: DataVector[] = vectorJson('data-model/data-model-valid.json')

describe.skipIf(!hasVectors)('interop vectors', () => {
  test.each(invalid)('are refused: $note', ({ json }) => {
    expect(() => checkDataObject(json)).toThrow(DataError)
  })

  test.each(valid)('pass: $note', ({ json }) => {
    expect(() => checkDataObject(json)).not.toThrow()
  })
})

function nested(depth: number): unknown {
  let value: unknown = 0
  for (let level = 0; level < depth; level++) value = level % 2 === 0 ? [value] : { a: value }
  return value
}
