import { rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { assert } from '../lib/assert.ts'
import { OpenFile } from '../lib/open-file.ts'
import { syncNames } from './blob-names.ts'
import type { BlobKey, IncomingBlob } from './blob-storage.ts'

/** Stands behind the name of bytes that are still on their way; no key and no CID has a dot. */
export const unfinishedSuffix = '.part'

/** An upload into a file, under a name of its own until all of it is on disk. */
export class IncomingFile implements IncomingBlob {
  readonly key: BlobKey
  readonly #path: string
  readonly #file: OpenFile
  readonly #gathered = Buffer.allocUnsafeSlow(gatheredBytes)
  #gatheredLength = 0
  #unsyncedBytes = 0
  #syncing: Promise<void> | undefined
  #isOver = false

  private constructor(path: string, key: BlobKey, file: OpenFile) {
    this.#path = path
    this.key = key
    this.#file = file
  }

  static async create(path: string, key: BlobKey): Promise<IncomingFile> {
    // Begins anew what a kill cut off under the same key.
    const file = await OpenFile.open(path + unfinishedSuffix, 'w')
    return new IncomingFile(path, key, file)
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(!this.#isOver, 'bytes come before the end')
    for (let rest = bytes; rest.length > 0;) {
      if (this.#gatheredLength === 0 && rest.length >= gatheredBytes) {
        return await this.#put(rest)
      }
      const part = rest.subarray(0, gatheredBytes - this.#gatheredLength)
      this.#gathered.set(part, this.#gatheredLength)
      this.#gatheredLength += part.length
      rest = rest.subarray(part.length)
      if (this.#gatheredLength === gatheredBytes) await this.#flush()
    }
  }

  async finish(): Promise<void> {
    assert(!this.#isOver, 'an upload ends once')
    this.#isOver = true
    await this.#flush()
    await this.#syncing
    await this.#file.sync()
    await this.#file.close()
    await rename(this.#path + unfinishedSuffix, this.#path)
    await syncNames(dirname(this.#path))
  }

  async abort(): Promise<void> {
    this.#isOver = true
    try {
      await this.#syncing
    } finally {
      await this.#remove()
    }
  }

  async #remove(): Promise<void> {
    try {
      await this.#file.close()
    } finally {
      await rm(this.#path + unfinishedSuffix, { force: true })
      await rm(this.#path, { force: true })
    }
  }

  async #flush(): Promise<void> {
    const gathered = this.#gathered.subarray(0, this.#gatheredLength)
    this.#gatheredLength = 0
    await this.#put(gathered)
  }

  /** The disk begins early with what would all be waited for at the end. */
  async #put(bytes: Uint8Array): Promise<void> {
    await this.#file.write(bytes)
    this.#unsyncedBytes += bytes.length
    if (this.#unsyncedBytes < syncBytes || this.#syncing !== undefined) return
    this.#unsyncedBytes = 0
    const syncing = this.#file.sync()
    this.#syncing = syncing
    // Whoever ends this is told: until then it is nobody's fault.
    syncing.then(
      () => (this.#syncing = undefined),
      () => undefined,
    )
  }
}

/** Requests deliver pieces of some KB; disks like larger ones. */
const gatheredBytes = 256 * 1024
/** Some 15 ms of a disk. */
const syncBytes = 8 * 1024 * 1024
