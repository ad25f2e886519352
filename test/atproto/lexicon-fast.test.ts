import { expect, test } from 'bun:test'
import { jsonToLex, Lexicons, type LexObject } from '@atproto/lexicon'
import fc from 'fast-check'
import { checkData } from '../../src/atproto/data.ts'
import { Schemas } from '../../src/atproto/lexicon.ts'
import { closedCheck, memberCheck } from '../../src/atproto/lexicon-fast.ts'
import { checkStrictly } from '../../src/atproto/lexicon-strict.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { post } from './lexicon-samples.ts'

/** Texts on both sides of every format, and of every limit. */
const texts = [
  'did:plc:44ybard66vv44zksje25o7dz',
  'did:web:localhost%3A3100',
  'alice.test',
  'zone.stratos.feed.post',
  '3kabcdefghij2',
  'self',
  'at://did:plc:44ybard66vv44zksje25o7dz/zone.stratos.feed.post/self',
  'at://alice.test/zone.stratos.feed.post/self',
  'at://did:plc:44ybard66vv44zksje25o7dz/zone.stratos.feed.post/self#',
  'at://did:plc:44ybard66vv44zksje25o7dz',
  'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a',
  'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2A',
  '',
  '.',
  'x'.repeat(513),
  `did:plc:${'a'.repeat(2100)}`,
]
const text = fc.oneof(fc.constantFrom(...texts), fc.string())
const value = fc.oneof(
  { weight: 5, arbitrary: text },
  fc.constantFrom(null, undefined, true, false, 0, 1, 100, 101, 1.5, Number.NaN, '1'),
  fc.array(text, { maxLength: 3 }),
  fc.array(fc.constantFrom(...texts.slice(6, 8)), { minLength: 99, maxLength: 102 }),
  fc.array(fc.anything(), { maxLength: 2 }),
)

const lexicons = new Lexicons(structuredClone(schemaDocs))
const methods = [...lexicons].flatMap(({ id, defs: { main } }): Checked[] => {
  if (main?.type === 'query' && main.parameters !== undefined) {
    return [{ id, kind: 'params', object: main.parameters }]
  }
  const input = main?.type === 'procedure' ? main.input?.schema : undefined
  return input?.type === 'object' ? [{ id, kind: 'input', object: input }] : []
})

interface Checked {
  readonly id: string
  readonly kind: 'params' | 'input'
  readonly object: Parameters<typeof memberCheck>[0]
}

/** Mostly what fits a property, for most objects have several. */
function valueOf(property: { readonly type: string; readonly format?: string | undefined }) {
  const fitting = property.type === 'integer' ? 50 : texts[formats.indexOf(property.format ?? '')]
  return fc.oneof({ weight: 4, arbitrary: fc.constant(fitting ?? 'any') }, value)
}

/** Of each the text at its place fits. */
const formats = [
  'did',
  '',
  'at-identifier',
  'nsid',
  'tid',
  'record-key',
  'at-uri',
  '',
  '',
  '',
  'cid',
]

test('what the fast check accepts, the lexicon package takes as it is', () => {
  const sure: string[] = []
  for (const { id, kind, object } of methods) {
    const check = memberCheck(object)
    if (check === undefined) continue
    const members = Object.fromEntries(
      Object.entries(object.properties).map(([name, property]) => [name, valueOf(property)]),
    )
    let accepted = 0
    fc.assert(
      fc.property(fc.record(members, { requiredKeys: [] }), (given) => {
        if (!check(given)) return
        accepted += 1
        const before = structuredClone(given)
        const taken =
          kind === 'params'
            ? lexicons.assertValidXrpcParams(id, given)
            : lexicons.assertValidXrpcInput(id, given)
        expect(taken).toEqual(before)
      }),
      { numRuns: 2_000 },
    )
    if (accepted > 0) sure.push(id)
  }
  for (const name of ['getRecord', 'listRecords', 'hydrateRecord', 'hydrateRecords']) {
    expect(sure).toContain(`zone.stratos.repo.${name}`)
  }
})

const postType = 'zone.stratos.feed.post'

