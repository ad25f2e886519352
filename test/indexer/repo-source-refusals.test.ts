import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { encodeCar } from '../../src/atproto/car.ts'
import { cidToString } from '../../src/atproto/cid.ts'
import { parseDid, parseTid } from '../../src/atproto/syntax.ts'
import type { BackfillPage } from '../../src/indexer/backfill.ts'
import { repoPages } from '../../src/indexer/repo-source.ts'
import {
  BadAnswer,
  RepoNotFound,
  type ServiceAccess,
  ServiceBusy,
  ServiceRefused,
} from '../../src/indexer/service-calls.ts'
import { type Fetch, FetchFailed, FetchRefused } from '../../src/remote/fetch.ts'
import { type Block, ForeignRepo } from '../bulk/foreign-repo.ts'
import { foreignPosts } from '../bulk/foreign-posts.ts'
import { failureOf } from '../kit/wait.ts'
import { accessTo, carReply, refusal, ServiceDouble } from './service-double.ts'

setDefaultTimeout(30_000)

const alice = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')
const bob = parseDid('did:plc:bobaaaaaaaaaaaaaaaaaaaaa')
const marker = 'words of a post that nobody else may read'
const repo = new ForeignRepo(alice, foreignPosts(40, { text: marker }))
const others = new ForeignRepo(alice, foreignPosts(40))
let service: ServiceDouble

beforeEach(() => {
  service = new ServiceDouble({
    listRepoOps: () => Response.json({ ops: [], seq: 7 }),
    getRecord: () => refusal(404, 'RecordNotFound'),
  })
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
})

async function all(over: Partial<ServiceAccess> = {}, limits = {}): Promise<BackfillPage[]> {
  const pages: BackfillPage[] = []
  for await (const page of repoPages(alice, accessTo(service.url, over), limits)) pages.push(page)
  return pages
}

/** What is thrown where the export is this. */
async function refused(car: Bun.BodyInit, limits = {}): Promise<Error> {
  service.replies['getRepo'] = () => carReply(car)
  const error = await failureOf(all({}, limits))
  if (!(error instanceof Error)) throw new Error('it was taken')
  expect(error.message).not.toContain(marker)
  return error
}

function carOf(blocks: readonly Block[]): Uint8Array<ArrayBuffer> {
  const [commit] = blocks
  if (commit === undefined) throw new Error('a repo has a commit')
  return encodeCar(commit.cid, blocks)
}

test('an export that is whole is taken', async () => {
  service.replies['getRepo'] = () => carReply(carOf(repo.blocks()))
  const [page, ...more] = await all()
  expect(more).toEqual([])
  expect(page?.seq).toBe(7)
  expect(page?.records).toHaveLength(40)
})

describe('an export is refused', () => {
  test('that is cut, at whatever byte', async () => {
    const whole = carOf(others.blocks())
    for (let length = 0; length < whole.length; length += 97) {
      service.replies['getRecord'] = () => refusal(404, 'RecordNotFound')
      // All contents stand at the end: without some of them it is one of which much is withheld.
      const inTree = carOf(others.blocks().slice(0, -40)).length
      if (length >= inTree) break
      expect(await refused(whole.slice(0, length))).toBeInstanceOf(BadAnswer)
    }
  })

  test('that ends with a block, where the service shows the records that it lacks', async () => {
    const shown = others.cids
    service.replies['getRecord'] = (params) =>
      Response.json({ uri: '', cid: shown.get(params.get('rkey') ?? ''), value: {} })
    for (const lacking of [1, 39]) {
      const error = await refused(carOf(others.blocks().slice(0, -lacking)))
      expect(error).toBeInstanceOf(BadAnswer)
      expect(error.message).toContain('lacks zone.stratos.feed.post/key-')
    }
  })

  test('whose connection breaks in the middle', async () => {
    const whole = carOf(repo.blocks())
    const broken = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'application/vnd.ipld.car' })
      response.write(whole.slice(0, 900), () => response.destroy())
    })
    broken.listen(0, '127.0.0.1')
    await once(broken, 'listening')
    const address = broken.address()
    if (address === null || typeof address === 'string') throw new Error('it has no port')
    const { port } = address
    const fetch: Fetch = (input, init) => {
      const url = new URL(input instanceof Request ? input.url : input)
      if (url.pathname.endsWith('getRepo')) url.port = String(port)
      return accessTo(service.url).fetch(url, init)
    }
    try {
      expect(await failureOf(all({ fetch }))).toBeInstanceOf(FetchFailed)
    } finally {
      broken.close()
    }
  })

  test('with one byte that is another, wherever', async () => {
    const whole = carOf(others.blocks())
    for (let at = 0; at < whole.length; at += 61) {
      const changed = whole.slice()
      changed[at] = (changed[at] ?? 0) ^ 0x01
      expect(await refused(changed)).toBeInstanceOf(BadAnswer)
    }
  })

  test('of somebody else', async () => {
    const error = await refused(new ForeignRepo(bob, foreignPosts(3)).car().slice())
    expect(error).toBeInstanceOf(BadAnswer)
  })

  test('that is older than where the stream goes on', async () => {
    const rev = parseTid('3zzzzzzzzzz22')
    const commit = { rev, cid: cidToString(repo.commit().cid) }
    service.replies['listRepoOps'] = () => Response.json({ ops: [], seq: 7, commit })
    expect(await refused(carOf(repo.blocks()))).toBeInstanceOf(BadAnswer)
  })

  test('that does not end', async () => {
    const endless = () =>
      new ReadableStream<Uint8Array>({
        pull: (controller) => controller.enqueue(new Uint8Array(64 * 1024)),
      })
    const limits = { carBytesMax: 2 * 1024 * 1024 }
    expect(await refused(endless(), limits)).toBeInstanceOf(FetchRefused)
  })

  test('that is of another type, or nothing', async () => {
    service.replies['getRepo'] = () => Response.json({})
    expect(await failureOf(all())).toBeInstanceOf(BadAnswer)
    expect(await refused(new Uint8Array())).toBeInstanceOf(BadAnswer)
  })

  test('that falls silent', async () => {
    const held = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new Uint8Array(10)),
    })
    service.replies['getRepo'] = () => carReply(held)
    expect(await failureOf(all({ silenceMsMax: 50 }))).toBeInstanceOf(FetchFailed)
  })
})

