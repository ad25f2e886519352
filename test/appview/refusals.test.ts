import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { XrpcError } from '../../src/atproto/errors.ts'
import type { AtUri, Did } from '../../src/atproto/syntax.ts'
import { Gate } from '../kit/gate.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { FeedReader, type Params } from './feed-reader.ts'
import { boundaryOf, didOf, otherServiceDid, serviceDid, uriOf } from './small-index.ts'

let server: PostgresServer
let reader: FeedReader
let uri: AtUri
const [ann, ben, zoe] = [didOf('ann'), didOf('ben'), didOf('zoe')]

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})
/** Ann has written in a, where Ben is, too; Zoe is in b. */
beforeEach(async () => {
  reader = await FeedReader.open(server)
  await reader.index.enroll(ann, ['a'])
  await reader.index.enroll(ben, ['a', 'b'])
  await reader.index.enroll(zoe, ['b'])
  uri = await reader.index.post({ author: ann, rkey: '1', boundaries: ['a'], at: 1 })
})
afterEach(async () => {
  await reader[Symbol.asyncDispose]()
})

describe('no way of asking shows a post', () => {
  test('to whom it is shown otherwise: these tests can fail', async () => {
    await expectSeen(ben)
  })

  test('of another boundary', async () => {
    await expectUnseen(zoe)
  })

  test('of another boundary to whom names it', async () => {
    await expectNone('getTimeline', zoe, { boundary: boundaryOf('a') })
    await expectNone('getAuthorFeed', zoe, { actor: ann, boundary: boundaryOf('a') })
  })

  test('to whom names a boundary that is none', async () => {
    for (const boundary of ['', 'a', '\0', `${boundaryOf('a')}\0`, `${boundaryOf('a')}/`, '%']) {
      await expectNone('getTimeline', ben, { boundary })
      await expectNone('getAuthorFeed', ben, { actor: ann, boundary })
    }
  })

  test('to a stranger', async () => {
    await expectUnseen(didOf('stranger'))
  })

  test('to whom has left, or whose boundary was taken', async () => {
    await reader.index.unenroll(ben)
    await expectUnseen(ben)
    await reader.index.enroll(ben, ['b'])
    await expectUnseen(ben)
    await reader.index.enroll(ben, [])
    await expectUnseen(ben)
  })

  test('whose author has left, even to the author', async () => {
    await reader.index.unenroll(ann)
    await expectUnseen(ben)
    await expectUnseen(ann)
  })

  test('that was removed, or moved to another boundary', async () => {
    await reader.index.remove(uri)
    await expectUnseen(ben)
    await reader.index.post({ author: ann, rkey: '1', boundaries: ['c'], at: 1 })
    await expectUnseen(ben)
  })

  test('that was taken down, until that is lifted', async () => {
    await reader.index.takeDown(ann, 'zone.stratos.feed.post/1')
    await expectUnseen(ben)
    await reader.index.lift(ann, 'zone.stratos.feed.post/1')
    await expectSeen(ben)
  })

  test('whose repo was taken down, until that is lifted', async () => {
    await reader.index.takeDown(ann, '')
    await expectUnseen(ben)
    await reader.index.lift(ann, '')
    await expectSeen(ben)
  })

  test('for the takedown of another, or one at another service, it goes on being shown', async () => {
    await reader.index.takeDown(ann, 'zone.stratos.feed.post/2')
    await reader.index.takeDown(ben, '')
    await reader.index.takeDown(ann, '', otherServiceDid)
    await expectSeen(ben)
  })

  test('of a boundary that a service names although it is another’s', async () => {
    await reader.index.heard(otherServiceDid, reader.clock.ms)
    await reader.index.sql`insert into stratos_enrollment
      (service, did, "serviceUrl", "enrolledAt", "lastChecked", boundaries) values
      (${otherServiceDid}, ${zoe}, '', now(), now(), ${[boundaryOf('a')]})`
    await expectUnseen(zoe)
  })

  test('that another service puts into a boundary of this one', async () => {
    await reader.index.heard(otherServiceDid, reader.clock.ms)
    for (const did of [ann, ben]) await reader.index.enroll(did, ['a'], otherServiceDid)
    await reader.index.remove(uri)
    await reader.index.post({
      author: ann,
      rkey: '1',
      boundaries: ['z'],
      at: 1,
      service: otherServiceDid,
    })
    await reader.index.sql`update stratos_post set boundaries = ${[boundaryOf('a')]}`
    await reader.index.sql`update stratos_post_boundary set boundary = ${boundaryOf('a')}`
    await expectUnseen(ben)
  })

  test('of a boundary of the same name at another service', async () => {
    await reader.index.heard(otherServiceDid, reader.clock.ms)
    await reader.index.enroll(zoe, ['a'], otherServiceDid)
    await expectUnseen(zoe)
  })
})

