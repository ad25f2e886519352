import { isUtf8 } from 'node:buffer'
import { encode as encodeCbor } from '@atcute/cbor'
import { cidToString, isCidBytes } from './cid.ts'
import { type DataObject, type DataValue, dataDepthMax, dataValuesMax, isDataKey } from './data.ts'

/** The longest block that is read: AT Protocol keeps records and tree nodes below one MiB. */
export const cborBytesMax = 1_048_576

/**
 * Canonical DAG-CBOR of data that `checkData` passed or that was built here. Never of anything
 * else: a float, for one, would be written.
 */
export function encode(value: DataValue): Uint8Array {
  // The library gives a view into a bigger buffer, which would stay alive with it.
  return new Uint8Array(encodeCbor(value))
}

/**
 * The one value that `bytes` hold, in JSON form. Only canonical DAG-CBOR passes: shortest integers
 * and lengths, keys sorted and unique, no floats, no tag but 42, valid UTF-8, nothing behind the
 * value; so `encode` gives the same bytes again.
 * @throws CborError whatever the bytes are
 * @see https://atproto.com/specs/data-model
 */
export function decode(bytes: Uint8Array): DataValue {
  if (bytes.length > cborBytesMax) {
    throw new CborError(`a block of ${bytes.length} bytes is over the limit of ${cborBytesMax}`)
  }
  return read(bytes, { depth: dataDepthMax, values: dataValuesMax })
}

/**
 * As `decode`, of what was put together here of many values that `decode` passes: it is larger than
 * any of them, and some levels deeper.
 */
export function decodeOwn(bytes: Uint8Array): DataValue {
  return read(bytes, { depth: dataDepthMax + ownLevels, values: Infinity })
}

/** Of what holds records: a body, its operations, one of them. */
const ownLevels = 4

interface Limits {
  readonly depth: number
  readonly values: number
}

function read(bytes: Uint8Array, limits: Limits): DataValue {
  const reader = new Reader(bytes, limits)
  const value = reader.value(0)
  reader.end()
  return value
}

export class CborError extends Error {
  override readonly name = 'CborError'
}

/** Major types, the upper three bits of a head. */
const unsigned = 0
const negative = 1
const byteString = 2
const textString = 3
const array = 4
const map = 5
const tag = 6

class Reader {
  readonly #bytes: Buffer
  readonly #limits: Limits
  #at = 0
  #values = 0

  constructor(bytes: Uint8Array, limits: Limits) {
    this.#limits = limits
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw this.#refusal('bytes follow the value')
  }

  value(depth: number): DataValue {
    const { values } = this.#limits
    if (++this.#values > values) throw this.#refusal(`more than ${values} values`)
    const head = this.#byte()
    switch (head >> 5) {
      case unsigned:
        return this.#argument(head)
      case negative:
        return this.#negative(head)
      case byteString:
        return { $bytes: this.#take(this.#argument(head)).toBase64({ omitPadding: true }) }
      case textString:
        return this.#text(this.#argument(head))
      case array:
        return this.#array(this.#argument(head), depth)
      case map:
        return this.#map(this.#argument(head), depth)
      case tag:
        return this.#link(head)
      default:
        return this.#simple(head)
    }
  }

  #negative(head: number): number {
    const value = -1 - this.#argument(head)
    if (!Number.isSafeInteger(value)) throw this.#refusal('an integer is out of range')
    return value
  }

  #array(length: number, depth: number): DataValue[] {
    this.#enter(length, depth)
    const items: DataValue[] = []
    for (let index = 0; index < length; index++) items.push(this.value(depth + 1))
    return items
  }

