import { overloaded, XrpcError } from '../atproto/errors.ts'
import { number, text } from '../atproto/members.ts'
import {
  type AtUri,
  type Did,
  isDid,
  type Nsid,
  parseNsid,
  recordPlace,
  recordUri,
} from '../atproto/syntax.ts'
import { Shares } from '../lib/shares.ts'
import { accountOf } from '../remote/account.ts'
import type { Identities } from '../remote/identity.ts'
import type { Authors } from './authors.ts'
import type { FeedCursors, FeedName } from './cursor.ts'
import { feedPage } from './feed-query.ts'
import type { IndexReads } from './index-reads.ts'
import { isMember } from './member.ts'
import { authorsOf, type PostRow, type PostView, postView } from './post.ts'
import { threadRows, visiblePost } from './thread-query.ts'
import { postsOf, threadView } from './thread.ts'
import type { Viewer } from './visible.ts'

export interface FeedParts {
  readonly reads: IndexReads
  readonly identities: Identities
  readonly authors: Authors
  readonly cursors: FeedCursors
  readonly now: () => number
}

/** A call by somebody who is known, with parameters that passed their lexicon. */
interface FeedCall {
  readonly viewer: Did
  readonly params: Readonly<Record<string, unknown>>
}

/**
 * Gives the body of an answer.
 * @throws XrpcError as its lexicon says
 */
export type FeedMethod = (call: FeedCall) => Promise<object>

/** Reads of the index, by NSID, with the eyes of a viewer. */
export function feedMethods(parts: FeedParts): Record<string, FeedMethod> {
  const feeds = new Feeds(parts)
  return {
    [timeline]: (call) => feeds.getTimeline(call),
    [authorFeed]: (call) => feeds.getAuthorFeed(call),
    'zone.stratos.feed.getPost': (call) => feeds.getPost(call),
    'zone.stratos.feed.getPostThread': (call) => feeds.getPostThread(call),
  }
}

const timeline = parseNsid('zone.stratos.feed.getTimeline')
const authorFeed = parseNsid('zone.stratos.feed.getAuthorFeed')

class Feeds {
  readonly #parts: FeedParts
  readonly #lookUps = new Shares<Did>({ ...lookUpsMax, refusal: tooManyLookUps })

  constructor(parts: FeedParts) {
    this.#parts = parts
  }

  getTimeline(call: FeedCall): Promise<object> {
    return this.#page(call, { method: timeline })
  }

  async getAuthorFeed(call: FeedCall): Promise<object> {
    const author = await this.#author(call)
    // As of somebody of whom the viewer sees no post.
    if (author === undefined) return { feed: [] }
    return await this.#page(call, { method: authorFeed, author })
  }

  async getPost({ viewer, params }: FeedCall): Promise<object> {
    const uri = postUri(params)
    const ask = uri === undefined ? undefined : { viewer: this.#viewer(viewer), uri }
    const post = ask === undefined ? undefined : await visiblePost(this.#parts.reads, ask)
    if (post === undefined) throw postNotFound()
    const [item] = await this.#items([post])
    return { post: item }
  }

  async getPostThread({ viewer, params }: FeedCall): Promise<object> {
    const uri = postUri(params)
    const rows =
      uri === undefined
        ? nothing
        : await threadRows(this.#parts.reads, {
            viewer: this.#viewer(viewer),
            uri,
            depth: number(params, 'depth') ?? 6,
            parentHeight: number(params, 'parentHeight') ?? 80,
          })
    const handles = await this.#parts.authors.handlesOf(authorsOf(postsOf(rows)))
    const view = (post: PostRow) => postView(post, handles)
    return { thread: threadView(rows, { uri: text(params, 'uri') ?? '', view }) }
  }

  /** Somebody's servers are asked where a handle leads, and not for whom sees nothing anyway. */
  async #author({ viewer, params }: FeedCall): Promise<Did | undefined> {
    const { reads, identities } = this.#parts
    const actor = text(params, 'actor') ?? ''
    if (isDid(actor)) return actor
    if (!(await isMember(reads, { did: viewer, reader: viewer }))) return undefined
    return await this.#lookUps.run(viewer, () => accountOf(actor, identities))
  }

  async #page(
    { viewer, params }: FeedCall,
    { method, author }: { readonly method: Nsid; readonly author?: Did },
  ): Promise<object> {
    const { reads, cursors } = this.#parts
    const boundary = text(params, 'boundary')
    const name: FeedName = { method, viewer, author, boundary }
    const cursor = text(params, 'cursor')
    const { posts, next } = await feedPage(reads, {
      viewer: this.#viewer(viewer),
      author,
      boundary,
      limit: number(params, 'limit') ?? 50,
      after: cursor === undefined ? undefined : cursors.read(name, cursor),
    })
    const feed = await this.#items(posts)
    return next === undefined ? { feed } : { feed, cursor: cursors.write(name, next) }
  }

  async #items(posts: readonly PostRow[]): Promise<{ post: PostView }[]> {
    const handles = await this.#parts.authors.handlesOf(authorsOf(posts))
    return posts.map((post) => ({ post: postView(post, handles) }))
  }

  #viewer(did: Did): Viewer {
    return { did, now: this.#parts.now() }
  }
}

/**
 * Of handles, by viewers. In a service that answers feeds people sign in by the same look-ups: what
 * these and those of `Authors` leave of them is for these people.
 */
const lookUpsMax = { ofOneMax: 4, togetherMax: 8 } as const

function tooManyLookUps(whose: 'own' | 'all'): XrpcError {
  return overloaded(
    whose === 'own'
      ? 'you are looking several handles up already'
      : 'too many handles are looked up at this moment',
  )
}

const nothing = { anchor: undefined, above: [], below: [] }

/** Undefined for what can be no URI of a post here. */
function postUri(params: FeedCall['params']): AtUri | undefined {
  const place = recordPlace(text(params, 'uri') ?? '')
  return place === undefined ? undefined : recordUri(place.did, place.collection, place.rkey)
}

/** The one answer for what is not there and for what the viewer may not know of. */
function postNotFound(): XrpcError {
  return new XrpcError(404, 'PostNotFound', 'there is no post at this URI to see')
}
