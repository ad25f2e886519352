import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Answer, fieldsOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const missing: Refusal = [400, 'MissingBoundary']
const misshapen: Refusal = [400, 'InvalidRecord']
const foreign: Refusal = [400, 'ServiceMismatch']
const unknown: Refusal = [400, 'ForbiddenDomain']
const notOwn: Refusal = [400, 'ForbiddenBoundary']
const domains = 'zone.stratos.boundary.defs#Domains'
const domain = 'zone.stratos.boundary.defs#Domain'

let stratos: SeededStratos

beforeAll(async () => {
  // Alice is in a and b, and the service has c, too.
  stratos = await SeededStratos.start({ people: { alice: ['a', 'b'], dave: [] } })
})
afterAll(async () => {
  await stratos?.stop()
})

/** The qualified name, by its bare one. */
type Qualify = (bare: string) => string
const values = (...names: readonly unknown[]) => ({ values: names.map((value) => ({ value })) })

const bad: Record<string, [(q: Qualify) => unknown, Refusal]> = {
  'is absent': [() => undefined, missing],
  'is an empty object': [() => ({}), missing],
  'has an empty list': [() => ({ values: [] }), missing],
  'is null': [() => null, misshapen],
  'is a text': [(q) => q('a'), misshapen],
  'is a list': [(q) => [{ value: q('a') }], misshapen],
  'is a list of texts': [(q) => [q('a')], misshapen],
  'has null for a list': [() => ({ values: null }), misshapen],
  'has an object for a list': [(q) => ({ values: { 0: { value: q('a') } } }), misshapen],
  'has a text for a list': [(q) => ({ values: q('a') }), misshapen],
  'lists texts': [(q) => ({ values: [q('a')] }), misshapen],
  'lists null': [() => ({ values: [null] }), misshapen],
  'lists lists': [(q) => ({ values: [[{ value: q('a') }]] }), misshapen],
  'lists an object without a value': [() => ({ values: [{}] }), misshapen],
  'lists null for a value': [() => values(null), misshapen],
  'lists a number for a value': [() => values(1), misshapen],
  'lists a list for a value': [(q) => values([q('a')]), misshapen],
  'is of another type': [(q) => ({ $type: domain, ...values(q('a')) }), misshapen],
  'is of the type null': [(q) => ({ $type: null, ...values(q('a')) }), misshapen],
  'is of a type in another spelling': [
    (q) => ({ $type: `lex:${domains}`, ...values(q('a')) }),
    misshapen,
  ],
  'lists another type': [(q) => ({ values: [{ $type: domains, value: q('a') }] }), misshapen],
  'names a boundary twice': [(q) => values(q('a'), q('a')), misshapen],
  'names a boundary twice, apart': [(q) => values(q('a'), q('b'), q('a')), misshapen],
  'names eleven': [(q) => values(...'abcdefghijk'.split('').map(q)), misshapen],
  'names eleven times the same': [(q) => values(...Array<string>(11).fill(q('a'))), misshapen],
  'names one that is too long': [(q) => values(q('x'.repeat(254))), misshapen],
  'names the empty text': [() => values(''), foreign],
  'names a bare name': [() => values('a'), foreign],
  'names a bare name beside a good one': [(q) => values(q('a'), 'b'), foreign],
  'names the service alone': [() => values(stratos.did), foreign],
  'names the service with its fragment': [() => values(`${stratos.did}#atproto_pns/a`), foreign],
  'names one of another service': [() => values('did:web:other.example.com/a'), foreign],
  'names one of a service whose DID begins like ours': [() => values(`${stratos.did}0/a`), foreign],
  'names one of the service in capitals': [(q) => values(q('a').toUpperCase()), foreign],
  'names one with a space before it': [(q) => values(` ${q('a')}`), foreign],
  'names one that the service lacks': [(q) => values(q('z')), unknown],
  'names one that the service lacks, beside a good one': [(q) => values(q('a'), q('z')), unknown],
  'names nothing after the service': [(q) => values(q('')), unknown],
  'names one with more after it': [(q) => values(q('a/b')), unknown],
  'names one in capitals': [(q) => values(q('A')), unknown],
  'names one with a space after it': [(q) => values(q('a ')), unknown],
  'names one that every object has': [(q) => values(q('__proto__')), unknown],
  'names one that the author is not in': [(q) => values(q('c')), notOwn],
  'names one that the author is not in, beside a good one': [(q) => values(q('a'), q('c')), notOwn],
}

