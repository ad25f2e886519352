import {
  type LexArray,
  type LexBlob,
  type LexObject,
  type LexRefUnion,
  type LexRefVariant,
  type LexUserType,
  type Lexicons,
  ValidationError,
} from '@atproto/lexicon'
import { isDatetimeString } from '@atproto/syntax'
import { unreachable } from '../lib/assert.ts'
import { isNsid } from './syntax.ts'

/** A definition as it stands in a document, in a property, in the items of an array, in a body. */
export type Definition =
  | LexUserType
  | LexObject['properties'][string]
  | LexArray['items']
  | LexRefVariant

/**
 * Refuses what the lexicon package lets pass and the specification does not:
 *
 * - a `$type` spelled `lex:a.b.c` or `a.b.c#main`, which the package takes for `a.b.c`: whoever
 *   looks for quoted records by the one right spelling would walk past it;
 * - a blob of a type or size that its lexicon does not accept, or in the form of long ago;
 * - an array, a link, bytes or a blob where an object belongs;
 * - a datetime without time or zone.
 *
 * `value` is AT Protocol JSON. Of its shape nothing is assumed: where it is wrong in a way that the
 * package notices, this says nothing.
 *
 * @throws ValidationError of the package, whose message opens with the path
 * @see https://atproto.com/specs/lexicon
 */
export function checkStrictly(
  lexicons: Lexicons,
  { definition, value, path }: { definition: Definition; value: unknown; path: string },
): void {
  new Check(lexicons).any(definition, value, path)
}

class Check {
  readonly #lexicons: Lexicons

  constructor(lexicons: Lexicons) {
    this.#lexicons = lexicons
  }

  any(definition: Definition, value: unknown, path: string): void {
    if (value === undefined || value === null) return
    switch (definition.type) {
      case 'record':
        this.#object(definition.record, value, path)
        return
      case 'object':
        this.#object(definition, value, path)
        return
      case 'array':
        this.#array(definition, value, path)
        return
      case 'ref':
        this.any(this.#lexicons.getDefOrThrow(definition.ref), value, path)
        return
      case 'union':
        this.#union(definition, value, path)
        return
      case 'unknown':
        checkObject(value, path)
        return
      case 'blob':
        checkBlob(definition, value, path)
        return
      case 'string':
        if (definition.format === 'datetime') checkDatetime(value, path)
        return
      case 'boolean':
      case 'integer':
      case 'bytes':
      case 'cid-link':
      case 'token':
      case 'query':
      case 'procedure':
      case 'subscription':
      case 'permission-set':
        return
      default:
        unreachable(definition)
    }
  }

  #object({ properties }: LexObject, value: unknown, path: string): void {
    checkObject(value, path)
    for (const name in properties) {
      const member = value[name]
      const definition = properties[name]
      if (member === undefined || definition === undefined) continue
      this.any(definition, member, `${path}/${name}`)
    }
  }

  #array({ items }: LexArray, value: unknown, path: string): void {
    if (!Array.isArray(value)) return
    for (let index = 0; index < value.length; index++) {
      this.any(items, value[index], `${path}/${index}`)
    }
  }

  #union({ refs }: LexRefUnion, value: unknown, path: string): void {
    checkObject(value, path)
    const { $type: type } = value
    if (typeof type !== 'string') return
    if (!isTypeName(type)) {
      throw new ValidationError(`${path}/$type must be an NSID, or one and the name of a part`)
    }
    const uri = `lex:${type}`
    if (!refs.includes(uri) && !refs.includes(`${uri}#main`)) return
    this.any(this.#lexicons.getDefOrThrow(uri), value, path)
  }
}

/** `a.b.c` or `a.b.c#part`; the main part of a document goes by the first alone. */
function isTypeName(type: string): boolean {
  const hash = type.indexOf('#')
  return hash < 0 ? isNsid(type) : isNsid(type.slice(0, hash)) && isPart(type.slice(hash + 1))
}

function isPart(name: string): boolean {
  return name !== 'main' && /^[A-Za-z][A-Za-z0-9]*$/.test(name)
}

function checkObject(
  value: unknown,
  path: string,
): asserts value is Readonly<Record<string, unknown>> {
  if (!isObject(value) || '$link' in value || '$bytes' in value || value['$type'] === 'blob') {
    throw new ValidationError(`${path} must be an object`)
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function checkBlob({ accept, maxSize }: LexBlob, value: unknown, path: string): void {
  if (!isObject(value) || value['$type'] !== 'blob') {
    throw new ValidationError(`${path} must be a blob`)
  }
  const { mimeType, size } = value
  if (typeof mimeType !== 'string' || typeof size !== 'number') return
  if (accept !== undefined && !accept.some((pattern) => isOfType(mimeType, pattern))) {
    throw new ValidationError(`${path} must be of type ${accept.join(' or ')}`)
  }
  if (maxSize !== undefined && size > maxSize) {
    throw new ValidationError(`${path} must not be larger than ${maxSize} bytes`)
  }
}

/** A pattern is one media type, all below one main type, or all there are. */
function isOfType(mimeType: string, pattern: string): boolean {
  if (pattern === '*/*') return true
  return pattern.endsWith('/*') ? mimeType.startsWith(pattern.slice(0, -1)) : mimeType === pattern
}

function checkDatetime(value: unknown, path: string): void {
  if (typeof value === 'string' && !isDatetimeString(value)) {
    throw new ValidationError(
      `${path} must be a datetime with time and zone, as RFC 3339 writes it`,
    )
  }
}
