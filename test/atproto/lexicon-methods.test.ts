import { describe, expect, test } from 'bun:test'
import type { LexiconDoc } from '@atproto/lexicon'
import fc from 'fast-check'
import { Schemas } from '../../src/atproto/lexicon.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { bytes, enrollment, hostileJson, post, refusalOf, strongRef } from './lexicon-samples.ts'

const schemas = new Schemas(schemaDocs)
const postNsid = 'zone.stratos.feed.post'

describe('checkParams', () => {
  const list = 'zone.stratos.repo.listRecords'
  const needed = 'repo=alice.test&collection=zone.stratos.feed.post'
  const params = (nsid: string, query: string) =>
    schemas.checkParams(nsid, new URLSearchParams(query))

  test.each([
    ['limit=', 'limit must be an integer'],
    ['limit=ten', 'limit must be an integer'],
    ['limit=1.0', 'limit must be an integer'],
    ['limit=1e2', 'limit must be an integer'],
    ['limit=%201', 'limit must be an integer'],
    ['limit=0x10', 'limit must be an integer'],
    ['limit=99999999999999999999', 'limit must be an integer'],
    ['limit=9007199254740993', 'limit must be an integer'],
    ['limit=0', 'limit can not be less than 1'],
    ['limit=101', 'limit can not be greater than 100'],
    ['limit=1&limit=2', 'limit must not be given more than once'],
    ['repo=bob.test', 'repo must not be given more than once'],
    ['reverse=', 'reverse must be true or false'],
    ['reverse=1', 'reverse must be true or false'],
    ['reverse=True', 'reverse must be true or false'],
  ])('%s is refused', (query, words) => {
    expect(refusalOf(() => params(list, `${needed}&${query}`))).toBe(`InvalidRequest: ${words}`)
  })

  test.each([
    ['collection=a.b.c', 'Params must have the property "repo"'],
    ['repo=&collection=a.b.c', 'repo must be a valid did or a handle'],
    ['repo=alice.test&collection=posts', 'collection must be a valid nsid'],
  ])('%s is refused', (query, words) => {
    expect(refusalOf(() => params(list, query))).toBe(`InvalidRequest: ${words}`)
  })

  test('texts become what the lexicon says, and defaults are filled in', () => {
    expect(params(list, needed)).toEqual({
      repo: 'alice.test',
      collection: postNsid,
      limit: 50,
    })
    expect(params(list, `${needed}&limit=100&reverse=true&cursor=a%2Bb`)).toEqual({
      repo: 'alice.test',
      collection: postNsid,
      limit: 100,
      reverse: true,
      cursor: 'a+b',
    })
  })

  test('parameters that the lexicon does not know are left out', () => {
    const given = params(list, `${needed}&__proto__=1&constructor=2&x=3&x=4`)
    expect(Object.keys(given).toSorted()).toEqual(['collection', 'limit', 'repo'])
  })

  test('a repeated parameter of an array keeps its order, each item by its type', () => {
    const own = new Schemas([arrayParameters])
    const search = new URLSearchParams('ids=3&ids=1&ids=2')
    expect(own.checkParams('com.example.many', search)).toEqual({ ids: [3, 1, 2] })
    expect(
      refusalOf(() => own.checkParams('com.example.many', new URLSearchParams('ids=1&ids=x'))),
    ).toBe('InvalidRequest: ids must be an integer')
    search.append('ids', '4')
    expect(refusalOf(() => own.checkParams('com.example.many', search))).toContain('more than 3')
  })

  test('a method without parameters has none', () => {
    expect(params('zone.stratos.server.listDomains', 'limit=5')).toEqual({})
  })

  test('whatever the query holds, it passes or is an InvalidRequest', () => {
    const name = fc.constantFrom('repo', 'collection', 'limit', 'cursor', 'reverse', '__proto__')
    fc.assert(
      fc.property(fc.array(fc.tuple(name, fc.string())), (pairs) => {
        expect(refusalOf(() => schemas.checkParams(list, new URLSearchParams(pairs)))).toMatch(
          /^(?:accepted|InvalidRequest)/,
        )
      }),
      { numRuns: 300 },
    )
  })
})