  #map(length: number, depth: number): DataObject {
    this.#enter(length, depth)
    const object: Record<string, DataValue> = {}
    let last = { start: 0, length: 0 }
    for (let index = 0; index < length; index++) {
      const span = this.#keySpan()
      if (index > 0 && !this.#isAfter(span, last)) {
        throw this.#refusal('keys are not sorted and unique')
      }
      last = span
      const key = this.#text(span.length)
      // As members of a JSON object the latter two would read back as a link or bytes.
      if (!isDataKey(key) || key === '$link' || key === '$bytes') {
        throw this.#refusal(`a key ${key} is not allowed`)
      }
      object[key] = this.value(depth + 1)
    }
    return object
  }

  #keySpan(): Span {
    const head = this.#byte()
    if (head >> 5 !== textString) throw this.#refusal('a key is no text')
    const length = this.#argument(head)
    this.#need(length)
    return { start: this.#at, length }
  }

  /** Shorter keys come first, keys of one length in the order of their bytes. */
  #isAfter(key: Span, last: Span): boolean {
    if (key.length !== last.length) return key.length > last.length
    for (let index = 0; index < key.length; index++) {
      const difference = this.#peek(key.start + index) - this.#peek(last.start + index)
      if (difference !== 0) return difference > 0
    }
    return false
  }

  /** Each item takes a byte or more: a length beyond that must not cost memory. */
  #enter(length: number, depth: number): void {
    const { depth: most } = this.#limits
    if (depth >= most) throw this.#refusal(`nested deeper than ${most}`)
    this.#need(length)
  }

  #link(head: number): DataObject {
    if (this.#argument(head) !== 42) throw this.#refusal('a tag other than 42')
    const inner = this.#byte()
    if (inner >> 5 !== byteString) throw this.#refusal('a link is no byte string')
    const bytes = this.#take(this.#argument(inner))
    if (bytes[0] !== 0) throw this.#refusal('a link does not start with zero')
    const cid = bytes.subarray(1)
    if (!isCidBytes(cid)) throw this.#refusal('a link is no CID that AT Protocol knows')
    return { $link: cidToString(cid) }
  }

  #simple(head: number): boolean | null {
    switch (head) {
      case 0xf4:
        return false
      case 0xf5:
        return true
      case 0xf6:
        return null
      default:
        throw this.#refusal('a float or an unknown simple value')
    }
  }

  #text(length: number): string {
    this.#need(length)
    const start = this.#at
    const end = start + length
    let at = start
    while (at < end && this.#peek(at) < 0x80) at++
    if (at < end && !isUtf8(this.#bytes.subarray(at, end))) {
      throw this.#refusal('a text is not UTF-8')
    }
    this.#at = end
    return this.#bytes.toString(at < end ? 'utf8' : 'latin1', start, end)
  }

  /** The number that belongs to a head, in the shortest of its five forms. */
  #argument(head: number): number {
    const info = head & 0x1f
    if (info < 24) return info
    if (info > 27) throw this.#refusal('an indefinite or reserved length')
    const width = 1 << (info - 24)
    this.#need(width)
    let value = 0
    for (let index = 0; index < width; index++) value = value * 256 + this.#peek(this.#at++)
    if (value < (leastByWidth[width] ?? 0)) throw this.#refusal('a number is not the shortest')
    if (value > Number.MAX_SAFE_INTEGER) throw this.#refusal('an integer is out of range')
    return value
  }

  #byte(): number {
    this.#need(1)
    return this.#peek(this.#at++)
  }

  #take(length: number): Buffer {
    this.#need(length)
    return this.#bytes.subarray(this.#at, (this.#at += length))
  }

  #need(length: number): void {
    if (length > this.#bytes.length - this.#at) throw this.#refusal('the bytes end too soon')
  }

  /** Callers stay within what `need` allowed. */
  #peek(at: number): number {
    return this.#bytes[at] ?? 0
  }

  #refusal(reason: string): CborError {
    return new CborError(`no canonical DAG-CBOR: ${reason} (byte ${this.#at})`)
  }
}

interface Span {
  readonly start: number
  readonly length: number
}

/** The least number that needs so many bytes behind its head. */
const leastByWidth: Readonly<Record<number, number>> = { 1: 24, 2: 0x100, 4: 0x10000, 8: 2 ** 32 }