describe('a record is refused whose boundary', () => {
  test.each(Object.entries(bad))('%s', async (_, [boundary, refusal]) => {
    const made = boundary((bare) => stratos.boundary(bare))
    for (const more of [{}, { validate: false }]) {
      await expectNoChange(stratos, refusal, () => write('alice', made, more))
    }
  })

  test('is one that the author was in', async () => {
    const made = values(stratos.boundary('b'))
    expect(await write('alice', made)).toMatchObject({ status: 200 })
    await stratos.setBoundaries('alice', ['a'])
    await expectNoChange(stratos, notOwn, () => write('alice', made))
    await stratos.setBoundaries('alice', ['a', 'b'])
    expect(await write('alice', made)).toMatchObject({ status: 200 })
  })

  test('is any, when the author is in none', async () => {
    const made = values(stratos.boundary('a'))
    await expectNoChange(stratos, notOwn, () => write('dave', made))
  })

  test('and the refusal names nothing that the record did not', async () => {
    for (const made of [values('did:web:other.example.com/a'), values(stratos.boundary('c'))]) {
      const message = textOf((await write('alice', made)).body, 'message')
      expect(message).not.toContain(stratos.boundary('a'))
      expect(message).not.toContain(stratos.boundary('b'))
    }
  })
})

test('a record keeps its boundaries as they were written, types too', async () => {
  const a = stratos.boundary('a')
  const b = stratos.boundary('b')
  const forms = [
    values(a),
    values(b, a),
    { $type: domains, ...values(a, b) },
    { $type: domains, values: [{ $type: domain, value: b }] },
  ]
  for (const boundary of forms) {
    const { status, body } = await write('alice', boundary)
    expect(status).toBe(200)
    const params = addressOf(textOf(body, 'uri'))
    const read = await stratos.callAs('alice', 'zone.stratos.repo.getRecord', { params })
    expect(fieldsOf(read.body, 'value')['boundary']).toEqual(boundary)
  }
})

describe('the operator cannot set', () => {
  const nsid = 'zone.stratos.admin.setBoundaries'
  const invalid: Refusal = [400, 'InvalidRequest']

  test.each<[string, (q: Qualify) => unknown, Refusal]>([
    ['one that the service lacks', (q) => [q('a'), q('z')], invalid],
    ['a bare name', () => ['a'], invalid],
    ['one of another service', () => ['did:web:other.example.com/a'], invalid],
    ['objects', (q) => [{ value: q('a') }], invalid],
    ['a text', (q) => q('a'), invalid],
    ['nothing at all', () => undefined, invalid],
    ['more than fifty', (q) => Array<string>(51).fill(q('a')), invalid],
  ])('%s', async (_, boundaries, refusal) => {
    const { did } = stratos.person('alice')
    const input = { did, boundaries: boundaries((bare) => stratos.boundary(bare)) }
    const call = { input, authorization: stratos.adminBasic }
    const before = await stratos.boundariesOf('alice')
    await expectNoChange(stratos, refusal, () => stratos.call(nsid, call))
    expect(await stratos.boundariesOf('alice')).toEqual(before)
  })

  test('any for somebody who is not enrolled', async () => {
    const { did } = stratos.person('stranger')
    const input = { did, boundaries: [stratos.boundary('a')] }
    const call = { input, authorization: stratos.adminBasic }
    await expectNoChange(stratos, [404, 'NotEnrolled'], () => stratos.call(nsid, call))
  })

  test('the same one twice: it is set once', async () => {
    const { did } = stratos.person('dave')
    const b = stratos.boundary('b')
    const call = { input: { did, boundaries: [b, b] }, authorization: stratos.adminBasic }
    expect(await stratos.call(nsid, call)).toMatchObject({ status: 200, body: { boundaries: [b] } })
  })
})

function write(name: string, boundary: unknown, more: object = {}): Promise<Answer> {
  const { did } = stratos.person(name)
  const record = { ...privatePost('a post', []), boundary }
  return stratos.callAs(name, 'zone.stratos.repo.createRecord', {
    input: { repo: did, collection: postCollection, record, ...more },
  })
}
