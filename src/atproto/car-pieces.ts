import { carHeader } from './car.ts'
import { type CidBytes, cidByteLength } from './cid.ts'

/**
 * The sections of a CAR, written one after another into pieces of about one size, each a buffer of
 * its own that can be handed to another thread.
 * @see https://ipld.io/specs/transport/car/carv1/
 */
export class CarPieces {
  readonly #pieceBytes: number
  #piece: Uint8Array<ArrayBuffer>
  #used = 0
  #full: Uint8Array<ArrayBuffer>[] = []

  constructor(root: CidBytes, pieceBytes: number) {
    this.#pieceBytes = pieceBytes
    this.#piece = new Uint8Array(pieceBytes)
    const header = carHeader(root)
    this.#room(header.length)
    this.#piece.set(header)
    this.#used = header.length
  }

  put(cid: CidBytes, bytes: Uint8Array): void {
    const length = cidByteLength + bytes.length
    this.#room(varintBytesMax + length)
    let left = length
    for (; left >= 0x80; left >>>= 7) this.#piece[this.#used++] = (left & 0x7f) | 0x80
    this.#piece[this.#used++] = left
    this.#piece.set(cid, this.#used)
    this.#piece.set(bytes, this.#used + cidByteLength)
    this.#used += length
  }

  /** A piece that is full, if there is one. */
  next(): Uint8Array<ArrayBuffer> | undefined {
    return this.#full.shift()
  }

  /** What no piece of before had, at the end. */
  rest(): Uint8Array<ArrayBuffer> {
    return this.#piece.subarray(0, this.#used)
  }

  #room(bytes: number): void {
    if (this.#used + bytes <= this.#piece.length) return
    if (this.#used > 0) this.#full.push(this.rest())
    this.#piece = new Uint8Array(Math.max(this.#pieceBytes, bytes))
    this.#used = 0
  }
}

/** 28 bits of length, far more than any block. */
const varintBytesMax = 4
