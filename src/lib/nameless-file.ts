import { randomUUID } from 'node:crypto'
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assert } from './assert.ts'
import { FileSource } from './byte-source.ts'

/**
 * A file that has lost its name at once: nothing of what it holds stays, however this process ends.
 */
export class NamelessFile implements Disposable {
  /** Undefined once it is closed, or belongs to a source. */
  #descriptor: number | undefined
  #size = 0

  constructor() {
    const path = join(tmpdir(), `stratos-${randomUUID()}`)
    this.#descriptor = openSync(path, 'wx+', 0o600)
    unlinkSync(path)
  }

  get size(): number {
    return this.#size
  }

  add(bytes: Uint8Array): void {
    const descriptor = this.#open()
    for (let at = 0; at < bytes.length;) at += writeSync(descriptor, bytes, at)
    this.#size += bytes.length
  }

  /** Reads what was added; closed with it instead of with this. */
  source(): FileSource {
    const source = new FileSource(this.#open())
    this.#descriptor = undefined
    return source
  }

  [Symbol.dispose](): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }

  #open(): number {
    assert(this.#descriptor !== undefined, 'a file is open as long as it is used')
    return this.#descriptor
  }
}
