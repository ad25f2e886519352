import { describe, expect, test } from 'bun:test'
import { boundaryCharsMax, boundaryNames, checkBoundaries } from '../../src/service/boundary.ts'
import { a, b, boundary, c, refusalOf, serviceDid } from './posts.ts'

const rules = { serviceDid, allowed: [a, b], own: [a, c] }
const foreign = 'did:web:other.test/a'
const long = `${serviceDid}/${'x'.repeat(boundaryCharsMax - serviceDid.length - 1)}`

describe('refused by the first rule that is broken', () => {
  const cases: [string, unknown, string][] = [
    ['no boundary', undefined, 'MissingBoundary'],
    ['no values', {}, 'MissingBoundary'],
    ['an empty list', boundary(), 'MissingBoundary'],
    ['null', null, 'InvalidRecord'],
    ['a text', a, 'InvalidRecord'],
    ['a list', [a], 'InvalidRecord'],
    ['values that are no list', { values: { value: a } }, 'InvalidRecord'],
    ['another $type', { ...boundary(a), $type: 'com.example.other' }, 'InvalidRecord'],
    ['a value that is a text', { values: [a] }, 'InvalidRecord'],
    ['a value without a value', { values: [{}] }, 'InvalidRecord'],
    ['a value that is null', { values: [null] }, 'InvalidRecord'],
    ['another $type of a value', { values: [{ value: a, $type: 'x' }] }, 'InvalidRecord'],
    ['a number', boundary(1), 'InvalidRecord'],
    ['eleven', boundary(...Array.from({ length: 11 }, (_, i) => `${a}${i}`)), 'InvalidRecord'],
    ['one twice', boundary(a, a), 'InvalidRecord'],
    ['a name too long', boundary(`${long}x`), 'InvalidRecord'],
    ['a name too long of another service', boundary(foreign.padEnd(254, 'x')), 'InvalidRecord'],
    ['a bare name', boundary('a'), 'ServiceMismatch'],
    ['an empty name', boundary(''), 'ServiceMismatch'],
    ['the service without a name', boundary(serviceDid), 'ServiceMismatch'],
    ['another service', boundary(foreign), 'ServiceMismatch'],
    ['a service of a longer name', boundary(`${serviceDid}.evil.test/a`), 'ServiceMismatch'],
    ['another service behind a good one', boundary(a, foreign), 'ServiceMismatch'],
    ['another service behind an unknown one', boundary(`${a}x`, foreign), 'ServiceMismatch'],
    ['an unknown name', boundary(`${a}x`), 'ForbiddenDomain'],
    ['a name of the longest length', boundary(long), 'ForbiddenDomain'],
    ['an empty bare name', boundary(`${serviceDid}/`), 'ForbiddenDomain'],
    ['another spelling', boundary(`${serviceDid}/A`), 'ForbiddenDomain'],
    ["the author's, which the service lacks", boundary(c), 'ForbiddenDomain'],
    ['an unknown one behind a foreign member’s', boundary(b, `${a}x`), 'ForbiddenDomain'],
    ['one that the author is not in', boundary(b), 'ForbiddenBoundary'],
    ['one that the author is not in, behind a good one', boundary(a, b), 'ForbiddenBoundary'],
  ]
  test.each(cases)('%s', (_, value, name) => {
    expect(refusalOf(() => checkBoundaries(value, rules))).toBe(name)
  })
})

test('what passes comes back in its own order', () => {
  const all = { serviceDid, allowed: [a, b, c], own: [a, b, c] }
  expect(checkBoundaries(boundary(c, a, b), all)).toEqual([c, a, b])
  const typed = {
    $type: 'zone.stratos.boundary.defs#Domains',
    values: [{ $type: 'zone.stratos.boundary.defs#Domain', value: a }],
  }
  expect(checkBoundaries(typed, all)).toEqual([a])
})

test('names of a stored record are read without asking who may use them', () => {
  expect(boundaryNames(boundary(foreign, 'bare'))).toEqual([foreign, 'bare'])
})
