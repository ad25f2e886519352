import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { XrpcError } from '../../src/atproto/errors.ts'
import {
  isHandle,
  parseDid,
  parseHandle,
  parseNsid,
  parseRecordUri,
  parseRkey,
  parseTid,
  recordPlace,
  recordUri,
} from '../../src/atproto/syntax.ts'
import { hasVectors, vectorLines } from './vectors.ts'

const did = 'did:plc:44ybard66vv44zksje25o7dz'

describe('a record URI', () => {
  test.each([
    '',
    'at://',
    `at://${did}`,
    `at://${did}/com.example.post`,
    `at://${did}/com.example.post/`,
    `at://${did}/com.example.post/a/`,
    `at://${did}/com.example.post/a/b`,
    `at://${did}/com.example.post/a?b=c`,
    `at://${did}/com.example.post/a#b`,
    `at://${did}/com.example.post/..`,
    `at://${did}/notansid/a`,
    `at://${did}//a`,
    `at:///com.example.post/a`,
    `at:/${did}/com.example.post/a`,
    `AT://${did}/com.example.post/a`,
    ` at://${did}/com.example.post/a`,
    `at://${did}/com.example.post/a\n`,
    'at://alice.example.com/com.example.post/a',
    `https://${did}/com.example.post/a`,
    `at://${did}/com.example.post/${'a'.repeat(513)}`,
    `at://${did}/com.example.post/${'a'.repeat(100_000)}`,
  ])('is refused as 400 InvalidRequest when it is %p', (text) => {
    expect(recordPlace(text)).toBeUndefined()
    const error = refusal(() => parseRecordUri(text))
    expect([error.status, error.error]).toEqual([400, 'InvalidRequest'])
    expect(error.message.length).toBeLessThan(400)
  })

  test('gives its three parts and is made of them', () => {
    const uri = `at://${did}/com.example.post/3jzfcijpj2z2a`
    const place = parseRecordUri(uri)
    expect(recordPlace(uri)).toEqual(place)
    expect<object>(place).toEqual({
      did,
      collection: 'com.example.post',
      rkey: '3jzfcijpj2z2a',
    })
    expect<string>(recordUri(place.did, place.collection, place.rkey)).toBe(uri)
  })
})

describe('a handle', () => {
  test('is brought to lower case by its parser', () => {
    expect<string>(parseHandle('Alice.Example.COM')).toBe('alice.example.com')
  })

  test('passes the check in lower case only', () => {
    expect(isHandle('Alice.example.com')).toBeFalse()
    expect(isHandle('alice.example.com')).toBeTrue()
  })
})

test('the reason of a refusal stands in its message', () => {
  expect(refusal(() => parseDid('did:plc:')).message).toMatch(/"did:plc:" is no valid DID: .+/)
})

const kinds = [
  ['did', parseDid],
  ['handle', parseHandle],
  ['nsid', parseNsid],
  ['tid', parseTid],
  ['recordkey', parseRkey],
] as const

describe.skipIf(!hasVectors).each(kinds)('interop vectors of %s', (name, parse) => {
  test('invalid ones are refused as 400 InvalidRequest', () => {
    for (const text of vectorLines(`syntax/${name}_syntax_invalid.txt`)) {
      const error = refusal(() => parse(text))
      expect([text, error.status, error.error]).toEqual([text, 400, 'InvalidRequest'])
    }
  })

  test('valid ones pass', () => {
    const texts = vectorLines(`syntax/${name}_syntax_valid.txt`)
    expect(texts.length).toBeGreaterThan(0)
    for (const text of texts) expect<string>(parse(text)).toBe(kept(name, text))
  })
})

describe.skipIf(!hasVectors)('interop vectors of AT-URIs', () => {
  test('no invalid one is a record URI', () => {
    for (const text of vectorLines('syntax/aturi_syntax_invalid.txt')) {
      expect([text, refusal(() => parseRecordUri(text)).status]).toEqual([text, 400])
    }
  })

  test('a valid one with a DID and three parts is a record URI', () => {
    const texts = vectorLines('syntax/aturi_syntax_valid.txt').filter((text) =>
      /^at:\/\/did:[^/]+\/[^/]+\/[^/]+$/.test(text),
    )
    expect(texts.length).toBeGreaterThan(0)
    for (const text of texts) {
      const { did, collection, rkey } = parseRecordUri(text)
      expect<string>(recordUri(did, collection, rkey)).toBe(text)
    }
  })
})

function kept(name: string, text: string): string {
  return name === 'handle' ? text.toLowerCase() : text
}

function refusal(run: () => unknown): XrpcError {
  try {
    run()
  } catch (error) {
    if (error instanceof XrpcError) return error
    throw error
  }
  throw new Error('it was not refused')
}

test('a record URI has the parts that its three parts alone are taken as, and no other is one', () => {
  const part = (...kinds: readonly RegExp[]) =>
    fc.oneof(...kinds.map((kind) => fc.stringMatching(kind)))
  const parts = fc.tuple(
    part(
      /^did:[a-z]{1,22}:[a-zA-Z0-9._:%-]{0,220}$/,
      /^did:(plc|web):[a-z2-7.:-]{1,24}$/,
      /^.{0,9}$/,
    ),
    part(/^[a-z]{1,32}([.][a-z]{1,32}){1,7}$/, /^[a-zA-Z0-9.-]{1,70}([.][a-zA-Z0-9]{1,70}){2}$/),
    part(/^[a-zA-Z0-9_~.:-]{1,120}$/, /^.{0,4}$/, /^[.]{1,3}$/),
  )
  let taken = 0
  fc.assert(
    fc.property(parts, ([authority, collection, rkey]) => {
      const place = recordPlace(`at://${authority}/${collection}/${rkey}`)
      const alone = () => [parseDid(authority), parseNsid(collection), parseRkey(rkey)]
      if (place === undefined) {
        // A slash within a part is never taken as one of it.
        expect(alone).toThrow(XrpcError)
        return
      }
      taken += 1
      expect<string[]>([place.did, place.collection, place.rkey]).toEqual(alone())
    }),
    { numRuns: 5_000 },
  )
  expect(taken).toBeGreaterThan(100)
})
