import { type CidBytes, cidByteLength, isCidBytes, parseCidBytes } from './cid.ts'
import { checkKey, commonPrefixLength, keyBytesMax, MstError } from './mst-key.ts'
import { linkHead } from './mst-node.ts'

export interface MstEntry {
  readonly key: string
  readonly cid: CidBytes
  /** The subtree between this entry and the next. */
  readonly right: CidBytes | undefined
}

/**
 * The entries of one node, read one after another from a copy of its bytes: with prefixes a small
 * block can make very much text, which is never held all at once.
 *
 * Only bytes that `MstNode.encode` writes pass. Their shape, the shortest form of every number, and
 * that nothing follows, show when the node is opened; keys and prefixes show entry by entry.
 */
export class MstNodeReader {
  /** The subtree before the first entry. */
  readonly left: CidBytes | undefined
  readonly #bytes: Buffer
  #at = 0
  #entriesLeft = 0
  #key = ''

  /** @throws MstError unless the bytes have the shape of a node */
  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes)
    this.#expect(0xa2)
    this.#name('e')
    const count = this.#number(0x80)
    const first = this.#at
    for (let index = 0; index < count; index++) this.#entry()
    this.#name('l')
    this.left = this.#cidOrNone(this.#linkOrNull())
    if (this.#at !== bytes.length) throw refusal('bytes follow it')
    this.#at = first
    this.#entriesLeft = count
  }

  /**
   * The next entry; `undefined` after the last.
   * @throws MstError for a key that is not valid, and for a prefix that is not the longest
   */
  next(): MstEntry | undefined {
    if (this.#entriesLeft === 0) return undefined
    this.#entriesLeft -= 1
    const { tailAt, tailEnd, prefix, right, link } = this.#entry()
    // Here already, so that no more than one key's worth of text is made.
    if (prefix + tailEnd - tailAt > keyBytesMax) throw refusal('a key is too long')
    const key = this.#key.slice(0, prefix) + this.#bytes.toString('latin1', tailAt, tailEnd)
    checkKey(key)
    if (prefix !== commonPrefixLength(this.#key, key)) {
      throw refusal('a prefix is not all that two keys have in common')
    }
    this.#key = key
    return { key, cid: this.#cidAt(link), right: this.#cidOrNone(right) }
  }

  #entry(): EntryPlaces {
    this.#expect(0xa4)
    this.#name('k')
    const tailLength = this.#number(0x40)
    const tailAt = this.#at
    const tailEnd = tailAt + tailLength
    this.#at = tailEnd
    this.#name('p')
    const prefix = this.#number(0x00)
    this.#name('t')
    const right = this.#linkOrNull()
    this.#name('v')
    const link = this.#link()
    return { tailAt, tailEnd, prefix, right, link }
  }

  #linkOrNull(): number | undefined {
    if (this.#bytes[this.#at] !== 0xf6) return this.#link()
    this.#at += 1
    return undefined
  }

  /** Passes a link and gives the place of its CID. */
  #link(): number {
    for (const byte of linkHead) this.#expect(byte)
    const cidAt = this.#at
    this.#at += cidByteLength
    if (!isCidBytes(this.#bytes.subarray(cidAt, this.#at))) throw refusal('a link is no CID')
    return cidAt
  }

  #name(letter: string): void {
    this.#expect(0x61)
    this.#expect(letter.charCodeAt(0))
  }

  /** A head of the major type whose number is in its shortest form. */
  #number(major: number): number {
    const head = this.#byte() - major
    if (head >= 0 && head < 24) return head
    const width = head === 24 ? 1 : head === 25 ? 2 : head === 26 ? 4 : 0
    let value = 0
    for (let index = 0; index < width; index++) value = value * 256 + this.#byte()
    if (width === 0 || value < (leastByWidth[width] ?? 0)) throw refusal('a number is malformed')
    return value
  }

  #expect(byte: number): void {
    if (this.#byte() !== byte) throw refusal('its shape is another')
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw refusal('it is cut')
    return byte
  }

  #cidOrNone(at: number | undefined): CidBytes | undefined {
    return at === undefined ? undefined : this.#cidAt(at)
  }

  #cidAt(at: number): CidBytes {
    return parseCidBytes(new Uint8Array(this.#bytes.subarray(at, at + cidByteLength)))
  }
}

/** Where the parts of an entry are. */
interface EntryPlaces {
  readonly tailAt: number
  readonly tailEnd: number
  readonly prefix: number
  readonly right: number | undefined
  readonly link: number
}

/** The least number that needs so many bytes behind its head. */
const leastByWidth: Readonly<Record<number, number>> = { 1: 24, 2: 0x100, 4: 0x10000 }

function refusal(reason: string): MstError {
  return new MstError(`no node of a tree: ${reason}`)
}
