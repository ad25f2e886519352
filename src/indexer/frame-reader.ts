import { isUtf8 } from 'node:buffer'
import { type CidBytes, isCidBytes } from '../atproto/cid.ts'

/**
 * Finds its way through the CBOR of a frame without decoding it: records are found by where they
 * lie, so that their bytes can be kept and are decoded once. Whatever the bytes are, it takes no more
 * than one look at each.
 */
export class FrameReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Uint8Array, start = 0) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    this.#at = start
  }

  /** Where the next value begins. */
  get at(): number {
    return this.#at
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  /**
   * The members of a map, each once: `take` has to read or skip the value of a key.
   * @throws FrameError as all methods do, for anything else
   */
  map(take: (key: string) => void): void {
    const length = this.#length(map, 'a map')
    const seen = new Set<string>()
    for (let index = 0; index < length; index++) {
      const key = this.text()
      if (seen.has(key)) throw new FrameError('a member is there twice')
      seen.add(key)
      take(key)
    }
  }

  array(takeItem: () => void, lengthMax: number): void {
    const length = this.#length(array, 'an array')
    if (length > lengthMax) throw new FrameError(`a list has more than ${lengthMax} items`)
    for (let index = 0; index < length; index++) takeItem()
  }

  text(): string {
    const bytes = this.#take(this.#length(text, 'a text'))
    if (!isUtf8(bytes)) throw new FrameError('a text is not UTF-8')
    return bytes.toString('utf8')
  }

  unsigned(): number {
    return this.#length(unsigned, 'a number that is not negative')
  }

  link(): CidBytes {
    if (this.#length(tag, 'a link') !== linkTag) throw new FrameError('a tag other than 42')
    const bytes = this.#take(this.#length(byteString, 'the bytes of a link'))
    const cid = bytes.subarray(1)
    if (bytes[0] !== 0 || !isCidBytes(cid)) throw new FrameError('a link is no CID')
    return cid
  }

  /** Passes over one value, whatever it is. */
  skip(): void {
    for (let left = 1; left > 0; left--) {
      const head = this.#byte()
      // Three of them stand alone; others are numbers that AT Protocol does not have.
      const value = this.#argument(head)
      switch (head >> 5) {
        case byteString:
        case text:
          this.#take(value)
          break
        case array:
          left += this.#fits(value)
          break
        case map:
          left += 2 * this.#fits(value)
          break
        case tag:
          left += 1
          break
        default:
          break
      }
    }
  }

  #length(major: number, what: string): number {
    const head = this.#byte()
    if (head >> 5 !== major) throw new FrameError(`where ${what} was due there is something else`)
    return this.#argument(head)
  }

  #argument(head: number): number {
    const info = head & 0x1f
    if (info < 24) return info
    if (info > 27) throw new FrameError('an indefinite or reserved length')
    const bytes = this.#take(1 << (info - 24))
    let value = 0
    for (const byte of bytes) value = value * 256 + byte
    if (value > Number.MAX_SAFE_INTEGER) throw new FrameError('a number is out of range')
    return value
  }

  /** Each item takes a byte or more. */
  #fits(length: number): number {
    if (length > this.#bytes.length - this.#at) throw endsTooSoon()
    return length
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw endsTooSoon()
    return byte
  }

  #take(length: number): Buffer {
    const start = this.#at
    this.#at += this.#fits(length)
    return this.#bytes.subarray(start, this.#at)
  }
}

/** A frame is not what the contract says that frames are. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

function endsTooSoon(): FrameError {
  return new FrameError('the bytes end too soon')
}

/** Major types of CBOR. */
const [unsigned, byteString, text, array, map, tag] = [0, 2, 3, 4, 5, 6] as const
const linkTag = 42
