import type { LexArray, LexBytes, LexInteger, LexObject, LexString } from '@atproto/lexicon'
import {
  isAtIdentifierString,
  isDatetimeString,
  isValidDid,
  isValidHandle,
  isValidNsid,
  isValidRecordKey,
  isValidTid,
} from '@atproto/syntax'
import { unreachable } from '../lib/assert.ts'
import { isCid } from './cid.ts'
import { recordPlace } from './syntax.ts'

type Property = LexObject['properties'][string]
type Members = Readonly<Record<string, unknown>>

/** True where a value is right beyond doubt; false says nothing. */
type Accept = (value: unknown) => boolean

/** The object that a reference names; undefined where it names something else. */
export type ObjectOf = (ref: string) => LexObject | undefined

/**
 * A check of the members of an object, made from its lexicon once, for what comes by the thousand.
 * It knows plain kinds of members and fills in no defaults: what it accepts needs no change. Of all
 * else, and of every refusal, the lexicon package has the word.
 * @returns undefined where it could never be sure
 */
export function memberCheck(
  object: {
    readonly required?: readonly string[] | undefined
    readonly nullable?: readonly string[] | undefined
    readonly properties: Readonly<Record<string, Property>>
  },
  objectOf: ObjectOf = () => undefined,
): ((members: Members) => boolean) | undefined {
  const { required = [], nullable = [], properties } = object
  if (nullable.length > 0 || required.some((name) => !Object.hasOwn(properties, name))) {
    return undefined
  }
  const checks: { readonly name: string; readonly accept: Accept; readonly mayLack: boolean }[] = []
  for (const [name, property] of Object.entries(properties)) {
    const mayLack = !required.includes(name) && !('default' in property)
    const accept = acceptOf(property, objectOf)
    if (accept === undefined && !mayLack) return undefined
    // What is not understood is right where it is not there.
    checks.push({ name, accept: accept ?? (() => false), mayLack })
  }
  return (members) => {
    for (const { name, accept, mayLack } of checks) {
      const value = members[name]
      if (value === undefined ? !mayLack : !accept(value)) return false
    }
    return true
  }
}

/** The same, of objects that have no further members: those of a record may be anything. */
export function closedCheck(
  object: LexObject,
  objectOf: ObjectOf,
): ((members: Members) => boolean) | undefined {
  const check = memberCheck(object, objectOf)
  if (check === undefined) return undefined
  const names = new Set(Object.keys(object.properties)).add('$type')
  return (members) => {
    for (const name in members) if (!names.has(name)) return false
    return check(members)
  }
}

function acceptOf(property: Property, objectOf: ObjectOf): Accept | undefined {
  switch (property.type) {
    case 'string':
      return knows(property, ['format', 'maxLength', 'maxGraphemes'])
        ? acceptString(property)
        : undefined
    case 'integer':
      return knows(property, ['minimum', 'maximum']) ? acceptInteger(property) : undefined
    case 'boolean':
      return knows(property, []) ? (value) => typeof value === 'boolean' : undefined
    case 'array':
      return knows(property, ['items', 'minLength', 'maxLength'])
        ? acceptArray(property, objectOf)
        : undefined
    case 'bytes':
      return knows(property, ['maxLength']) ? acceptBytes(property) : undefined
    case 'ref':
      return knows(property, ['ref']) ? acceptObject(property.ref, objectOf) : undefined
    case 'blob':
    case 'cid-link':
    case 'union':
    case 'unknown':
      return undefined
    default:
      return unreachable(property)
  }
}

/** Whether a definition says nothing but what is understood here. */
function knows(definition: object, names: readonly string[]): boolean {
  const understood = ['type', 'description', 'default', ...names]
  return Object.keys(definition).every((name) => understood.includes(name))
}

/** The checks are the package's own, or narrower. */
const formats: Readonly<Partial<Record<string, (text: string) => boolean>>> = {
  did: isValidDid,
  handle: isValidHandle,
  nsid: isValidNsid,
  tid: isValidTid,
  cid: isCid,
  'at-identifier': isAtIdentifierString,
  'at-uri': (text) => recordPlace(text) !== undefined,
  'record-key': isValidRecordKey,
  datetime: isDatetimeString,
  language: (text) => /^[a-z]{2,3}(-[A-Z]{2})?$/.test(text),
}

function acceptString({
  format,
  maxLength = Infinity,
  maxGraphemes = Infinity,
}: LexString): Accept | undefined {
  const fits = format === undefined ? () => true : formats[format]
  if (fits === undefined) return undefined
  // A character has three bytes at most in UTF-8, and no grapheme is less than one of them.
  const charsMax = Math.min(maxLength / 3, maxGraphemes)
  return (value) => typeof value === 'string' && value.length <= charsMax && fits(value)
}

/** Known to be bytes in their JSON form: that they are good data was checked before. */
function acceptBytes({ maxLength = Infinity }: LexBytes): Accept {
  return (value) => {
    const text: unknown = isObject(value) ? value['$bytes'] : undefined
    return typeof text === 'string' && text.length * 3 <= maxLength * 4
  }
}

/** One that says no type of its own, and is nothing else that JSON writes as an object. */
function acceptObject(ref: string, objectOf: ObjectOf): Accept | undefined {
  const object = objectOf(ref)
  // A definition that refers to itself would never come to an end.
  const check = object === undefined ? undefined : closedCheck(object, flatOf(objectOf, ref))
  if (check === undefined) return undefined
  return (value) => {
    if (!isObject(value) || '$type' in value || '$link' in value || '$bytes' in value) return false
    return check(value)
  }
}

function flatOf(objectOf: ObjectOf, seen: string): ObjectOf {
  return (ref) => (ref === seen ? undefined : objectOf(ref))
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function acceptInteger({ minimum = -Infinity, maximum = Infinity }: LexInteger): Accept {
  return (value) => Number.isInteger(value) && Number(value) >= minimum && Number(value) <= maximum
}

function acceptArray(
  { items, minLength = 0, maxLength = Infinity }: LexArray,
  objectOf: ObjectOf,
): Accept | undefined {
  const accept = acceptOf(items, objectOf)
  if (accept === undefined) return undefined
  return (value) => {
    if (!Array.isArray(value)) return false
    return value.length >= minLength && value.length <= maxLength && value.every(accept)
  }
}
