import { deflateSync } from 'node:zlib'
import { randomBytes } from 'node:crypto'
import type { SeededStratos } from './seeded.ts'
import { privatePost } from './post.ts'
import { fieldsOf, textOf, xrpcResponse } from './xrpc.ts'

/** A blob as records name it. */
export interface BlobRef {
  readonly $type: 'blob'
  readonly ref: { readonly $link: string }
  readonly mimeType: string
  readonly size: number
}

/** A PNG that is like no other, of about so many bytes. */
export function picture(bytes = 200): Uint8Array<ArrayBuffer> {
  const side = 8
  const header = Buffer.alloc(13)
  header.writeUInt32BE(side, 0)
  header.writeUInt32BE(side, 4)
  header.set([8, 2, 0, 0, 0], 8)
  const rows = Array.from({ length: side }, () =>
    Buffer.concat([Buffer.alloc(1), randomBytes(side * 3)]),
  )
  return new Uint8Array(
    Buffer.concat([
      Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
      chunk('IHDR', header),
      // Larger than its pixels need: viewers pass over a chunk that they do not know.
      ...(bytes > 400 ? [chunk('paDd', randomBytes(bytes - 300))] : []),
      chunk('IDAT', deflateSync(Buffer.concat(rows))),
      chunk('IEND', Buffer.alloc(0)),
    ]),
  )
}

function chunk(name: string, data: Uint8Array): Buffer {
  const named = Buffer.concat([Buffer.from(name), data])
  const whole = Buffer.alloc(named.length + 8)
  whole.writeUInt32BE(data.length, 0)
  named.copy(whole, 4)
  whole.writeUInt32BE(Bun.hash.crc32(named), named.length + 4)
  return whole
}

/** Uploads bytes as somebody of a seeded service. @throws for any other answer than 200 */
export async function uploadBlob(
  stratos: SeededStratos,
  name: string,
  {
    bytes,
    type = 'image/png',
  }: { readonly bytes: Uint8Array<ArrayBuffer>; readonly type?: string },
): Promise<BlobRef> {
  const { status, body } = await stratos.call('com.atproto.repo.uploadBlob', {
    body: bytes,
    headers: { 'content-type': type },
    authorization: stratos.person(name).bearer,
  })
  if (status !== 200) throw new Error(`uploadBlob answered ${status} ${JSON.stringify(body)}`)
  return blobRefOf(fieldsOf(body, 'blob'))
}

export function blobRefOf(blob: Readonly<Record<string, unknown>>): BlobRef {
  const { size } = blob
  if (typeof size !== 'number') throw new Error('a blob has a size')
  const $link = textOf(fieldsOf(blob, 'ref'), '$link')
  return { $type: 'blob', ref: { $link }, mimeType: textOf(blob, 'mimeType'), size }
}

/** A private post with a picture. */
export function picturePost(text: string, boundaries: readonly string[], image: BlobRef) {
  const embed = { $type: 'app.bsky.embed.images', images: [{ image, alt: '' }] }
  return { ...privatePost(text, boundaries), embed }
}

/** Asks for bytes, of `owner`, with somebody's credentials or without. */
export function getBlob(
  stratos: SeededStratos,
  owner: string,
  {
    cid,
    authorization,
    headers = {},
  }: {
    readonly cid: string
    readonly authorization?: string | undefined
    readonly headers?: Readonly<Record<string, string>>
  },
): Promise<Response> {
  const params = { did: stratos.person(owner).did, cid }
  return xrpcResponse(stratos.url, 'com.atproto.sync.getBlob', { params, authorization, headers })
}
