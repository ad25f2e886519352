import { createHmac, timingSafeEqual } from 'node:crypto'
import { invalidRequest } from '../atproto/errors.ts'
import type { Did, Nsid } from '../atproto/syntax.ts'
import type { FeedPlace } from './feed-query.ts'

/** The feed of which a cursor is: it goes on in no other, and for nobody else. */
export interface FeedName {
  readonly method: Nsid
  readonly viewer: Did
  readonly author?: Did | undefined
  readonly boundary?: string | undefined
}

/** Texts that tell where a page of a feed ended, and that nobody else can make. */
export class FeedCursors {
  readonly #secret: Uint8Array

  constructor(secret: Uint8Array) {
    this.#secret = secret
  }

  write(feed: FeedName, { at, uri }: FeedPlace): string {
    const place = Buffer.from(JSON.stringify([at, uri])).toString('base64url')
    return `${place}.${this.#sign(feed, place)}`
  }

  /** @throws XrpcError 400 InvalidRequest for one that was not given out for this feed */
  read(feed: FeedName, cursor: string): FeedPlace {
    const [place = '', signature = '', ...more] = cursor.split('.')
    const said = Buffer.from(signature)
    const right = Buffer.from(this.#sign(feed, place))
    const isOurs = said.length === right.length && timingSafeEqual(said, right)
    if (!isOurs || more.length > 0) throw invalidRequest('cursor is none of this feed')
    const [at, uri]: string[] = JSON.parse(Buffer.from(place, 'base64url').toString())
    return { at: at ?? '', uri: uri ?? '' }
  }

  #sign({ method, viewer, author, boundary }: FeedName, place: string): string {
    const said = JSON.stringify([method, viewer, author ?? null, boundary ?? null, place])
    return createHmac('sha256', this.#secret).update(`feed cursor ${said}`).digest('base64url')
  }
}
