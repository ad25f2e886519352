import { type Cid, isCid } from '../atproto/cid.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { S3Bucket, S3Failed, type S3Settings } from './blob-s3-client.ts'
import { deleteObject, endUpload, IncomingObject } from './blob-s3-incoming.ts'
import { objectsIn, peopleIn, uploadsIn } from './blob-s3-list.ts'
import { readObjectRange, sizeOfObject } from './blob-s3-read.ts'
import {
  type BlobKey,
  BlobMissing,
  type BlobPlace,
  type ByteRange,
  type IncomingBlob,
  isBlobKey,
  type ListedBlob,
  makeBlobKey,
  type MovableBlobs,
  type StoredBlob,
} from './blob-storage.ts'

/**
 * Blobs in a bucket of S3, or of a server that speaks as it does: `stratos/blocks/{did}/{cid}`,
 * `stratos/tmp/{did}/{key}` and `stratos/quarantine/{did}/{cid}`.
 *
 * A bucket has no moves: a copy is made, then the original goes. Cut off between the two, both are
 * there, and the same call again ends it.
 */
export class S3Blobs implements MovableBlobs {
  readonly #bucket: S3Bucket

  private constructor(bucket: S3Bucket) {
    this.#bucket = bucket
  }

  /** @throws S3Failed when the bucket does not answer, or not to these keys */
  static async open(settings: S3Settings): Promise<S3Blobs> {
    const bucket = await S3Bucket.open(settings)
    const ask = { Bucket: bucket.name, Prefix: root, MaxKeys: 1 }
    await bucket.send('a first look', async (client) => {
      await client.send(new bucket.sdk.ListObjectsV2Command(ask))
    })
    return new S3Blobs(bucket)
  }

  async receive(did: Did): Promise<IncomingBlob> {
    return await this.receiveAs(did, makeBlobKey())
  }

  async receiveAs(did: Did, key: BlobKey): Promise<IncomingBlob> {
    return new IncomingObject(this.#bucket, nameOf({ kind: 'temporary', did, key }), key)
  }

  async keep(did: Did, key: BlobKey, cid: Cid): Promise<void> {
    const to = nameOf({ kind: 'permanent', did, cid })
    if (await this.#copy(nameOf({ kind: 'temporary', did, key }), to)) return
    if ((await sizeOfObject(this.#bucket, to)) !== undefined) return
    throw new BlobMissing(`no bytes of ${cid} are there to keep`)
  }

  async quarantine(did: Did, cid: Cid): Promise<void> {
    const from = nameOf({ kind: 'permanent', did, cid })
    if (await this.#copy(from, nameOf({ kind: 'quarantined', did, cid }))) {
      await deleteObject(this.#bucket, from)
    }
  }

  async restore(did: Did, cid: Cid): Promise<void> {
    const from = nameOf({ kind: 'quarantined', did, cid })
    if (await this.#copy(from, nameOf({ kind: 'permanent', did, cid }))) {
      await deleteObject(this.#bucket, from)
    }
  }

  async read(place: BlobPlace, range?: ByteRange): Promise<StoredBlob | undefined> {
    return await readObjectRange(this.#bucket, nameOf(place), range)
  }

  async remove(place: BlobPlace): Promise<void> {
    const name = nameOf(place)
    const uploads =
      place.kind === 'temporary' ? this.#endUploads(name, (one) => one === name) : undefined
    await Promise.all([deleteObject(this.#bucket, name), uploads])
  }

  async removeAll(did: Did): Promise<void> {
    const folders = kinds.map((kind) => folderOf(kind, did))
    // First: one that ended in between would leave an object.
    await this.#endUploads(folderOf('temporary', did), () => true)
    for (const folder of folders) {
      let batch: string[] = []
      // One by one: deletions of many at once need checksums that servers do not agree on.
      for await (const { name } of objectsIn(this.#bucket, folder)) {
        batch.push(name)
        if (batch.length < removalsAtOnce) continue
        await this.#delete(batch)
        batch = []
      }
      await this.#delete(batch)
    }
  }

  async *places(kind: BlobPlace['kind']): AsyncGenerator<ListedBlob> {
    for await (const { name, bytes, writtenAtMs } of objectsIn(this.#bucket, parentOf(kind))) {
      const place = placeOf(kind, name)
      if (place !== undefined) yield { place, bytes, writtenAtMs }
    }
    if (kind !== 'temporary') return
    for await (const { name, begunAtMs } of uploadsIn(this.#bucket, parentOf(kind))) {
      const place = placeOf(kind, name)
      if (place !== undefined) yield { place, bytes: 0, writtenAtMs: begunAtMs }
    }
  }

  async *dids(): AsyncGenerator<Did> {
    for (const kind of kinds) {
      for await (const name of peopleIn(this.#bucket, parentOf(kind))) if (isDid(name)) yield name
    }
  }

  async *strangers(): AsyncGenerator<string> {
    for await (const { name } of objectsIn(this.#bucket, root)) {
      if (kinds.every((kind) => placeOf(kind, name) === undefined)) yield name
    }
  }

  async close(): Promise<void> {
    this.#bucket[Symbol.dispose]()
  }

  /** @returns whether there was anything to copy */
  async #copy(from: string, Key: string): Promise<boolean> {
    const { name: Bucket, sdk } = this.#bucket
    // A DID may hold a percent sign; its colons stay, as some servers do not decode them.
    const ask = { Bucket, Key, CopySource: `${Bucket}/${encodeURI(from)}` }
    try {
      await this.#bucket.send('a copy', async (client) => {
        await client.send(new sdk.CopyObjectCommand(ask))
      })
      return true
    } catch (error) {
      if (error instanceof S3Failed && error.isAbsent) return false
      throw error
    }
  }

  async #delete(names: readonly string[]): Promise<void> {
    await Promise.all(names.map(async (name) => await deleteObject(this.#bucket, name)))
  }

  async #endUploads(prefix: string, isMeant: (name: string) => boolean): Promise<void> {
    for await (const { name, uploadId } of uploadsIn(this.#bucket, prefix)) {
      if (isMeant(name)) await endUpload(this.#bucket, name, uploadId)
    }
  }
}

const kinds = ['temporary', 'permanent', 'quarantined'] as const
const root = 'stratos/'
const removalsAtOnce = 16

function parentOf(kind: BlobPlace['kind']): string {
  return root + { temporary: 'tmp/', permanent: 'blocks/', quarantined: 'quarantine/' }[kind]
}

function folderOf(kind: BlobPlace['kind'], did: Did): string {
  // Types are gone at run time, and a name that leaves the folder would be the end of secrets.
  assert(isDid(did), 'a folder of blobs is named by a DID')
  return `${parentOf(kind)}${did}/`
}

function nameOf(place: BlobPlace): string {
  const folder = folderOf(place.kind, place.did)
  if (place.kind !== 'temporary') {
    assert(isCid(place.cid), 'a blob is named by a CID')
    return folder + place.cid
  }
  assert(isBlobKey(place.key), 'temporary bytes are named by a key')
  return folder + place.key
}

function placeOf(kind: BlobPlace['kind'], name: string): BlobPlace | undefined {
  if (!name.startsWith(parentOf(kind))) return undefined
  const [did = '', last = '', ...more] = name.slice(parentOf(kind).length).split('/')
  if (!isDid(did) || more.length > 0) return undefined
  if (kind !== 'temporary') return isCid(last) ? { kind, did, cid: last } : undefined
  return isBlobKey(last) ? { kind, did, key: last } : undefined
}
