import { Schemas } from '../../src/atproto/lexicon.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { Authors } from '../../src/appview/authors.ts'
import { FeedCursors } from '../../src/appview/cursor.ts'
import { type FeedMethod, feedMethods } from '../../src/appview/feed.ts'
import { IndexReads } from '../../src/appview/index-reads.ts'
import { createLog } from '../../src/lib/log.ts'
import { Identities } from '../../src/remote/identity.ts'
import type { PostgresServer } from '../kit/postgres.ts'
import { Clock, Directory, loopbackFetch } from '../remote/directory.ts'
import { serviceDid, SmallIndex } from './small-index.ts'

export type Params = Readonly<Record<string, string | number>>

export interface Feed {
  readonly feed: readonly { readonly post: { readonly uri: string } }[]
  readonly cursor?: string
}

/** Feeds over a small index, called as through a door: parameters and answers are checked. */
export class FeedReader implements AsyncDisposable {
  readonly clock = new Clock()
  readonly directory = new Directory()
  readonly index: SmallIndex
  /** By name, without `_atproto`. */
  readonly handles = new Map<string, Did>()
  /** In place of `handles`, where set. */
  resolveTxt: ((name: string) => Promise<string[][]>) | undefined
  readonly identities: Identities
  readonly #schemas = new Schemas(schemaDocs)
  readonly reads: IndexReads
  readonly #methods: Record<string, FeedMethod>

  private constructor(index: SmallIndex) {
    this.index = index
    this.reads = new IndexReads({ url: index.url })
    const { now } = this.clock
    this.identities = new Identities({
      plcUrl: this.directory.url,
      fetch: loopbackFetch,
      now,
      resolveTxt: async (record) => {
        const name = record.replace('_atproto.', '')
        if (this.resolveTxt !== undefined) return await this.resolveTxt(name)
        const did = this.handles.get(name)
        return did === undefined ? [] : [[`did=${did}`]]
      },
    })
    const log = createLog('silent', () => undefined)
    this.#methods = feedMethods({
      reads: this.reads,
      identities: this.identities,
      authors: new Authors({ identities: this.identities, now, log }),
      cursors: new FeedCursors(Buffer.from('of a test')),
      now,
    })
  }

  /** Over an empty index whose service was heard just now. */
  static async open(server: PostgresServer): Promise<FeedReader> {
    const reader = new FeedReader(await SmallIndex.open(server))
    await reader.index.heard(serviceDid, reader.clock.ms)
    return reader
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.directory[Symbol.asyncDispose]()
    await this.reads[Symbol.asyncDispose]()
    await this.index[Symbol.asyncDispose]()
  }

  /** @param name behind `zone.stratos.feed.` */
  async call(name: string, viewer: Did, params: Params = {}): Promise<unknown> {
    const nsid = `zone.stratos.feed.${name}`
    const search = new URLSearchParams()
    for (const [name, value] of Object.entries(params)) search.set(name, String(value))
    const method = this.#methods[nsid]
    if (method === undefined) throw new Error(`there is no ${nsid}`)
    const checked = this.#schemas.checkParams(nsid, search)
    const answer: unknown = JSON.parse(JSON.stringify(await method({ viewer, params: checked })))
    this.#schemas.checkOutput(nsid, answer)
    return answer
  }

  async feed(name: string, viewer: Did, params: Params = {}): Promise<Feed> {
    const answer = await this.call(name, viewer, params)
    if (!isFeed(answer)) throw new Error(`${name} gave no feed`)
    return answer
  }

  async uris(name: string, viewer: Did, params: Params = {}): Promise<string[]> {
    const { feed } = await this.feed(name, viewer, params)
    return feed.map(({ post }) => post.uri)
  }
}

/** By its lexicon it is, where it has the member. */
function isFeed(answer: unknown): answer is Feed {
  return typeof answer === 'object' && answer !== null && 'feed' in answer
}
