import { Database } from 'bun:sqlite'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { actorFolder } from '../../src/store/actor-folder.ts'
import type { BlobStorage } from '../../src/store/blob-storage.ts'
import { type BlobRef, picturePost, uploadBlob } from '../kit/blob.ts'
import { keptBytes, type KeptBytes, noBytes } from '../kit/blob-bytes.ts'
import { type BlobHome, type Housed, startHoused } from '../kit/blob-home.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import type { SeededStratos, SeededOptions } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, type Call, textOf } from '../kit/xrpc.ts'

export const uploadNsid = 'com.atproto.repo.uploadBlob'

export interface BlobRowSeen {
  readonly cid: string
  readonly mimeType: string
  readonly size: number
  readonly tempKey: string | null
  readonly uploadedAtMs: number
}

/** A service, people who upload to it, and what it then has of theirs. */
export class BlobUploaders implements AsyncDisposable {
  readonly stratos: SeededStratos
  readonly storage: BlobStorage

  readonly #housed: Housed

  private constructor(housed: Housed) {
    this.#housed = housed
    this.stratos = housed.stratos
    this.storage = housed.storage
  }

  static async start(
    options: SeededOptions,
    home: BlobHome = 'in a folder',
  ): Promise<BlobUploaders> {
    return new BlobUploaders(await startHoused(home, options))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#housed[Symbol.asyncDispose]()
  }

  did(name: string) {
    return this.stratos.person(name).did
  }

  /** Sends bytes as somebody, whatever comes of it. */
  send(name: string, body: Bun.BodyInit, call: Call = {}): Promise<Answer> {
    const authorization = this.stratos.person(name).bearer
    return this.stratos.call(uploadNsid, { body, authorization, ...call })
  }

  /** @throws for any other answer than 200 */
  upload(name: string, bytes: Uint8Array<ArrayBuffer>, type = 'image/png'): Promise<BlobRef> {
    return uploadBlob(this.stratos, name, { bytes, type })
  }

  /** The head of an upload by hand, with further headers; its body is for who sends it. */
  head(name: string, ...headers: readonly string[]): string {
    const { bearer } = this.stratos.person(name)
    const own = ['Host: localhost', `Authorization: ${bearer}`, 'Content-Type: image/png']
    return [`POST /xrpc/${uploadNsid} HTTP/1.1`, ...own, ...headers, '', ''].join('\r\n')
  }

  /** Begins an upload that is not ended by it, and waits until bytes of it are being kept. */
  async begin(name: string, part: string): Promise<Socket> {
    const before = (await this.bytes(name)).temporary.length
    const socket = connect({ port: this.stratos.port, host: '127.0.0.1' })
    socket.on('error', () => undefined)
    socket.write(part)
    await eventually('beginning of an upload', async () =>
      (await this.bytes(name)).temporary.length > before ? true : undefined,
    )
    return socket
  }

  bytes(name: string): Promise<KeptBytes> {
    return keptBytes(this.storage, this.did(name))
  }

  /** The rows of somebody's blobs, as they are stored. */
  rows(name: string): BlobRowSeen[] {
    const path = join(actorFolder(this.stratos.dataFolder, this.did(name)), 'stratos.sqlite')
    using database = new Database(path)
    return database
      .query<BlobRowSeen, []>(
        'select cid, "mimeType", size, "tempKey", "uploadedAtMs" from stratos_blob order by cid',
      )
      .all()
  }

  tryPost(name: string, blob: BlobRef): Promise<Answer> {
    const record = picturePost('a picture', [this.stratos.boundary('a')], blob)
    const input = { repo: this.did(name), collection: postCollection, record }
    return this.stratos.callAs(name, 'com.atproto.repo.createRecord', { input })
  }

  /** @returns the URI of a post with a picture */
  async post(name: string, blob: BlobRef): Promise<string> {
    const { status, body } = await this.tryPost(name, blob)
    if (status !== 200) throw new Error(`createRecord answered ${status} ${JSON.stringify(body)}`)
    return textOf(body, 'uri')
  }

  async remove(name: string, uri: string): Promise<void> {
    const { repo, collection, rkey } = addressOf(uri)
    const call = { input: { repo, collection, rkey } }
    const { status } = await this.stratos.callAs(name, 'com.atproto.repo.deleteRecord', call)
    if (status !== 200) throw new Error(`deleteRecord answered ${status}`)
  }

  /** Waits until the bytes of somebody are kept as they should be. */
  async settled(name: string, expected: Partial<KeptBytes>): Promise<void> {
    let found: KeptBytes = noBytes
    try {
      await eventually('bytes as expected', async () => {
        found = await this.bytes(name)
        return Bun.deepEquals({ ...found, ...expected }, found) ? true : undefined
      })
    } catch (cause) {
      const both = JSON.stringify({ found, expected })
      throw new Error(`other bytes of ${name}: ${both}`, { cause })
    }
  }
}
