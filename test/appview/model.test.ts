import { afterAll, beforeAll, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { AtUri, Did } from '../../src/atproto/syntax.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { type Feed, FeedReader } from './feed-reader.ts'
import { boundaryOf, didOf, otherServiceDid, serviceDid, uriOf } from './small-index.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

const services = [serviceDid, otherServiceDid]
const people = ['ann', 'ben', 'zoe'].map(didOf)
const names = ['a', 'b', 'c']
const keys = ['1', '2', '3', '4', '5', '6']
const where = { service: fc.constantFrom(...services), did: fc.constantFrom(...people) }
const post = { ...where, rkey: fc.constantFrom(...keys) }
const some = fc.subarray(names)

const change = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('post' as const),
      ...post,
      boundaries: fc.subarray(names, { minLength: 1 }),
      // Few, so that many posts are of one time.
      at: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), ...post }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('enroll' as const), ...where, boundaries: some }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unenroll' as const), ...where }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('take down' as const, 'lift' as const),
      ...where,
      path: fc.constantFrom('', ...keys.map((key) => `zone.stratos.feed.post/${key}`)),
    }),
  },
)
type Change = typeof change extends fc.Arbitrary<infer Value> ? Value : never

const question = fc.record({
  viewer: fc.constantFrom(...people),
  author: fc.option(fc.constantFrom(...people), { nil: undefined }),
  boundary: fc.option(
    fc.constantFrom(
      ...services.flatMap((service) => names.map((name) => boundaryOf(name, service))),
    ),
    { nil: undefined },
  ),
  limit: fc.integer({ min: 1, max: 4 }),
})
type Question = typeof question extends fc.Arbitrary<infer Value> ? Value : never

/** The whole of what the index has, and who may see what of it, as plain as can be. */
class Model {
  readonly #posts = new Map<string, Extract<Change, { kind: 'post' }>>()
  readonly #enrolled = new Map<string, readonly string[]>()
  readonly #down = new Set<string>()

  apply(change: Change): void {
    const member = `${change.service} ${change.did}`
    switch (change.kind) {
      case 'post':
        this.#posts.set(`${member} ${change.rkey}`, change)
        return
      case 'remove':
        this.#posts.delete(`${member} ${change.rkey}`)
        return
      case 'enroll':
        this.#enrolled.set(member, change.boundaries)
        return
      case 'unenroll':
        this.#enrolled.delete(member)
        return
      case 'take down':
        this.#down.add(`${member} ${change.path}`)
        return
      case 'lift':
        this.#down.delete(`${member} ${change.path}`)
    }
  }

  /** Newest first, by time and then URI, each pair of them once. */
  feed({ viewer, author, boundary }: Omit<Question, 'limit'>): string[] {
    const places = [...this.#posts.values()]
      .filter(({ did }) => author === undefined || did === author)
      .filter((post) => this.#shows(post, { viewer, boundary }))
      .map((post) => `${post.at} ${uriOf({ author: post.did, rkey: post.rkey })}`)
    return [...new Set(places)].toSorted((a, b) => (a < b ? 1 : -1))
  }

  #shows(
    { service, did, rkey, boundaries }: Extract<Change, { kind: 'post' }>,
    { viewer, boundary }: Pick<Question, 'viewer' | 'boundary'>,
  ): boolean {
    const member = `${service} ${did}`
    if (!this.#enrolled.has(member)) return false
    if (this.#down.has(`${member} `)) return false
    if (this.#down.has(`${member} zone.stratos.feed.post/${rkey}`)) return false
    const own = this.#enrolled.get(`${service} ${viewer}`) ?? []
    return boundaries
      .filter((name) => own.includes(name))
      .some((name) => boundary === undefined || boundary === boundaryOf(name, service))
  }
}

class Both {
  readonly #reader: FeedReader
  readonly model = new Model()

  constructor(reader: FeedReader) {
    this.#reader = reader
  }

  async apply(change: Change): Promise<void> {
    const { index } = this.#reader
    const { service, did } = change
    this.model.apply(change)
    switch (change.kind) {
      case 'post':
      case 'remove': {
        const { rkey } = change
        await index.remove(uriOf({ author: did, rkey }), service)
        if (change.kind === 'remove') return
        // The time is a text in it, which tells the two posts of one URI apart.
        await index.post({ ...change, author: did, text: String(change.at) })
        return
      }
      case 'enroll':
        await index.enroll(did, change.boundaries, service)
        return
      case 'unenroll':
        await index.unenroll(did, service)
        return
      case 'take down':
        await index.takeDown(did, change.path, service)
        return
      case 'lift':
        await index.lift(did, change.path, service)
    }
  }

  /** All pages; `between` two of them something may happen. */
  async walk(asked: Question, between: (page: readonly string[]) => Promise<void>) {
    const { viewer, author, boundary, limit } = asked
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const params = {
        limit,
        ...(boundary === undefined ? {} : { boundary }),
        ...(author === undefined ? {} : { actor: author }),
        ...(cursor === undefined ? {} : { cursor }),
      }
      const name = author === undefined ? 'getTimeline' : 'getAuthorFeed'
      const page = await this.#reader.feed(name, viewer, params)
      const places = page.feed.map(placeOf)
      // A page is full whenever there is more.
      if (page.cursor !== undefined) expect(places).toHaveLength(limit)
      await between(places)
      seen.push(...places)
      cursor = page.cursor
    } while (cursor !== undefined)
    return seen
  }

  async sees(viewer: Did, uri: AtUri): Promise<boolean> {
    const found = await this.#reader.call('getPostThread', viewer, { uri })
    return Object(found).thread.notFound !== true
  }
}

function placeOf({ post }: Feed['feed'][number]): string {
  const { createdAt } = Object(post).record
  return `${new Date(createdAt).getTime()} ${post.uri}`
}

test('feeds are those of a model, and no walk through them repeats or leaves out a post', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { minLength: 20, maxLength: 60 }),
      fc.array(question, { minLength: 1, maxLength: 4 }),
      fc.array(change, { maxLength: 12 }),
      async (before, questions, meanwhile) => {
        await using reader = await FeedReader.open(server)
        await reader.index.heard(otherServiceDid, reader.clock.ms)
        const both = new Both(reader)
        for (const service of services) {
          for (const did of people) {
            await both.apply({ kind: 'enroll', service, did, boundaries: ['a', 'b'] })
          }
        }
        for (const one of before) await both.apply(one)
        for (const asked of questions) {
          expect(await both.walk(asked, async () => undefined)).toEqual(both.model.feed(asked))
        }
        for (const viewer of people) {
          const visible = new Set(
            both.model
              .feed({ viewer, author: undefined, boundary: undefined })
              .map((place) => place.slice(2)),
          )
          for (const author of people) {
            const uri = uriOf({ author, rkey: '1' })
            expect(await both.sees(viewer, uri)).toBe(visible.has(uri))
          }
        }
        const [asked] = questions
        if (asked === undefined) return
        const changes = [...meanwhile]
        let lasting = new Set(both.model.feed(asked))
        const seen = await both.walk(asked, async (page) => {
          const now = new Set(both.model.feed(asked))
          for (const place of page) expect(now).toContain(place)
          const next = changes.shift()
          if (next !== undefined) await both.apply(next)
          lasting = lasting.intersection(new Set(both.model.feed(asked)))
        })
        expect(seen).toEqual([...new Set(seen)])
        for (const place of lasting) expect(seen).toContain(place)
      },
    ),
    { numRuns: 25 },
  )
}, 120_000)
