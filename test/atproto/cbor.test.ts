import { describe, expect, test } from 'bun:test'
import * as dagCbor from '@ipld/dag-cbor'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import { CborError, cborBytesMax, decode, encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import {
  checkData,
  type DataObject,
  type DataValue,
  dataDepthMax,
  dataValuesMax,
} from '../../src/atproto/data.ts'
import { anyValue } from './arbitrary.ts'
import { hasVectors, vectorJson } from './vectors.ts'

describe('bytes that are not canonical are refused', () => {
  test.each([
    ['nothing', ''],
    ['a byte behind', 'f600'],
    ['a second value', 'f6f6'],
    ['an integer in two bytes for one', '1817'],
    ['an integer in three bytes for two', '1900ff'],
    ['an integer in five bytes for three', '1a0000ffff'],
    ['an integer in nine bytes for five', '1b00000000ffffffff'],
    ['a negative integer that is not shortest', '3817'],
    ['an integer of 2^53', '1b0020000000000000'],
    ['an integer of -2^53', '3b001fffffffffffff'],
    ['an integer of 2^64 - 1', '1bffffffffffffffff'],
    ['a text length that is not shortest', '780161'],
    ['a byte length that is not shortest', '580100'],
    ['an array length that is not shortest', '980100'],
    ['a map length that is not shortest', 'b801616100'],
    ['a tag that is not shortest', `d9002a${linkHex().slice(4)}`],
    ['half an integer', '19ff'],
    ['half a text', '6261'],
    ['half a byte string', '4200'],
    ['half an array', '8200'],
    ['half a map', 'a26161006162'],
    ['a map with a key and no value', 'a16161'],
    ['an indefinite text', '7f6161ff'],
    ['indefinite bytes', '5f4100ff'],
    ['an indefinite array', '9f00ff'],
    ['an indefinite map', 'bf616100ff'],
    ['a break', 'ff'],
    ['reserved infos', '1c'],
    ['a half float', 'f93c00'],
    ['a float', 'fa3f800000'],
    ['a double', 'fb3ff8000000000000'],
    ['a double that is an integer', 'fb3ff0000000000000'],
    ['not a number', 'fb7ff8000000000000'],
    ['undefined', 'f7'],
    ['a simple value', 'f0'],
    ['false in two bytes', 'f814'],
    ['another tag', 'c074323031332d30332d32315432303a30343a30305a'],
    ['a tag of a big integer', 'c24101'],
    ['a link that is a text', 'd82a6161'],
    ['a link of no bytes', 'd82a40'],
    ['a link without the zero', linkHex().replace('582500', '5824').toLowerCase()],
    ['a link that starts with one', linkHex().replace('582500', '582501')],
    ['a link of another codec', linkHex().replace('0171', '0170')],
    ['a link of another hash', linkHex().replace('1220', '1320')],
    ['text that is not UTF-8', '61ff'],
    ['half a surrogate pair', '63eda080'],
    ['text that is longer than needed', '62c1a1'],
    ['a key that is not UTF-8', 'a161ff00'],
    ['a key that is a number', 'a10000'],
    ['a key that is bytes', 'a1416100'],
    ['keys in the wrong order', 'a2616200616100'],
    ['a longer key first', 'a262616100616200'],
    ['a key twice', 'a2616100616101'],
    ['a key __proto__', `a1${textHex('__proto__')}00`],
    ['a key constructor', `a1${textHex('constructor')}00`],
    ['a map that would read as a link', `a1${textHex('$link')}${textHex('x')}`],
    ['a map that would read as bytes', `a1${textHex('$bytes')}${textHex('AA')}`],
    ['an array of 2^32 that is not there', '9b0000000100000000'],
    ['a text of 2^53 that is not there', '7b001fffffffffffff'],
    ['a map of 2^28 that is not there', 'ba1000000000'],
  ])('%s', (_, hex) => {
    expect(() => decode(Uint8Array.fromHex(hex))).toThrow(CborError)
  })

  test('too deep', () => {
    const nested = (depth: number) => new Uint8Array(depth + 1).fill(0x81).with(depth, 0x80)
    expect(() => decode(nested(dataDepthMax - 1))).not.toThrow()
    expect(() => decode(nested(dataDepthMax))).toThrow('nested deeper')
    expect(() => decode(nested(1_000_000))).toThrow(CborError)
  })

  test('too many values', () => {
    const many = encode(Array<number>(dataValuesMax).fill(0))
    expect(() => decode(many)).toThrow(`more than ${dataValuesMax}`)
  })

  test('too long', () => {
    const long = encode('a'.repeat(cborBytesMax))
    expect(() => decode(long)).toThrow('over the limit')
  })
})

test('any bytes throw CborError or are what their value encodes to', () => {
  const cborish = fc.array(
    fc.oneof(
      fc.constantFrom(0xa1, 0xa2, 0x81, 0x82, 0x61, 0x62, 0x41, 0x18, 0xd8, 0x2a, 0xf5, 0xf6, 0xfb),
      fc.nat(255),
    ),
    { maxLength: 40 },
  )
  fc.assert(
    fc.property(cborish, (numbers) => decodesOrRefuses(Uint8Array.from(numbers))),
    { numRuns: 5000 },
  )
})

test('any bytes of a good value that were changed do the same', () => {
  fc.assert(
    fc.property(anyValue, fc.nat(), fc.nat(255), (value, at, byte) => {
      const bytes = encode(value)
      decodesOrRefuses(bytes.with(at % bytes.length, byte))
    }),
    { numRuns: 1000 },
  )
})

test('a value comes back and keeps its bytes', () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      const bytes = encode(value)
      const again = decode(bytes)
      expect(again).toEqual(value)
      expect(JSON.parse(JSON.stringify(again))).toEqual(value)
      expect(same(encode(again), bytes)).toBeTrue()
    }),
    { numRuns: 500 },
  )
})

