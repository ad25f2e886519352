import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import type { AtUri } from '../../src/atproto/syntax.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { FeedReader, type Params } from './feed-reader.ts'
import { didOf, otherServiceDid, serviceDid, uriOf } from './small-index.ts'

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
  await reader.index.enroll(ann, ['a', 'b'])
  await reader.index.enroll(zoe, ['a'])
})
afterEach(async () => {
  await reader[Symbol.asyncDispose]()
})

/** A thread as text: `1(2(3) 4)`, what is above as `1<2`, and what is not found as `?1`. */
async function thread(rkey: string, params: Params = {}): Promise<string> {
  const answer = await reader.call('getPostThread', zoe, { uri: uri(rkey), ...params })
  return shown(Object(answer).thread)
}

function shown(thread: Thread): string {
  const key = (uri: string) => uri.slice(uri.lastIndexOf('/') + 1)
  if (thread.notFound === true) return `?${key(thread.uri ?? '')}`
  const { post, parent, replies = [] } = thread
  const above = parent === undefined ? '' : `${shown(parent)}<`
  const below = replies.length === 0 ? '' : `(${replies.map(shown).join(' ')})`
  return `${above}${key(post?.uri ?? '')}${below}`
}

interface Thread {
  readonly notFound?: boolean
  readonly uri?: string
  readonly post?: { readonly uri: string }
  readonly parent?: Thread
  readonly replies?: readonly Thread[]
}

function uri(rkey: string): AtUri {
  return uriOf({ author: ann, rkey })
}

/** Posts by their keys, each with the key of what it answers; those of capital letters in b. */
async function write(posts: Readonly<Record<string, string>>, service = serviceDid): Promise<void> {
  for (const [index, [rkey, parent]] of Object.entries(posts).entries()) {
    await reader.index.post({
      author: ann,
      rkey,
      boundaries: [/[A-Z]/.test(rkey) ? 'b' : 'a'],
      at: index,
      service,
      ...(parent === '' ? {} : { parent: uri(parent) }),
    })
  }
}

describe('a thread', () => {
  test('has no post that the viewer does not see, and says so only where one is named', async () => {
    await write({ A: '', b: 'A', c: 'b', D: 'b', e: 'D', f: 'c' })
    expect(await thread('b')).toBe('?A<b(c(f))')
    expect(await thread('e')).toBe('?D<e')
    expect(await thread('D')).toBe('?D')
    expect(await thread('A')).toBe('?A')
  })

  test('names what is gone or was never there in the same way', async () => {
    await write({ b: 'absent', c: 'b' })
    expect(await thread('b')).toBe('?absent<b(c)')
    expect(await thread('absent')).toBe('?absent')
  })

  test('ends above and below where it is told to', async () => {
    await write({ a: '', b: 'a', c: 'b', d: 'c', e: 'd', f: 'c' })
    expect(await thread('c')).toBe('a<b<c(d(e) f)')
    expect(await thread('c', { depth: 1 })).toBe('a<b<c(d f)')
    expect(await thread('c', { depth: 0, parentHeight: 1 })).toBe('b<c')
    expect(await thread('c', { depth: 0, parentHeight: 0 })).toBe('c')
  })

  test('has replies oldest first', async () => {
    await write({ z: '', y: 'z', x: 'z', w: 'y', v: 'y' })
    expect(await thread('z')).toBe('z(y(w v) x)')
  })

  test('has every post once, also where replies go round in a circle', async () => {
    await write({ a: 'c', b: 'a', c: 'b' })
    expect(await thread('b')).toBe('c<a<b')
  })

  test('has a post once that answers itself', async () => {
    await write({ a: 'a', b: 'a' })
    expect(await thread('a')).toBe('a(b)')
  })

  test('does not mix services', async () => {
    await reader.index.heard(otherServiceDid, reader.clock.ms)
    for (const did of [ann, zoe]) await reader.index.enroll(did, ['a'], otherServiceDid)
    await write({ a: '', b: 'a' })
    await write({ c: 'a' }, otherServiceDid)
    expect(await thread('a')).toBe('a(b)')
    expect(await thread('c')).toBe('?a<c')
  })

  test('has the first hundred replies of a post', async () => {
    const replies = Array.from({ length: 101 }, (_, index) => [`r${index}`, 'a'])
    await write({ a: '', ...Object.fromEntries(replies) })
    const text = await thread('a')
    expect(text.split(' ')).toHaveLength(100)
    expect(text).toEndWith(' r99)')
  })

  test('has a thousand posts below at most, and those of the upper levels', async () => {
    const rows = (level: number) =>
      Array.from({ length: 90 * 10 }, (_, index) => [
        `${level}x${index}`,
        level === 1 ? (index < 90 ? 'a' : `1x${index % 90}`) : `1x${index}`,
      ])
    await write({ a: '', ...Object.fromEntries(rows(1)), ...Object.fromEntries(rows(2)) })
    const text = await thread('a')
    expect(text.match(/\dx/g)).toHaveLength(1_000)
    expect(text.match(/1x/g)).toHaveLength(900)
  })

  test('ends where its content becomes too large', async () => {
    const large = { author: ann, boundaries: ['a'], text: 'x'.repeat(300_000) }
    await reader.index.post({ ...large, rkey: 'a', at: 1 })
    await reader.index.post({ ...large, rkey: 'b', at: 2, parent: uri('a') })
    await reader.index.post({ ...large, rkey: 'c', at: 3, parent: uri('b') })
    await reader.index.post({ ...large, rkey: 'd', at: 4, parent: uri('c') })
    expect(await thread('c')).toBe('b<c')
    expect(await thread('a')).toBe('a(b)')
  })
})
