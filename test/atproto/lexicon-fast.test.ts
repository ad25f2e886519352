import { expect, test } from 'bun:test'
import { Lexicons } from '@atproto/lexicon'
import fc from 'fast-check'
import { memberCheck } from '../../src/atproto/lexicon-fast.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'

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

test('of what it does not know in full it is never sure', () => {
  const lexicon = (property: object) =>
    memberCheck({ properties: { one: Object.assign({ type: 'string' as const }, property) } })
  expect(lexicon({})).toBeDefined()
  for (const unknown of [{ maxGraphemes: 1 }, { enum: ['a'] }, { const: 'a' }, { minLength: 1 }]) {
    expect(lexicon(unknown)).toBeUndefined()
  }
  for (const format of ['datetime', 'uri', 'language', 'new-one']) {
    expect(lexicon({ format })).toBeUndefined()
  }
  expect(memberCheck({ properties: {}, required: ['one'] })).toBeUndefined()
  expect(memberCheck({ properties: {}, nullable: ['one'] })).toBeUndefined()
  expect(memberCheck({ properties: { one: { type: 'unknown' } } })).toBeUndefined()
})