test('the bytes are those of @ipld/dag-cbor', () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      expect(same(encode(value), dagCbor.encode(toIpld(value)))).toBeTrue()
    }),
    { numRuns: 500 },
  )
})

test('padded base64 gives the bytes of the unpadded', () => {
  expect(same(encode({ $bytes: 'AA==' }), encode({ $bytes: 'AA' }))).toBeTrue()
})

test('a minus zero is written as zero', () => {
  expect(decode(encode(-0))).toBe(0)
})

test('a byte order mark in a text is kept', () => {
  expect(decode(encode('\uFEFFé'))).toBe('\uFEFFé')
})

test('encoded bytes fill their buffer', () => {
  expect(encode({ a: 1 }).buffer.byteLength).toBe(4)
})

interface DataVector {
  readonly json: DataValue
  readonly cbor_base64: string
  readonly cid: string
}
const vectors: DataVector[] = vectorJson('data-model/data-model-fixtures.json')

test.skipIf(!hasVectors)('interop vectors have their bytes and CIDs, both ways', () => {
  expect(vectors.length).toBeGreaterThan(0)
  for (const vector of vectors) {
    const bytes = Uint8Array.fromBase64(vector.cbor_base64)
    expect(same(encode(vector.json), bytes)).toBeTrue()
    expect<string>(cidToString(cidForCbor(bytes))).toBe(vector.cid)
    expect(decode(bytes)).toEqual(vector.json)
  }
})

function decodesOrRefuses(bytes: Uint8Array): void {
  let value: DataValue
  try {
    value = decode(bytes)
  } catch (error) {
    expect(error).toBeInstanceOf(CborError)
    return
  }
  expect(same(encode(value), bytes)).toBeTrue()
  expect(same(dagCbor.encode(toIpld(value)), bytes)).toBeTrue()
  // Only what is said about single members of an object may still be wrong.
  if (!JSON.stringify(value).includes('$type')) checkData(value)
}

function toIpld(value: DataValue): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (isList(value)) return value.map(toIpld)
  if (typeof value['$link'] === 'string') return CID.parse(value['$link'])
  if (typeof value['$bytes'] === 'string') return Uint8Array.fromBase64(value['$bytes'])
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toIpld(member)]))
}

function isList(value: readonly DataValue[] | DataObject): value is readonly DataValue[] {
  return Array.isArray(value)
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

function linkHex(): string {
  return encode({ $link: cidToString(cidForCbor(new Uint8Array())) }).toHex()
}

function textHex(text: string): string {
  return encode(text).toHex()
}
