import { close, fstat, fsync, open, read, write } from 'node:fs'
import { assert } from './assert.ts'

/**
 * An open file whose operations wait on other threads. Unlike the handles of the platform, one that
 * was forgotten does not end the process when its memory is collected.
 */
export class OpenFile {
  readonly #descriptor: number
  #isOpen = true

  private constructor(descriptor: number) {
    this.#descriptor = descriptor
  }

  static async open(path: string, flags: 'r' | 'w'): Promise<OpenFile> {
    const { promise, resolve, reject } = Promise.withResolvers<OpenFile>()
    open(path, flags, 0o600, (error, descriptor) => {
      if (error === null) resolve(new OpenFile(descriptor))
      else reject(error)
    })
    return await promise
  }

  async size(): Promise<number> {
    assert(this.#isOpen, 'a file is looked at while it is open')
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    fstat(this.#descriptor, (error, stats) => {
      if (error === null) resolve(stats.size)
      else reject(error)
    })
    return await promise
  }

  /** @returns how many bytes came; none at the end of the file */
  async read(bytes: Uint8Array, at: number): Promise<number> {
    // Its number may belong to another file by now.
    assert(this.#isOpen, 'a file is read while it is open')
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    read(this.#descriptor, bytes, 0, bytes.length, at, (error, count) => {
      if (error === null) resolve(count)
      else reject(error)
    })
    return await promise
  }

  /** Behind what was written before. */
  async write(bytes: Uint8Array): Promise<void> {
    // A disk that is nearly full takes less than it is given before it refuses.
    for (let done = 0; done < bytes.length;) done += await this.#writeSome(bytes, done)
  }

  async sync(): Promise<void> {
    assert(this.#isOpen, 'a file is synced while it is open')
    const { promise, resolve, reject } = Promise.withResolvers<undefined>()
    fsync(this.#descriptor, (error) => {
      if (error === null) resolve(undefined)
      else reject(error)
    })
    await promise
  }

  /** Again is no error. */
  async close(): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    const { promise, resolve, reject } = Promise.withResolvers<undefined>()
    close(this.#descriptor, (error) => {
      if (error === null || error === undefined) resolve(undefined)
      else reject(error)
    })
    await promise
  }

  async #writeSome(bytes: Uint8Array, from: number): Promise<number> {
    assert(this.#isOpen, 'a file is written while it is open')
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    write(this.#descriptor, bytes, from, bytes.length - from, null, (error, count) => {
      if (error === null) resolve(count)
      else reject(error)
    })
    return await promise
  }
}
