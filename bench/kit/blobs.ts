import { randomFillSync } from 'node:crypto'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { privatePost } from '../../test/kit/post.ts'
import { blobRefOf } from '../../test/kit/blob.ts'
import { fieldsOf, xrpc } from '../../test/kit/xrpc.ts'
import type { Service } from './service.ts'

/** A client that sends and takes blobs, one after the other. */
export class BlobClient {
  readonly did: Did
  readonly #service: Service
  /** Sent again and again, each time with another beginning. */
  readonly #bytes: Uint8Array<ArrayBuffer>

  constructor(service: Service, did: Did, size: number) {
    this.did = did
    this.#service = service
    this.#bytes = randomFillSync(new Uint8Array(size))
  }

  /** @throws for an answer that names other bytes */
  async upload() {
    randomFillSync(this.#bytes, 0, 16)
    const { status, body } = await xrpc(this.#service.url, 'com.atproto.repo.uploadBlob', {
      body: this.#bytes,
      headers: { 'content-type': 'application/octet-stream' },
      authorization: `Bearer ${this.did}`,
    })
    if (status !== 200) throw new Error(`uploadBlob: ${status} ${JSON.stringify(body)}`)
    return blobRefOf(fieldsOf(body, 'blob'))
  }

  /** Uploads one that a record then names, and looks whether its CID is that of the bytes. */
  async post(): Promise<string> {
    const blob = await this.upload()
    const cid = cidToString(cidForRaw(this.#bytes))
    if (blob.ref.$link !== cid) throw new Error(`uploadBlob: ${blob.ref.$link} is not ${cid}`)
    const { url, did } = this.#service
    const record = { ...privatePost('with a blob', [`${did}/a`]), extra: blob }
    const input = { repo: this.did, collection: record.$type, record }
    const { status, body } = await xrpc(url, 'zone.stratos.repo.createRecord', {
      input,
      authorization: `Bearer ${this.did}`,
    })
    if (status !== 200) throw new Error(`createRecord: ${status} ${JSON.stringify(body)}`)
    return cid
  }

  /** @throws for other bytes than those of `post` */
  async download(cid: string, looks: 'all' | 'length'): Promise<void> {
    const params = new URLSearchParams({ did: this.did, cid })
    const response = await fetch(
      `${this.#service.url}/xrpc/com.atproto.sync.getBlob?${params.toString()}`,
      {
        headers: { authorization: `Bearer ${this.did}` },
      },
    )
    if (!response.ok || response.body === null) throw new Error(`getBlob: ${response.status}`)
    if (looks === 'all') {
      const taken = await response.bytes()
      if (!Buffer.from(taken).equals(this.#bytes)) throw new Error('getBlob: other bytes')
      return
    }
    let length = 0
    for await (const chunk of response.body) length += chunk.length
    if (length !== this.#bytes.length) throw new Error(`getBlob: ${length} bytes`)
  }
}
