import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { postView } from '../../src/appview/post.ts'
import { growthMax } from '../../src/appview/visible.ts'
import { encode } from '../../src/atproto/cbor.ts'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'
import type { AtUri } from '../../src/atproto/syntax.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { FeedReader } from './feed-reader.ts'
import { didOf, recordOf, serviceDid, type TestPost, uriOf, urlOf } from './small-index.ts'

/** What a PDS passes on at most. */
const answerBytesMax = 10 * 1024 * 1024

let server: PostgresServer
let reader: FeedReader
const [ann, zoe] = [didOf('ann'), didOf('zoe')]

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  reader = await FeedReader.open(server)
  await reader.index.enroll(ann, ['a'])
  await reader.index.enroll(zoe, ['a'])
})
afterEach(async () => {
  await reader[Symbol.asyncDispose]()
})

/** What grows much from DAG-CBOR to JSON, about as much as a record may hold. */
const hostile: Readonly<Record<string, Partial<TestPost>>> = {
  'bytes of which there are none': { embed: repeated(19_900, { $bytes: '' }) },
  'control characters': { text: '\u0001'.repeat(40_000) },
  'media types of control characters': { embed: blobsOf(`${'\u0001'.repeat(2_500)}/a`) },
  'blobs and nothing else': { embed: blobsOf('a/b') },
}

describe('an answer stays below what a PDS passes on', () => {
  test.each(Object.entries(hostile))('where posts hold %s', async (_, post) => {
    const written = await write(60, post)
    const found: string[] = []
    let cursor: string | undefined
    do {
      const after = cursor === undefined ? {} : { cursor }
      const page = await reader.feed('getTimeline', zoe, { limit: 100, ...after })
      expect(bytesOf(page)).toBeLessThanOrEqual(answerBytesMax)
      expect(page.feed.length).toBeGreaterThan(0)
      found.push(...page.feed.map(({ post }) => post.uri))
      cursor = page.cursor
    } while (cursor !== undefined)
    expect(found).toEqual(written.toReversed())
  })

  test.each(Object.entries(hostile))('where answers to a post hold %s', async (_, post) => {
    const parent = await reader.index.post({ author: ann, rkey: 'a', boundaries: ['a'], at: 0 })
    await write(60, { ...post, parent })
    const thread = await reader.call('getPostThread', zoe, { uri: parent })
    expect(bytesOf(thread)).toBeLessThanOrEqual(answerBytesMax)
    expect(JSON.stringify(thread)).toContain('zone.stratos.feed.post/1001')
  })

  const whole = 1024 * 1024 - 1_000
  const largest: Readonly<Record<string, Partial<TestPost>>> = {
    text: { text: '\u0001'.repeat(whole) },
    'the media type of a blob': { embed: blobsOf(`${'\u0001'.repeat(whole - 100)}/a`, 1) },
    'bytes beside text': {
      text: '\u0001'.repeat(whole - 20_000),
      embed: repeated(19_900, { $bytes: '' }),
    },
  }
  test.each(Object.entries(largest))('where the largest post is %s', async (_, post) => {
    const [uri] = await write(1, post)
    const large = { viewer: zoe, params: { uri: uri ?? '' } }
    for (const name of ['getTimeline', 'getPost', 'getPostThread']) {
      const params = name === 'getTimeline' ? {} : large.params
      const answer = await reader.call(name, zoe, params)
      expect(bytesOf(answer)).toBeWithin(whole, answerBytesMax)
    }
  })
})

test('a page of a hundred posts as people write them is whole', async () => {
  const image = blobsOf('image/jpeg', 4)
  await write(101, { text: 'å'.repeat(300), embed: image })
  const { feed, cursor } = await reader.feed('getTimeline', zoe, { limit: 100 })
  expect([feed.length, cursor]).toEqual([100, expect.any(String)])
})

test('a thread ends above where a post names as another what can be none', async () => {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a record may name anything
  const parent = `at://${ann}/zone.stratos.feed.post/${'x'.repeat(100_000)}` as AtUri
  const [uri = ''] = await write(1, { parent })
  const thread = await reader.call('getPostThread', zoe, { uri })
  expect(thread).toMatchObject({ thread: { post: { uri } } })
  expect(thread).not.toHaveProperty('thread.parent')
})

test('what is shown of any post grows no more than it is taken to', () => {
  const key = fc.string({ unit: fc.constantFrom('\u0001', 'a', 'å'), maxLength: 3 })
  const leaf = fc.oneof(
    fc.constant({ $bytes: '' }),
    fc.constant({ $link: cidOf('link') }),
    fc.constant(blobsOf('a/b', 1)),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.string({ unit: fc.constantFrom('\u0001', '"', '\\', 'å', '\u007F') }),
  )
  const { value } = fc.letrec<{ value: DataValue }>((tie) => ({
    value: fc.oneof(
      leaf,
      fc.array(tie('value')),
      fc.dictionary(key, tie('value'), { noNullPrototype: true }),
    ),
  }))
  const post = { author: ann, rkey: '1', boundaries: ['a'], at: 1 }
  fc.assert(
    fc.property(value, (embed) => {
      // What grows most must not be lost beside what every post has.
      const count = Math.ceil(15_000 / encode(embed).length)
      const record = encode(recordOf({ ...post, embed: repeated(count, embed) }))
      const shown = bytesOf({ $type: threadType, post: view(post, record), replies: [] })
      expect(shown).toBeLessThanOrEqual(growthMax * (record.length + uriOf(post).length))
    }),
  )
})

const threadType = 'zone.stratos.feed.defs#threadViewPost'

function view(post: TestPost, record: Uint8Array) {
  const handles = new Map([[ann, `${'a'.repeat(60)}.`.repeat(4).concat('test')]])
  const stored = { cid: cidOf('post'), indexedAt: new Date(0), serviceUrl: urlOf(serviceDid) }
  return postView({ uri: uriOf(post), creator: ann, record, ...stored }, handles)
}

/** In the order of their times, with keys from 1001 on. */
async function write(count: number, post: Partial<TestPost>): Promise<AtUri[]> {
  const uris: AtUri[] = []
  for (let at = 1; at <= count; at++) {
    const rkey = String(1_000 + at)
    uris.push(await reader.index.post({ author: ann, rkey, boundaries: ['a'], at, ...post }))
  }
  return uris
}

function bytesOf(answer: unknown): number {
  return Buffer.byteLength(JSON.stringify(answer))
}

function repeated(count: number, value: DataValue): DataValue {
  return Array.from({ length: count }, () => value)
}

function blobsOf(mimeType: string, count = 16): DataObject {
  const blob = (index: number) => ({
    $type: 'blob',
    ref: { $link: cidOf(String(index)) },
    mimeType,
    size: 0,
  })
  return { blobs: Array.from({ length: count }, (_, index) => blob(index)) }
}

function cidOf(text: string): string {
  return cidToString(cidForRaw(Buffer.from(text)))
}
