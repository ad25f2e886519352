import type { LexArray, LexInteger, LexObject, LexString } from '@atproto/lexicon'
import {
  isAtIdentifierString,
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

/**
 * A check of the members of an object, made from its lexicon once, for calls that come by the
 * thousand. It knows plain kinds of members and fills in no defaults: what it accepts needs no
 * change. Of all else, and of every refusal, the lexicon package has the word.
 * @returns undefined where it could never be sure
 */
export function memberCheck(object: {
  readonly required?: readonly string[] | undefined
  readonly nullable?: readonly string[] | undefined
  readonly properties: Readonly<Record<string, Property>>
}): ((members: Members) => boolean) | undefined {
  const { required = [], nullable = [], properties } = object
  if (nullable.length > 0 || required.some((name) => !Object.hasOwn(properties, name))) {
    return undefined
  }
  const checks: { readonly name: string; readonly accept: Accept; readonly mayLack: boolean }[] = []
  for (const [name, property] of Object.entries(properties)) {
    const accept = acceptOf(property)
    if (accept === undefined) return undefined
    checks.push({ name, accept, mayLack: !required.includes(name) && !('default' in property) })
  }
  return (members) => {
    for (const { name, accept, mayLack } of checks) {
      const value = members[name]
      if (value === undefined ? !mayLack : !accept(value)) return false
    }
    return true
  }
}

function acceptOf(property: Property): Accept | undefined {
  switch (property.type) {
    case 'string':
      return knows(property, ['format', 'maxLength']) ? acceptString(property) : undefined
    case 'integer':
      return knows(property, ['minimum', 'maximum']) ? acceptInteger(property) : undefined
    case 'boolean':
      return knows(property, []) ? (value) => typeof value === 'boolean' : undefined
    case 'array':
      return knows(property, ['items', 'minLength', 'maxLength'])
        ? acceptArray(property)
        : undefined
    case 'blob':
    case 'bytes':
    case 'cid-link':
    case 'ref':
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
}

function acceptString({ format, maxLength = Infinity }: LexString): Accept | undefined {
  const fits = format === undefined ? () => true : formats[format]
  if (fits === undefined) return undefined
  // A character has three bytes at most in UTF-8.
  return (value) => typeof value === 'string' && value.length * 3 <= maxLength && fits(value)
}

function acceptInteger({ minimum = -Infinity, maximum = Infinity }: LexInteger): Accept {
  return (value) => Number.isInteger(value) && Number(value) >= minimum && Number(value) <= maximum
}

function acceptArray({ items, minLength = 0, maxLength = Infinity }: LexArray): Accept | undefined {
  const accept = acceptOf(items)
  if (accept === undefined) return undefined
  return (value) => {
    if (!Array.isArray(value)) return false
    return value.length >= minLength && value.length <= maxLength && value.every(accept)
  }
}