describe('a stale index', () => {
  const calls = (): [string, Params][] => [
    ['getTimeline', {}],
    ['getAuthorFeed', { actor: ann }],
    ['getPost', { uri }],
    ['getPostThread', { uri }],
  ]

  test('answers nobody whose service was silent for over five seconds', async () => {
    reader.clock.ms += 5_000
    await expectSeen(ben)
    reader.clock.ms += 1
    for (const [name, params] of calls()) {
      expect([name, await refusalOf(name, ben, params)]).toEqual([name, '503 IndexStale'])
    }
    await reader.index.heard(serviceDid, reader.clock.ms)
    await expectSeen(ben)
  })

  test('answers nobody whose service was heard in the future: its silence would not be noticed', async () => {
    await reader.index.heard(serviceDid, reader.clock.ms + 1_000)
    await expectSeen(ben)
    await reader.index.heard(serviceDid, reader.clock.ms + 1_001)
    for (const [name, params] of calls()) {
      expect([name, await refusalOf(name, ben, params)]).toEqual([name, '503 IndexStale'])
    }
  })

  test('answers nobody whose service was never heard', async () => {
    await reader.index.sql`delete from stratos_service_state`
    for (const [name, params] of calls()) {
      expect([name, await refusalOf(name, ben, params)]).toEqual([name, '503 IndexStale'])
    }
  })

  test('answers nobody one of whose services is silent', async () => {
    await reader.index.enroll(ben, ['x'], otherServiceDid)
    expect(await refusalOf('getTimeline', ben, { boundary: boundaryOf('a') })).toBe(
      '503 IndexStale',
    )
  })

  test('answers others', async () => {
    await reader.index.enroll(zoe, ['x'], otherServiceDid)
    await expectSeen(ben)
    reader.clock.ms += 60_000
    await expectNone('getTimeline', didOf('stranger'))
  })
})

test('more than a hundred questions of one viewer at once are refused, and nobody else’s', async () => {
  const asked = Array.from({ length: 101 }, () => reader.uris('getTimeline', ben))
  const more = [
    refusalOf('getAuthorFeed', ben, { actor: ann }),
    refusalOf('getPost', ben, { uri }),
    refusalOf('getPostThread', ben, { uri }),
  ]
  const others = [ann, zoe].map((viewer) => reader.uris('getTimeline', viewer))
  expect(await Promise.all(more)).toEqual(more.map(() => '503 Overloaded'))
  expect(await failureOf(asked[100] ?? Promise.resolve())).toMatchObject({
    message: 'you are reading many feeds already',
    headers: { 'retry-after': '1' },
  })
  expect(await Promise.all(asked.slice(0, 100))).toEqual(Array.from({ length: 100 }, () => [uri]))
  expect(await Promise.all(others)).toEqual([[uri], []])
  await expectSeen(ben)
})

describe('the handle of an author', () => {
  test('is looked up for nobody who is a member of nothing', async () => {
    const asked = await named('ann.example', ann)
    await reader.index.enroll(didOf('without boundaries'), [])
    await expectNone('getAuthorFeed', didOf('stranger'), { actor: 'ann.example' })
    reader.clock.ms += 60_000
    await expectNone('getAuthorFeed', didOf('stranger'), { actor: 'ann.example' })
    expect(await refusalOf('getAuthorFeed', didOf('stranger'), { actor: 'ann' })).toBe(
      '400 InvalidRequest',
    )
    expect(asked).toEqual([])
    expect(await refusalOf('getAuthorFeed', ben, { actor: 'ann.example' })).toBe('503 IndexStale')
    expect(asked).toEqual(['ann.example'])
  })

  test('is looked up for four questions of one viewer at once, and eight of all', async () => {
    const gate = new Gate()
    const asked = await named('ann.example', ann, gate)
    const feedOf = (viewer: Did, at: number) =>
      failureOf(reader.uris('getAuthorFeed', viewer, { actor: `${at}.ann.example` }))
    const waiting = [0, 1, 2, 3].map((at) => feedOf(ben, at))
    await eventually('look-ups', () => asked.includes('3.ann.example') || undefined)
    expect(await feedOf(ben, 4)).toMatchObject({
      status: 503,
      error: 'Overloaded',
      message: 'you are looking several handles up already',
      headers: { 'retry-after': '1' },
    })
    expect(await reader.uris('getAuthorFeed', ben, { actor: ann })).toEqual([uri])
    waiting.push(...[5, 6, 7, 8].map((at) => feedOf(zoe, at)))
    await eventually('look-ups', () => asked.includes('8.ann.example') || undefined)
    expect(await feedOf(ann, 9)).toMatchObject({
      error: 'Overloaded',
      message: 'too many handles are looked up at this moment',
    })
    gate.open()
    expect(await Promise.all(waiting)).toEqual(waiting.map(() => undefined))
    expect(await feedOf(ben, 4)).toBeUndefined()
  })

  /** Gives the handles that are looked up from now on, those below this one and itself. */
  async function named(handle: string, did: Did, gate?: Gate): Promise<readonly string[]> {
    const asked: string[] = []
    reader.directory.accounts.set(did, { handle })
    reader.resolveTxt = async (name) => {
      asked.push(name)
      await gate?.pass()
      return name === handle ? [[`did=${did}`]] : []
    }
    return asked
  }
})