test('of a record, too, it accepts nothing that the whole check would refuse', () => {
  const schemas = new Schemas(schemaDocs)
  const main = lexicons.getDefOrThrow('lex:zone.stratos.feed.post')
  if (main.type !== 'record') throw new Error('a post is a record')
  const check = closedCheck(main.record, (ref) => {
    const definition = lexicons.getDef(ref)
    return definition?.type === 'object' ? definition : undefined
  })
  const bytes = (length: number) => ({
    $bytes: Buffer.alloc(length, 7).toBase64({ omitPadding: true }),
  })
  const names = fc.constantFrom('did:web:a.test/b', '', 'x'.repeat(85), 'x'.repeat(254), 7, null)
  const domain = fc.record({ value: names, $type: fc.constant('any.type') }, { requiredKeys: [] })
  const boundary = fc.record(
    { values: fc.array(fc.oneof(domain, value), { maxLength: 12 }), $type: fc.constant('a.b.c') },
    { requiredKeys: [] },
  )
  const parts = {
    text: fc.oneof(fc.constantFrom('x', 'x'.repeat(300), 'x'.repeat(301), '\u{1f468}'), value),
    createdAt: fc.constantFrom('2026-11-01T10:00:00.000Z', '2026-11-01T10:00:00Z', '2026-11-01', 7),
    boundary: fc.oneof({ weight: 5, arbitrary: boundary }, value),
    salt: fc.oneof(fc.constantFrom(bytes(16), bytes(32), bytes(33), { $bytes: '!' }), value),
    langs: fc.array(fc.constantFrom('en', 'de-AT', 'x', '', 'en_US', 'i-navajo'), { maxLength: 4 }),
    tags: fc.array(fc.constantFrom('a', 'x'.repeat(64), 'x'.repeat(65)), { maxLength: 9 }),
    reply: value,
    embed: value,
    labels: value,
    facets: fc.array(value, { maxLength: 1 }),
    other: value,
  }
  const members = Object.entries(parts).map(([name, part]) =>
    part.map((one: unknown) => [name, one] as const),
  )
  const over = fc.array(fc.oneof(...members), { maxLength: 3 })
  let accepted = 0
  fc.assert(
    fc.property(over, (given) => {
      const present = given.filter(([, member]) => member !== undefined)
      const record = { ...post(), ...Object.fromEntries(present), $type: postType }
      if (check?.(record) !== true || !isData(record)) return
      accepted += 1
      const strictly = { definition: main, value: record, path: '' }
      expect(() => checkStrictly(lexicons, strictly)).not.toThrow()
      expect(() => lexicons.assertValidRecord(record.$type, jsonToLex(record))).not.toThrow()
      expect<object>(schemas.checkRecord(record.$type, record)).toBe(record)
    }),
    { numRuns: 20_000 },
  )
  expect(accepted).toBeGreaterThan(1_000)
})

function isData(value: unknown): boolean {
  try {
    checkData(value)
    return true
  } catch {
    return false
  }
}

test('of what it does not know in full it is never sure', () => {
  const lexicon = (property: object) => ({
    properties: { one: Object.assign({ type: 'string' as const }, property) },
  })
  expect(memberCheck(lexicon({}))?.({ one: 'a' })).toBeTrue()
  const unknown = [{ enum: ['a'] }, { const: 'a' }, { minLength: 1 }, { knownValues: ['a'] }]
  for (const property of [...unknown, { format: 'uri' }, { format: 'new-one' }]) {
    const check = memberCheck(lexicon(property))
    expect([property, check?.({}), check?.({ one: 'a' })]).toEqual([property, true, false])
    expect(memberCheck({ ...lexicon(property), required: ['one'] })).toBeUndefined()
  }
  expect(memberCheck({ properties: {}, required: ['one'] })).toBeUndefined()
  expect(memberCheck({ properties: {}, nullable: ['one'] })).toBeUndefined()
  const any = { properties: { one: { type: 'unknown' as const } } }
  expect(memberCheck(any)?.({ one: {} })).toBeFalse()
  expect(memberCheck({ ...any, required: ['one'] })).toBeUndefined()
})

test('a definition that refers to itself is refused, not followed for ever', () => {
  const one: LexObject = {
    type: 'object',
    properties: { next: { type: 'ref', ref: 'lex:one' }, name: { type: 'string' } },
  }
  const check = closedCheck(one, () => one)
  expect(check?.({ name: 'a', next: { name: 'b' } })).toBeTrue()
  expect(check?.({ next: { next: { name: 'c' } } })).toBeFalse()
})
