import { isCid, isRawCid } from './cid.ts'

/**
 * A value of the AT Protocol data model in its JSON form: links are `{"$link": cid}`, bytes are
 * `{"$bytes": base64}`, numbers are safe integers.
 * @see https://atproto.com/specs/data-model
 */
export type DataValue = null | boolean | number | string | readonly DataValue[] | DataObject
export interface DataObject {
  readonly [key: string]: DataValue
}

/** Deep enough for any lexicon, and far from the end of the stack. */
export const dataDepthMax = 32
/** A record of 256 KiB with text in it stays well below. */
export const dataValuesMax = 20_000

/**
 * Passes what can be encoded and comes back the same. `-0` passes and is encoded as 0.
 * @throws DataError whose message names the place, as in `$.embed.images[3].alt`
 */
export function checkData(value: unknown): asserts value is DataValue {
  new Walk().value(value, 0)
}

/** `checkData` of what must be an object: a record, not a link, bytes or a blob. */
export function checkDataObject(value: unknown): asserts value is DataObject {
  checkData(value)
  if (!isObject(value) || '$link' in value || '$bytes' in value || value['$type'] === 'blob') {
    throw new DataError('$: must be an object')
  }
}

/** Any map, link or bytes: what is not null, an array or a single value. */
export function isDataObject(value: DataValue | undefined): value is DataObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Names that mean something to every JavaScript object. */
export function isDataKey(key: string): boolean {
  return key !== '__proto__' && key !== 'constructor'
}

export class DataError extends Error {
  override readonly name = 'DataError'
}

class Walk {
  /** Where the walk stands; read only when something is wrong. */
  readonly #path: (string | number)[] = []
  #values = 0

  value(value: unknown, depth: number): void {
    if (++this.#values > dataValuesMax) throw this.#refusal(`more than ${dataValuesMax} values`)
    switch (typeof value) {
      case 'boolean':
        return
      case 'number':
        if (!Number.isInteger(value)) throw this.#refusal('must be an integer, not a float')
        if (!Number.isSafeInteger(value)) throw this.#refusal('must be an integer within 2^53')
        return
      case 'string':
        this.#text(value)
        return
      case 'object':
        if (value !== null) this.#container(value, depth)
        return
      case 'bigint':
      case 'function':
      case 'symbol':
      case 'undefined':
      default:
        throw this.#refusal(`must not be of type ${typeof value}`)
    }
  }

  #container(value: object, depth: number): void {
    if (Array.isArray(value)) {
      this.#enter(depth)
      for (let index = 0; index < value.length; index++) this.#member(index, value[index], depth)
      return
    }
    if (!isObject(value)) throw this.#refusal('must be a plain object')
    const keys = Object.keys(value)
    if ('$link' in value || '$bytes' in value) {
      this.#leaf(value, keys)
      return
    }
    this.#enter(depth)
    for (const key of keys) {
      if (!isDataKey(key)) throw this.#refusal(`must not have a member ${key}`)
      this.#text(key)
      this.#member(key, value[key], depth)
    }
    if (keys.includes('$type')) this.#typed(value, keys)
  }

  #enter(depth: number): void {
    if (depth >= dataDepthMax) throw this.#refusal(`nested deeper than ${dataDepthMax}`)
  }

  #member(key: string | number, value: unknown, depth: number): void {
    this.#path.push(key)
    this.value(value, depth + 1)
    this.#path.pop()
  }

  #leaf({ $link, $bytes }: Record<string, unknown>, keys: string[]): void {
    if (keys.length !== 1) throw this.#refusal('must have no member beside $link or $bytes')
    if ($bytes === undefined && !(typeof $link === 'string' && isCid($link))) {
      throw this.#refusal('$link must be a CID: version 1, DAG-CBOR or raw, SHA-256, base32')
    }
    if ($link === undefined && !(typeof $bytes === 'string' && isBase64($bytes))) {
      throw this.#refusal('$bytes must be base64')
    }
  }

  #typed({ $type, ref, mimeType, size }: Record<string, unknown>, keys: string[]): void {
    if (typeof $type !== 'string' || $type === '') {
      throw this.#refusal('$type must be a text that is not empty')
    }
    if ($type !== 'blob') return
    const link = isObject(ref) ? ref['$link'] : undefined
    if (typeof link !== 'string' || !isCid(link) || !isRawCid(link)) {
      throw this.#refusal('ref of a blob must be a link to a raw CID')
    }
    if (typeof mimeType !== 'string' || !mimeType.includes('/')) {
      throw this.#refusal('mimeType of a blob must be a media type')
    }
    if (typeof size !== 'number' || size < 0) {
      throw this.#refusal('size of a blob must be a number of bytes')
    }
    if (keys.length !== 4) {
      throw this.#refusal('a blob must have $type, ref, mimeType and size and nothing else')
    }
  }

  #text(text: string): void {
    if (!text.isWellFormed()) throw this.#refusal('must be valid Unicode')
  }

  #refusal(reason: string): DataError {
    const place = this.#path.map((key) =>
      typeof key === 'number' ? `[${key}]` : `.${key.slice(0, shownCharsMax).toWellFormed()}`,
    )
    return new DataError(`$${place.join('')}: ${reason}`)
  }
}

const shownCharsMax = 64

function isObject(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
  )
}

/** With or without padding; spare bits must be zero. */
function isBase64(text: string): boolean {
  const match = /={0,2}$/.exec(text)
  const length = match === null ? text.length : match.index
  if (length !== text.length && text.length % 4 !== 0) return false
  if (!/^[A-Za-z0-9+/]*$/.test(text.slice(0, length))) return false
  switch (length % 4) {
    case 0:
      return true
    case 2:
      return 'AQgw'.includes(text.charAt(length - 1))
    case 3:
      return 'AEIMQUYcgkosw048'.includes(text.charAt(length - 1))
    default:
      return false
  }
}