describe('a service that refuses', () => {
  test.each(['listRepoOps', 'getRepo'])('is named by what it says of %s', async (method) => {
    service.replies['getRepo'] = () => carReply(carOf(repo.blocks()))
    const over = (reply: Response) => {
      service.replies[method] = () => reply
      return failureOf(all())
    }
    expect(await over(refusal(404, 'RepoNotFound'))).toBeInstanceOf(RepoNotFound)
    const busy = [
      [refusal(429, 'RateLimitExceeded', { 'retry-after': '90' }), 90_000],
      [refusal(503, 'Overloaded', { 'retry-after': '1' }), 1_000],
      [refusal(503, 'Overloaded', { 'retry-after': 'Thu, 01 Jan 1970 00:00:00 GMT' }), 0],
      [refusal(503, 'Overloaded', { 'retry-after': '999999999' }), 3_600_000],
      [refusal(503, 'Overloaded', { 'retry-after': 'soon' }), 5_000],
      [new Response('later', { status: 503 }), 5_000],
    ] as const
    for (const [reply, retryAfterMs] of busy) {
      const error = await over(reply)
      expect(error).toBeInstanceOf(ServiceBusy)
      expect(error).toMatchObject({ retryAfterMs })
    }
    const found = await over(refusal(401, 'AuthMissing'))
    expect(found).toBeInstanceOf(ServiceRefused)
    expect(found).toMatchObject({ status: 401, error: 'AuthMissing' })
    const large = new Response('x'.repeat(2 * 1024 * 1024), { status: 500 })
    if (method === 'getRepo') expect(await over(large)).toBeInstanceOf(FetchRefused)
    expect(await over(new Response('oh', { status: 500 }))).toMatchObject({ status: 500 })
    expect(await over(new Response('no JSON'))).toBeInstanceOf(BadAnswer)
  })

  test('is asked nothing more once this is to end', async () => {
    const ending = new AbortController()
    service.replies['getRepo'] = () => {
      ending.abort(new Error('enough'))
      return carReply(new ReadableStream())
    }
    expect(await failureOf(all({ signal: ending.signal }))).toBeDefined()
    expect(service.asked.map(([method]) => method)).toEqual(['listRepoOps', 'getRepo'])
    expect(await failureOf(all({ signal: ending.signal }))).toEqual(new Error('enough'))
    expect(service.asked).toHaveLength(2)
  })
})

describe('a list is refused', () => {
  const op = (over: object) => ({
    rev: '3kabcdefghi22',
    collection: 'com.example.note',
    rkey: 'one',
    cid: cidToString(repo.commit().cid),
    prev: null,
    ...over,
  })
  test.each([
    ['without operations', {}],
    ['without its place in the log', { ops: [] }],
    ['whose place is none', { ops: [], seq: 1.5 }],
    ['that never ends', { ops: [], seq: 1, cursor: 'more' }],
    ['with a record that is another', { ops: [op({ value: { a: 1 } })], seq: 1 }],
    ['with what is no record', { ops: [op({ value: { a: 1.5 } })], seq: 1 }],
    ['with a key that is none', { ops: [op({ rkey: 'a/b' })], seq: 1 }],
    ['with what is no operation', { ops: ['x'], seq: 1 }],
    ['with more than was asked for', { ops: Array(501).fill(op({})), seq: 1 }],
  ])('%s', async (_, page) => {
    service.replies['getRepo'] = () => refusal(403, 'Forbidden')
    service.replies['listRepoOps'] = (params) =>
      Response.json(params.get('limit') === '1' ? { ops: [], seq: 1 } : page)
    expect(await failureOf(all())).toBeInstanceOf(BadAnswer)
  })
})

test('each request has a credential of its own, for its own method', async () => {
  service.replies['getRepo'] = () => refusal(403, 'Forbidden')
  let count = 0
  const authorization = async (lxm: string) => `${lxm} ${++count}`
  await all({ authorization })
  expect(service.asked).toEqual([
    ['listRepoOps', 'zone.stratos.sync.listRepoOps 1'],
    ['getRepo', 'zone.stratos.sync.getRepo 2'],
    ['listRepoOps', 'zone.stratos.sync.listRepoOps 3'],
  ])
})
