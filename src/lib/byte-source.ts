import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { assert } from './assert.ts'

/** Bytes that are read in any order, so that a big file need not be in memory. */
export interface ByteSource {
  readonly size: number
  /**
   * A view that is valid until the next read. The caller stays within `size`.
   * @throws SourceError when the bytes are no longer there
   */
  read(at: number, length: number): Uint8Array
}

export class MemorySource implements ByteSource {
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get size(): number {
    return this.#bytes.length
  }

  read(at: number, length: number): Uint8Array {
    assert(at >= 0 && length >= 0 && at + length <= this.size, 'a read stays within the bytes')
    return this.#bytes.subarray(at, at + length)
  }
}

/**
 * A file behind one window. Who reads on and on finds ever more read ahead, up to a whole window;
 * who jumps pays for little more than was asked for.
 */
export class FileSource implements ByteSource, Disposable {
  /** When it was opened: what is appended later does not count. */
  readonly size: number
  readonly #descriptor: number
  readonly #window = new Uint8Array(windowBytes)
  #start = 0
  #length = 0
  #aheadBytes = jumpBytes

  /** @param file its path, or the descriptor of one that is open, which is closed with this */
  constructor(file: string | number) {
    this.#descriptor = typeof file === 'number' ? file : openSync(file, 'r')
    this.size = fstatSync(this.#descriptor).size
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor)
  }

  read(at: number, length: number): Uint8Array {
    assert(at >= 0 && length >= 0 && at + length <= this.size, 'a read stays within the file')
    if (length > windowBytes) return this.#fill(new Uint8Array(length), at)
    const end = this.#start + this.#length
    if (at < this.#start || at + length > end) {
      const isNext = at >= this.#start && at <= end
      this.#aheadBytes = isNext ? Math.min(this.#aheadBytes * 2, windowBytes) : jumpBytes
      const wanted = Math.min(Math.max(length, this.#aheadBytes), this.size - at)
      this.#length = 0
      this.#fill(this.#window.subarray(0, wanted), at)
      this.#start = at
      this.#length = wanted
    }
    return this.#window.subarray(at - this.#start, at - this.#start + length)
  }

  #fill(bytes: Uint8Array, at: number): Uint8Array {
    for (let done = 0; done < bytes.length;) {
      const count = readSync(this.#descriptor, bytes, done, bytes.length - done, at + done)
      if (count === 0) throw new SourceError('a file became shorter while it was read')
      done += count
    }
    return bytes
  }
}

export class SourceError extends Error {
  override readonly name = 'SourceError'
}

/** As much as a disk likes to give at once. */
const windowBytes = 1024 * 1024
/** Holds a usual record or node with its neighbours. */
const jumpBytes = 16 * 1024
