import { assert } from '../lib/assert.ts'
import { ignoreAbsentKey, type S3Bucket, S3Failed } from './blob-s3-client.ts'
import type { BlobKey, IncomingBlob } from './blob-storage.ts'

/**
 * An upload into a bucket: one request where it fits into one part, otherwise in parts. Memory: the
 * part that is filled, and those on their way.
 */
export class IncomingObject implements IncomingBlob {
  readonly key: BlobKey
  readonly #bucket: S3Bucket
  readonly #name: string
  readonly #going = new AbortController()
  readonly #parts: Promise<Part>[] = []
  /** Of parts that have arrived: a collector that comes late would leave many times as much. */
  readonly #free: Uint8Array<ArrayBuffer>[] = []
  #filling = new Uint8Array(firstBytes)
  #filled = 0
  #uploadId: string | undefined
  #isOver = false

  constructor(bucket: S3Bucket, name: string, key: BlobKey) {
    this.#bucket = bucket
    this.#name = name
    this.key = key
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(!this.#isOver, 'bytes come before the end')
    for (let rest = bytes; rest.length > 0;) {
      // Only when more follows: what is just one part needs one request.
      if (this.#filled === partBytes) await this.#sendPart()
      this.#makeRoom(rest.length)
      const taken = rest.subarray(0, this.#filling.length - this.#filled)
      this.#filling.set(taken, this.#filled)
      this.#filled += taken.length
      rest = rest.subarray(taken.length)
    }
  }

  async finish(): Promise<void> {
    assert(!this.#isOver, 'an upload ends once')
    this.#isOver = true
    if (this.#uploadId === undefined) return await this.#put()
    await this.#sendPart()
    const [UploadId, Parts] = [this.#uploadId, await Promise.all(this.#parts)]
    const { CompleteMultipartUploadCommand } = this.#bucket.sdk
    const ask = { ...this.#at, UploadId, MultipartUpload: { Parts } }
    await this.#bucket.send('the end of an upload', async (client) => {
      await client.send(new CompleteMultipartUploadCommand(ask), this.#signal)
    })
  }

  async abort(): Promise<void> {
    this.#isOver = true
    this.#going.abort()
    // A part that arrives later would stay.
    await Promise.allSettled(this.#parts)
    if (this.#uploadId !== undefined) await endUpload(this.#bucket, this.#name, this.#uploadId)
    await deleteObject(this.#bucket, this.#name)
  }

  get #at(): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket.name, Key: this.#name }
  }

  get #signal(): { abortSignal: AbortSignal } {
    return { abortSignal: this.#going.signal }
  }

  #makeRoom(bytes: number): void {
    const wanted = Math.min(this.#filled + bytes, partBytes)
    if (wanted <= this.#filling.length) return
    const larger = new Uint8Array(Math.min(Math.max(wanted, this.#filling.length * 2), partBytes))
    larger.set(this.#filling.subarray(0, this.#filled))
    this.#filling = larger
  }

  async #put(): Promise<void> {
    const ask = { ...this.#at, Body: this.#filling.subarray(0, this.#filled) }
    await this.#bucket.send('an upload', async (client) => {
      await client.send(new this.#bucket.sdk.PutObjectCommand(ask), this.#signal)
    })
  }

  async #sendPart(): Promise<void> {
    this.#uploadId ??= await this.#begin()
    const full = this.#filling
    const Body = full.subarray(0, this.#filled)
    const PartNumber = this.#parts.length + 1
    const ask = { ...this.#at, UploadId: this.#uploadId, PartNumber, Body }
    await this.#parts[this.#parts.length - partsInFlightMax]
    const sending = this.#bucket.send('a part of an upload', async (client) => {
      const command = new this.#bucket.sdk.UploadPartCommand(ask)
      const { ETag } = await client.send(command, this.#signal)
      this.#free.push(full)
      return { PartNumber, ETag }
    })
    // Whoever waits for it is told; until somebody does, it is nobody's unhandled failure.
    sending.catch(() => undefined)
    this.#parts.push(sending)
    this.#filling = this.#free.pop() ?? new Uint8Array(partBytes)
    this.#filled = 0
  }

  async #begin(): Promise<string> {
    const { CreateMultipartUploadCommand } = this.#bucket.sdk
    const { UploadId } = await this.#bucket.send('the beginning of an upload', async (client) => {
      return await client.send(new CreateMultipartUploadCommand(this.#at), this.#signal)
    })
    assert(UploadId !== undefined, 'an upload in parts has a name')
    return UploadId
  }
}

/** What is not there is no error, nor are servers that cannot do this. */
export async function endUpload(bucket: S3Bucket, Key: string, UploadId: string): Promise<void> {
  const { AbortMultipartUploadCommand } = bucket.sdk
  try {
    await bucket.send('the end of an unfinished upload', async (client) => {
      await client.send(new AbortMultipartUploadCommand({ Bucket: bucket.name, Key, UploadId }))
    })
  } catch (error) {
    if (!(error instanceof S3Failed && error.isUnknownThere)) ignoreAbsentKey(error)
  }
}

export async function deleteObject(bucket: S3Bucket, Key: string): Promise<void> {
  const { DeleteObjectCommand } = bucket.sdk
  const deleting = bucket.send('a removal', async (client) => {
    await client.send(new DeleteObjectCommand({ Bucket: bucket.name, Key }))
  })
  await deleting.catch(ignoreAbsentKey)
}

interface Part {
  readonly PartNumber: number
  readonly ETag: string | undefined
}

/** Most blobs are images that fit. */
const firstBytes = 64 * 1024
/**
 * The least that S3 takes. Three of these are in memory, and the two on their way once more where
 * they wait for the network: 8 uploads of 52 MB at once took 238 MB, with parts of 8 MiB 392 MB.
 */
const partBytes = 5 * 1024 * 1024
const partsInFlightMax = 2
