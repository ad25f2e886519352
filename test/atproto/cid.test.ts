import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { base16 } from 'multiformats/bases/base16'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'
import {
  CidError,
  cidForCbor,
  cidForRaw,
  cidMatches,
  cidToBytes,
  cidToString,
  equalCids,
  isRawCid,
  parseCid,
  parseCidBytes,
} from '../../src/atproto/cid.ts'
import { hasVectors, vectorLines } from './vectors.ts'

const cborCode = 0x71
const rawCode = 0x55
const some = cidForCbor(new Uint8Array([0xa0]))
const someText = cidToString(some)

describe('text that is no CID of ours', () => {
  test.each([
    ['empty', ''],
    ['version 0', 'QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR'],
    ['another codec', 'bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi'],
    ['another base', CID.decode(some).toString(base16)],
    ['upper case', someText.toUpperCase()],
    ['a character too few', someText.slice(0, -1)],
    ['a character too many', `${someText}a`],
    ['white space behind', `${someText}\n`],
    ['padding', `${someText}=`],
    ['spare bits that are set', `${someText.slice(0, -1)}${nextLetter(someText.slice(-1))}`],
  ])('is refused: %s', (_, text) => {
    expect(() => parseCid(text)).toThrow(CidError)
  })

  test('is refused whatever it is', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(() => parseCid(text)).toThrow(CidError)
      }),
    )
  })
})

describe('bytes that are no CID of ours', () => {
  test.each([
    ['version 2', changed(0, 2)],
    ['another codec', changed(1, 0x70)],
    ['another hash', changed(2, 0x13)],
    ['another hash length', changed(3, 0x21)],
    ['a byte too few', some.subarray(0, -1)],
    ['a byte too many', new Uint8Array([...some, 0])],
    ['empty', new Uint8Array()],
  ])('are refused: %s', (_, bytes) => {
    expect(() => parseCidBytes(bytes)).toThrow(CidError)
  })
})

test('bytes, text and hash agree with multiformats', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (bytes, raw) => {
      const theirs = CID.createV1(raw ? rawCode : cborCode, await sha256.digest(bytes))
      const ours = raw ? cidForRaw(bytes) : cidForCbor(bytes)
      const text = cidToString(ours)
      expect<string>(text).toBe(theirs.toString())
      expect(Buffer.compare(ours, theirs.bytes)).toBe(0)
      expect(parseCid(text)).toBe(text)
      expect(equalCids(cidToBytes(text), ours)).toBeTrue()
      expect(isRawCid(text)).toBe(raw)
      expect(cidMatches(ours, bytes)).toBeTrue()
    }),
    { numRuns: 300 },
  )
})

test('a CID does not match other bytes, nor the same bytes under another codec', () => {
  const bytes = new Uint8Array([0xa0])
  expect(cidMatches(some, new Uint8Array([0xa1]))).toBeFalse()
  expect(equalCids(some, cidForRaw(bytes))).toBeFalse()
})

describe.skipIf(!hasVectors)('interop vectors', () => {
  test('invalid ones are refused', () => {
    for (const text of vectorLines('syntax/cid_syntax_invalid.txt')) {
      expect(() => parseCid(text)).toThrow(CidError)
    }
  })

  // The vectors are of all kinds of CID, data of AT Protocol has two.
  test('valid ones of another kind are refused', () => {
    for (const text of vectorLines('syntax/cid_syntax_valid.txt')) {
      expect(() => parseCid(text)).toThrow(CidError)
    }
  })
})

function changed(at: number, byte: number): Uint8Array {
  return new Uint8Array(some).with(at, byte)
}

function nextLetter(letter: string): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'
  return alphabet.charAt(alphabet.indexOf(letter) + 1)
}
