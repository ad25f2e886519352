import { createHmac, timingSafeEqual } from 'node:crypto'
import { XrpcError } from '../atproto/errors.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import {
  type AskedBlob,
  askedBlob,
  blobNotFound,
  type BlobContent,
  type ContentAnswer,
} from './blob-content.ts'
import type { AppViews } from './appviews.ts'
import type { Caller, Reader } from './caller.ts'

interface Parts {
  readonly secret: Uint8Array
  readonly publicUrl: string
  readonly content: BlobContent
  readonly appViews: AppViews
  readonly now: () => number
}

/**
 * Addresses under which a page shows a blob to one viewer for a short while. They prove who was let
 * in, and no more: at each use the viewer's access is looked at again.
 */
export class BlobLinks {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** @throws XrpcError 403 Forbidden for whom no link can stand */
  make(caller: Caller, asked: AskedBlob): { readonly url: string; readonly expiresAt: string } {
    if (caller.kind !== 'user' && caller.kind !== 'service') {
      throw new XrpcError(403, 'Forbidden', 'links to blobs are for people and AppViews')
    }
    const expires = this.#parts.now() + linkMs
    const { did, cid } = asked
    const link: Link = { did, cid, kind: caller.kind, viewer: caller.did, expires }
    const url = new URL(`/blob/${encodeURIComponent(did)}/${cid}`, this.#parts.publicUrl)
    url.searchParams.set('kind', link.kind)
    url.searchParams.set('viewer', link.viewer)
    url.searchParams.set('expires', String(expires))
    url.searchParams.set('signature', this.#sign(link))
    return { url: url.href, expiresAt: new Date(expires).toISOString() }
  }

  /** @throws XrpcError 404 BlobNotFound, whatever is wrong with it; 416, 503 as `BlobContent` */
  async open(url: URL, request: Request, requestId: string): Promise<ContentAnswer> {
    const link = this.#read(url)
    if (link === undefined) throw blobNotFound()
    const viewer = await this.#viewerOf(link)
    if (viewer === undefined) throw blobNotFound()
    const { did, cid } = link
    const ask = { caller: viewer, asked: { did, cid }, requestId }
    try {
      return await this.#parts.content.answer(request, ask)
    } catch (error) {
      // What only an owner is told is not for whoever has the link.
      if (error instanceof XrpcError && error.status === 403) throw blobNotFound()
      throw error
    }
  }

  async #viewerOf({ kind, viewer }: Link): Promise<Reader | undefined> {
    if (kind === 'user') return { kind, did: viewer }
    return await this.#parts.appViews.find(viewer)
  }

  /** Undefined for a link that was not made here, and for one whose time is over. */
  #read({ pathname, searchParams }: URL): Link | undefined {
    const [, path, did = '', cid = '', ...more] = pathname.split('/')
    const kind = searchParams.get('kind')
    const viewer = searchParams.get('viewer') ?? ''
    const expires = searchParams.get('expires') ?? ''
    if (path !== 'blob' || more.length > 0 || !isDid(viewer)) return undefined
    if (kind !== 'user' && kind !== 'service') return undefined
    const asked = readable(did, cid)
    if (asked === undefined) return undefined
    if (!/^[1-9]\d{0,14}$/.test(expires)) return undefined
    const link: Link = { ...asked, kind, viewer, expires: Number(expires) }
    // As text: of one signature there are several, of which one was given out.
    const said = Buffer.from(searchParams.get('signature') ?? '')
    const signature = Buffer.from(this.#sign(link))
    if (said.length !== signature.length || !timingSafeEqual(said, signature)) return undefined
    return link.expires > this.#parts.now() ? link : undefined
  }

  #sign({ did, cid, kind, viewer, expires }: Link): string {
    const said = JSON.stringify([did, cid, kind, viewer, expires])
    return createHmac('sha256', this.#parts.secret).update(said).digest('base64url')
  }
}

interface Link extends AskedBlob {
  readonly kind: 'user' | 'service'
  readonly viewer: Did
  /** Milliseconds since 1970. */
  readonly expires: number
}

/** @see protocol.md, section 7 */
const linkMs = 5 * 60_000

function readable(did: string, cid: string): AskedBlob | undefined {
  try {
    return askedBlob(decodeURIComponent(did), cid)
  } catch {
    // It names no blob, and that is all there is to say.
    return undefined
  }
}