describe('a cursor is refused', () => {
  test('that was made up or changed', async () => {
    const cursor = await cursorOf('getTimeline', ben)
    const [place = '', signature = ''] = cursor.split('.')
    const later = Buffer.from(JSON.stringify(['infinity', ''])).toString('base64url')
    const forged = [
      'x',
      '.',
      '',
      place,
      `${place}.`,
      `${later}.${signature}`,
      `${place}.${signature}.`,
      `${place}A.${signature}`,
      `${place}.${signature.slice(1)}`,
      `${place}.${signature}=`,
    ]
    for (const cursor of forged) {
      expect([cursor, await refusalOf('getTimeline', ben, { cursor })]).toEqual([
        cursor,
        '400 InvalidRequest',
      ])
    }
    expect(await reader.uris('getTimeline', ben, { cursor })).toHaveLength(1)
  })

  test('that is of another method, viewer, author or boundary', async () => {
    const cursor = await cursorOf('getTimeline', ben)
    const narrowed = await cursorOf('getTimeline', ben, { boundary: boundaryOf('a') })
    const ofAnn = await cursorOf('getAuthorFeed', ben, { actor: ann })
    const foreign: [string, Did, Params][] = [
      ['getTimeline', ann, { cursor }],
      ['getTimeline', ben, { cursor, boundary: boundaryOf('a') }],
      ['getTimeline', ben, { cursor, boundary: '' }],
      ['getTimeline', ben, { cursor: narrowed }],
      ['getTimeline', ben, { cursor: narrowed, boundary: boundaryOf('b') }],
      ['getTimeline', ben, { cursor: ofAnn }],
      ['getAuthorFeed', ben, { cursor, actor: ann }],
      ['getAuthorFeed', ben, { cursor: ofAnn, actor: ben }],
    ]
    for (const [name, viewer, params] of foreign) {
      expect(await refusalOf(name, viewer, params)).toBe('400 InvalidRequest')
    }
    expect(await reader.uris('getAuthorFeed', ben, { cursor: ofAnn, actor: ann })).toHaveLength(1)
  })

  async function cursorOf(name: string, viewer: Did, params: Params = {}): Promise<string> {
    const rkey = crypto.randomUUID()
    await reader.index.post({ author: ann, rkey, boundaries: ['a'], at: 2 })
    const { cursor = '' } = await reader.feed(name, viewer, { ...params, limit: 1 })
    await reader.index.remove(uriOf({ author: ann, rkey }))
    return cursor
  }
})

test.each<[string, Params]>([
  ['getTimeline', { limit: 0 }],
  ['getTimeline', { limit: 101 }],
  ['getAuthorFeed', {}],
  ['getAuthorFeed', { actor: 'nobody' }],
  ['getPost', {}],
  ['getPostThread', { uri: 'x' }],
  ['getPostThread', { uri: 'at://did:web:a.example/zone.stratos.feed.post/1', depth: 101 }],
  ['getPostThread', { uri: 'at://did:web:a.example/zone.stratos.feed.post/1', parentHeight: 201 }],
])('%s does not take %o', async (name, params) => {
  expect(await refusalOf(name, ben, params)).toBe('400 InvalidRequest')
})

async function expectSeen(viewer: Did): Promise<void> {
  expect(await reader.uris('getTimeline', viewer)).toEqual([uri])
  expect(await reader.uris('getTimeline', viewer, { boundary: boundaryOf('a') })).toEqual([uri])
  expect(await reader.uris('getAuthorFeed', viewer, { actor: ann })).toEqual([uri])
  expect(await reader.call('getPost', viewer, { uri })).toMatchObject({ post: { post: { uri } } })
  const thread = { $type: 'zone.stratos.feed.defs#threadViewPost', post: { uri } }
  expect(await reader.call('getPostThread', viewer, { uri })).toMatchObject({ thread })
}

async function expectUnseen(viewer: Did): Promise<void> {
  await expectNone('getTimeline', viewer)
  await expectNone('getAuthorFeed', viewer, { actor: ann })
  expect(await refusalOf('getPost', viewer, { uri })).toBe('404 PostNotFound')
  const thread = { $type: 'zone.stratos.feed.defs#notFoundPost', uri, notFound: true }
  expect(await reader.call('getPostThread', viewer, { uri })).toEqual({ thread })
}

async function expectNone(name: string, viewer: Did, params: Params = {}): Promise<void> {
  expect(await reader.call(name, viewer, params)).toEqual({ feed: [] })
}

async function refusalOf(name: string, viewer: Did, params: Params): Promise<string> {
  const error = await failureOf(reader.call(name, viewer, params))
  if (!(error instanceof XrpcError)) throw new Error('it was not refused', { cause: error })
  return `${error.status} ${error.error}`
}