describe('checkInput', () => {
  const create = 'zone.stratos.repo.createRecord'
  const input = { repo: 'alice.test', collection: postNsid, record: { text: 1.5 } }

  test.each([
    [null, 'Input must be an object'],
    [undefined, 'Input must be an object'],
    [[], 'Input must be an object'],
    ['text', 'Input must be an object'],
    [{}, 'Input must have the property "repo"'],
    [{ ...input, repo: 1 }, 'Input/repo must be a string'],
    [{ ...input, repo: 'al ice' }, 'Input/repo must be a valid did or a handle'],
    [{ ...input, collection: 'posts' }, 'Input/collection must be a valid nsid'],
    [{ ...input, rkey: 'a/b' }, 'Input/rkey must be a valid Record Key'],
    [{ ...input, validate: 'false' }, 'Input/validate must be a boolean'],
    [{ ...input, swapCommit: 'x' }, 'Input/swapCommit must be a cid string'],
    [{ ...input, record: 'text' }, 'Input/record must be an object'],
    [{ ...input, record: [] }, 'Input/record must be an object'],
    [{ ...input, record: null }, 'Input/record must be an object'],
  ])('%j is refused', (body, words) => {
    expect(refusalOf(() => schemas.checkInput(create, body))).toBe(`InvalidRequest: ${words}`)
  })

  test('more boundaries than an enrollment record holds are refused', () => {
    const body = { did: 'did:plc:abc', boundaries: Array(51).fill('did:web:stratos.test/a') }
    expect(refusalOf(() => schemas.checkInput('zone.stratos.admin.setBoundaries', body))).toBe(
      'InvalidRequest: Input/boundaries must not have more than 50 elements',
    )
  })

  test('a record inside is not looked into', () => {
    const { record } = schemas.checkInput(create, input)
    expect(record).toBe(input.record)
  })

  test('a method that takes no JSON has no input', () => {
    expect(schemas.checkInput('zone.stratos.sync.getRepo', { a: 1 })).toEqual({})
  })

  test('whatever JSON comes, it passes or is an InvalidRequest', () => {
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(input)), hostileJson, (name, value) => {
        const outcome = refusalOf(() => schemas.checkInput(create, { ...input, [name]: value }))
        expect(outcome).toMatch(/^(?:accepted|InvalidRequest)/)
      }),
      { numRuns: 300 },
    )
  })
})

describe('checkOutput', () => {
  const status = 'zone.stratos.enrollment.status'
  const { attestation } = enrollment()

  test('an answer that breaks its lexicon is a fault of ours', () => {
    for (const body of [null, {}, { did: 'did:plc:abc' }, { did: 'x', enrolled: true }]) {
      expect(() => schemas.checkOutput(status, body)).toThrow('breaks its lexicon')
    }
    const body = { did: 'did:plc:abc', enrolled: true, attestation: { sig: 'x', signingKey: 'y' } }
    expect(() => schemas.checkOutput(status, body)).toThrow('breaks its lexicon')
  })

  test('an answer in JSON form passes, bytes and all', () => {
    schemas.checkOutput(status, { did: 'did:plc:abc', enrolled: true, attestation })
    schemas.checkOutput('zone.stratos.repo.getRecord', {
      uri: strongRef.uri,
      cid: strongRef.cid,
      value: post({ salt: bytes(16) }),
    })
  })

  test('an answer that is no JSON is not looked at', () => {
    schemas.checkOutput('zone.stratos.sync.getRepo', new Uint8Array(3))
  })
})

describe('has and kindOf', () => {
  test('other spellings, parts and names of every object lead nowhere', () => {
    for (const nsid of [
      'lex:zone.stratos.feed.post',
      'zone.stratos.feed.post#main',
      'zone.stratos.feed.post#replyRef',
      'zone.stratos.boundary.defs',
      'a#b#c',
      'constructor',
      '',
    ]) {
      expect([nsid, schemas.has(nsid), schemas.kindOf(nsid)]).toEqual([nsid, false, undefined])
    }
  })

  test('an NSID leads to its kind', () => {
    expect(schemas.has(postNsid)).toBe(true)
    expect(schemas.kindOf(postNsid)).toBe('record')
    expect(schemas.kindOf('zone.stratos.repo.getRecord')).toBe('query')
    expect(schemas.kindOf('com.atproto.repo.createRecord')).toBe('procedure')
  })
})

const arrayParameters: LexiconDoc = {
  lexicon: 1,
  id: 'com.example.many',
  defs: {
    main: {
      type: 'query',
      parameters: {
        type: 'params',
        properties: {
          ids: { type: 'array', items: { type: 'integer' }, maxLength: 3 },
        },
      },
    },
  },
}
