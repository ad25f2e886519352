import { describe, expect, test } from 'bun:test'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { decode } from '../../src/atproto/cbor.ts'
import { type DataObject, isDataObject } from '../../src/atproto/data.ts'
import { parseNsid } from '../../src/atproto/syntax.ts'
import { checkCollection, encodeRecord } from '../../src/service/record.ts'
import type { Targets } from '../../src/service/targets.ts'
import { bytes } from '../atproto/lexicon-samples.ts'
import {
  a,
  b,
  boundary,
  c,
  collection,
  createdAt,
  post,
  postUri,
  quoteOf,
  quoteWithMedia,
  refusalOf,
  replyTo,
  rules,
  schemas,
} from './posts.ts'

const [seen, hidden] = [postUri('seen'), postUri('hidden')]
const targets: Targets = { [seen]: [a] }
const oldBlob = { cid: replyTo(seen).root.cid, mimeType: 'image/png' }

function encoded(record: unknown, boundaries: readonly string[] = [a, b]) {
  return encodeRecord(collection, record, { rules, schemas, facts: { boundaries, targets } })
}

function stored(record: unknown): DataObject {
  const value = decode(encoded(record).content)
  if (!isDataObject(value)) throw new Error('a record is a map')
  return value
}

describe('refused by the first rule that is broken', () => {
  const source = {
    vary: 'authenticated',
    subject: replyTo(seen).root,
    service: 'did:web:stratos.test#atproto_pns',
  }
  const cases: [string, unknown, string][] = [
    ['no object', 'text', 'InvalidRecord'],
    ['null', null, 'InvalidRecord'],
    ['a list', [post()], 'InvalidRecord'],
    ['another $type', post({ $type: 'app.bsky.feed.post' }), 'InvalidRecord'],
    ['a $type of another spelling', post({ $type: `${collection}#main` }), 'InvalidRecord'],
    ['a $type of null', post({ $type: null }), 'InvalidRecord'],
    ['a stub', { $type: collection, source, createdAt }, 'InvalidRecord'],
    ['a source', post({ source }), 'InvalidRecord'],
    ['a source that is null', post({ source: null, boundary: undefined }), 'InvalidRecord'],
    ['no boundary and no text', post({ boundary: undefined, text: undefined }), 'MissingBoundary'],
    [
      'a foreign boundary and no text',
      post({ boundary: boundary('x'), text: 1 }),
      'ServiceMismatch',
    ],
    [
      "another's boundary and no text",
      post({ boundary: boundary(c), text: 1 }),
      'ForbiddenBoundary',
    ],
    ['no text', post({ text: undefined }), 'InvalidRecord'],
    ['a float', post({ extra: 1.5 }), 'InvalidRecord'],
    ['a salt too long', post({ salt: bytes(33) }), 'InvalidRecord'],
    ['a salt that is a text', post({ salt: 'sixteen bytes???' }), 'InvalidRecord'],
    ['no text, answering the hidden', post({ text: 1, reply: replyTo(hidden) }), 'InvalidRecord'],
    ['answering the hidden', post({ reply: replyTo(hidden) }), 'CrossNamespaceReply'],
    ['quoting the hidden', post({ embed: quoteOf(hidden) }), 'CrossNamespaceEmbed'],
    ['quoting it behind a decoy', post({ embed: quoteBehindDecoy() }), 'CrossNamespaceEmbed'],
    ['quoting it with media', post({ embed: quoteWithMedia(hidden) }), 'CrossNamespaceEmbed'],
    [
      'answering more people than were asked',
      post({ boundary: boundary(a, b), reply: replyTo(seen) }),
      'ReplyBoundaryEscalation',
    ],
    ['a blob of long ago', post({ extra: oldBlob }), 'InvalidRecord'],
    ['256 KiB', post({ extra: 'x'.repeat(256 * 1024) }), 'RecordTooLarge'],
    ['a member __proto__', JSON.parse(`{"extra": {"__proto__": {}}, ${rest()}}`), 'InvalidRecord'],
  ]
  test.each(cases)('%s', (_, record, name) => {
    expect(refusalOf(() => encoded(record))).toBe(name)
  })

  test('a record is as large as it may be', () => {
    const empty = encoded(post({ extra: '', salt: bytes(16) })).content.length
    // The length of a long text takes four bytes more than that of none.
    const room = 256 * 1024 - empty - 4
    const full = post({ extra: 'x'.repeat(room), salt: bytes(16) })
    expect(encoded(full).content).toHaveLength(256 * 1024)
    const over = post({ extra: 'x'.repeat(room + 1), salt: bytes(16) })
    expect(refusalOf(() => encoded(over))).toBe('RecordTooLarge')
  })
})

test('only collections of private records are taken', () => {
  for (const name of ['zone.stratos.actor.enrollment', 'app.bsky.feed.post', `${collection}s`]) {
    expect(refusalOf(() => checkCollection(parseNsid(name), rules))).toBe('InvalidCollection')
  }
  expect(refusalOf(() => checkCollection(collection, rules))).toBe('accepted')
})

test('a record without $type gets that of its collection', () => {
  const { $type: _, ...untyped } = post()
  expect(stored(untyped)).toMatchObject(post())
})

test('a record without salt gets sixteen random bytes', () => {
  const salts = [stored(post()), stored(post())].map(({ salt }) => saltOf(salt))
  expect(salts.map(({ length }) => length)).toEqual([16, 16])
  expect(salts[0]).not.toEqual(salts[1])
  expect(encoded(post()).cid).not.toBe(encoded(post()).cid)
})

test('a salt that is there stays as it is', () => {
  for (const length of [0, 1, 16, 32]) {
    const { cid, content } = encoded(post({ salt: bytes(length) }))
    expect(stored(post({ salt: bytes(length) }))['salt']).toEqual(bytes(length))
    expect(encoded(post({ salt: bytes(length) })).cid).toBe(cid)
    expect(cidToString(cidForCbor(content))).toBe(cid)
  }
})

test('nothing but $type and salt is added, and nothing taken away', () => {
  const record = post({ langs: ['en'], extra: { deep: [1, null, true] }, reply: replyTo(seen) })
  const { salt: _, ...others } = stored(record)
  expect<object>(others).toEqual(record)
})

test('what is encoded tells its boundaries and its time', () => {
  const record = post({ boundary: boundary(b, a) })
  expect(encoded(record)).toMatchObject({ boundaries: [b, a], createdAt })
})

test('the record that came in is left as it was', () => {
  const { $type: _, ...record } = post()
  encoded(Object.freeze(record))
  expect(record).toEqual({ text: 'hello', boundary: boundary(a), createdAt })
})

function saltOf(value: unknown): Uint8Array {
  const text: unknown = typeof value === 'object' && value ? Reflect.get(value, '$bytes') : null
  if (typeof text !== 'string') throw new Error('a salt is bytes')
  return Uint8Array.fromBase64(text)
}

/** A quote of the hidden with a visible one inside, where no lexicon looks. */
function quoteBehindDecoy() {
  return { ...quoteOf(hidden), record: { ...replyTo(hidden).root, record: replyTo(seen).root } }
}

/** A good post, as the members of a JSON object. */
function rest(): string {
  return JSON.stringify(post()).slice(1, -1)
}
