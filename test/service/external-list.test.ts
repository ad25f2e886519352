import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { createGuardedFetch, type Fetch } from '../../src/remote/fetch.ts'
import { ExternalList } from '../../src/service/external-list.ts'
import { ListSource } from '../../src/service/list-source.ts'
import { AllowList } from '../../src/store/allow-list.ts'
import type { Sql, Statement } from '../../src/store/sql.ts'
import { ListServer } from '../kit/list-server.ts'
import { serviceSql } from '../kit/service-store.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { Clock } from '../remote/directory.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const minuteMs = 60_000
const endless = new Promise<void>(() => undefined)

let server: ListServer
let sql: Sql
let before: (batch: readonly Statement[]) => Promise<void>
let clock: Clock
let log: string[]
let timeoutMs: number
let lists: ExternalList[]
/** How often the enrolled were looked at. */
let readings: number

beforeEach(async () => {
  server = new ListServer()
  before = async () => undefined
  sql = await serviceSql(folder, (batch) => before(batch))
  clock = new Clock()
  log = []
  timeoutMs = 5_000
  lists = []
  readings = 0
})

afterEach(async () => {
  await Promise.all(lists.map((list) => list.stop()))
  await server[Symbol.asyncDispose]()
  expect(log.join()).not.toContain('SECRET')
  expect(log.join()).not.toContain('IN-THE-URI')
})

describe('the last good copy stays, with one warning that says why, when the list', () => {
  test.each<[string, () => unknown, string]>([
    ['is not found', () => (server.status = 404), 'answered the status 404'],
    ['breaks', () => (server.status = 500), 'answered the status 500'],
    ['comes in part', () => (server.status = 206), 'answered the status 206'],
    ['does not come at all', () => (server.status = 204), 'answered the status 204'],
    ['is empty', () => (server.body = ''), 'it is empty'],
    ['is a page', () => (server.body = '<p>SECRET</p>'), 'line 1 is no DID'],
    ['has one line that is no DID', () => (server.body = `${alice}\n\nSECRET`), 'line 3 is no DID'],
    ['is too large', () => (server.body = '#'.repeat(bytesMax + 1)), 'an answer over 20000 bytes'],
    ['never comes', muteServer, 'no answer in 50 ms'],
  ])('%s', async (_, breakIt, why) => {
    server.set(alice)
    const list = await started()
    breakIt()
    for (let tries = 0; tries < 2; tries++) {
      clock.ms += minuteMs
      await list.freshen()
    }
    expect(server.requests).toHaveLength(3)
    expect(await list.has(alice)).toBeTrue()
    expect(await list.state()).toBe('outdated')
    expect(warnings()).toEqual([expect.objectContaining({ why: expect.stringContaining(why) })])
    expect(readings).toBe(1)
  })

  test('has nobody who answers', async () => {
    server.set(alice)
    const list = await started()
    await server.close()
    clock.ms += minuteMs
    await list.freshen()
    expect(await list.has(alice)).toBeTrue()
    expect(warnings()).toHaveLength(1)
  })

  test('is said to be unchanged to somebody who did not ask', async () => {
    server.set(alice)
    const list = await started()
    server.status = 304
    clock.ms += minuteMs
    await list.freshen()
    expect(await list.state()).toBe('outdated')
    expect(await list.has(alice)).toBeTrue()
  })

  test('and another warning when something else is wrong, and none any more after a good one', async () => {
    server.set(alice)
    const list = await started()
    for (const status of [404, 404, 500, 200, 500, 500]) {
      server.status = status
      clock.ms += minuteMs
      await list.freshen()
    }
    expect(warnings().map(({ why }) => String(why).slice(-3))).toEqual(['404', '500', '500'])
    expect(log.filter((line) => line.includes('allow-list.back'))).toHaveLength(1)
  })
})

test('before a first good one nobody is on the list', async () => {
  server.status = 500
  const list = await started()
  expect(await list.has(alice)).toBeFalse()
  expect(await list.state()).toBe('unread')
  expect(readings).toBe(0)
})

test('a list of comments is one of nobody', async () => {
  server.set(alice)
  const list = await started()
  server.body = '# nobody\n'
  clock.ms += minuteMs
  await list.freshen()
  expect(await list.has(alice)).toBeFalse()
  expect(await list.state()).toBe('read')
  expect(readings).toBe(2)
})

test('the copy outlives the process, and counts before the list is read again', async () => {
  server.set(alice)
  await (await started()).stop()
  muteServer()
  const list = made()
  const first = list.start(count)
  expect(await list.has(alice)).toBeTrue()
  expect(await list.state()).toBe('outdated')
  await first
  expect(await list.has(alice)).toBeTrue()
})

test('a copy of the list at another address does not count', async () => {
  server.set(alice)
  await (await started()).stop()
  server.status = 500
  const list = made({ id: 'other' })
  await list.start(count)
  expect(await list.has(alice)).toBeFalse()
  expect(await list.state()).toBe('unread')
})

describe('an entity tag', () => {
  test('spares an unchanged list, whose copy counts as read', async () => {
    server.set(alice)
    server.etag = '"one"'
    const list = await started()
    clock.ms += minuteMs
    await list.freshen()
    expect(server.requests).toEqual([null, '"one"'])
    expect(await new AllowList(sql, 'list').copy()).toMatchObject({ fetchedAtMs: clock.ms })
    server.set(bob)
    server.etag = 'W/"two"'
    clock.ms += minuteMs
    await list.freshen()
    expect(server.requests).toEqual([null, '"one"', '"one"'])
    expect(await list.has(bob)).toBeTrue()
    await list.stop()
    await started()
    expect(server.requests.at(-1)).toBe('W/"two"')
  })

  test.each(['bare', '"open', `"${'x'.repeat(300)}"`, '"a b"', '"é"'])(
    'that is none is not sent back: %s',
    async (etag) => {
      server.set(alice)
      server.etag = etag
      const list = await started()
      clock.ms += minuteMs
      await list.freshen()
      expect(server.requests).toEqual([null, null])
    },
  )

  test('of one list is not sent to the server of another', async () => {
    server.set(alice)
    server.etag = '"one"'
    await (await started()).stop()
    await made({ id: 'other' }).start(count)
    expect(server.requests).toEqual([null, null])
  })
})

describe('for somebody who is not on the copy the list is read', () => {
  test('at most once a minute, well or badly', async () => {
    const list = await started()
    server.set(alice)
    clock.ms += minuteMs - 1
    await list.freshen()
    expect(server.requests).toHaveLength(1)
    clock.ms += 1
    await list.freshen()
    expect(await list.has(alice)).toBeTrue()
    await list.freshen()
    expect(server.requests).toHaveLength(2)
    server.status = 500
    clock.ms += minuteMs
    await list.freshen()
    await list.freshen()
    expect(server.requests).toHaveLength(3)
  })

  test('once for all who ask together', async () => {
    const list = await started()
    const open = Promise.withResolvers<void>()
    server.gate = open.promise
    server.set(alice)
    clock.ms += minuteMs
    const waiting = Array.from({ length: 20 }, () => list.freshen())
    await eventually('request', () => (server.requests.length > 1 ? true : undefined))
    waiting.push(list.freshen())
    open.resolve()
    await Promise.all(waiting)
    expect(server.requests).toHaveLength(2)
    expect(await list.has(alice)).toBeTrue()
  })

  test('and nobody waits long for it', async () => {
    const list = await started({ patienceMs: 1 })
    server.gate = endless
    clock.ms += minuteMs
    await list.freshen()
    expect(await list.state()).toBe('outdated')
    expect(warnings()).toEqual([])
  })
})

test('the list is read again and again', async () => {
  await started({ everyMs: 1, gapMs: 1, jitterMs: 1 })
  await eventually('fourth request', () => (server.requests.length > 3 ? true : undefined))
})

test('after a failure it is tried again', async () => {
  server.status = 500
  const list = await started({ everyMs: 1, retryMs: 1 })
  server.set(alice)
  server.status = 200
  await eventually('good copy', async () => ((await list.has(alice)) ? true : undefined))
})

describe('a stop', () => {
  test('cuts off a fetch, without a warning', async () => {
    server.set(alice)
    const list = await started()
    server.gate = endless
    clock.ms += minuteMs
    const waiting = list.freshen()
    await eventually('request', () => (server.requests.length > 1 ? true : undefined))
    await list.stop()
    await waiting
    expect(await list.has(alice)).toBeTrue()
    expect(warnings()).toEqual([])
    // Nor is it read any more.
    clock.ms += minuteMs
    await list.freshen()
    expect(server.requests).toHaveLength(2)
  })

  test('in the middle of a replacement leaves the copy, and nobody is looked at', async () => {
    server.set(alice)
    const list = await started()
    const stopped = Promise.withResolvers<void>()
    before = async () => {
      before = async () => undefined
      void list.stop().then(stopped.resolve)
    }
    server.body = `${bob}\n${manyLines}`
    clock.ms += minuteMs
    await list.freshen()
    await stopped.promise
    expect(await list.has(alice)).toBeTrue()
    expect(await list.has(bob)).toBeFalse()
    expect(readings).toBe(1)
    expect(warnings()).toEqual([])
  })
})

test('a fault of ours is told as one, and does not end the readings', async () => {
  server.set(alice)
  before = async () => {
    throw new Error('disk full')
  }
  const list = await started()
  expect(log.some((line) => line.includes('allow-list.failed'))).toBeTrue()
  expect(await list.state()).toBe('unread')
  before = async () => undefined
  clock.ms += minuteMs
  await list.freshen()
  expect(await list.has(alice)).toBeTrue()
})

test('the enrolled are looked at after each good reading, before it ends', async () => {
  server.set(alice)
  const list = made()
  const seen: boolean[] = []
  const look = async () => void seen.push(await list.has(bob))
  await list.start(look)
  clock.ms += minuteMs
  await list.freshen()
  server.set(bob)
  clock.ms += minuteMs
  await list.freshen()
  expect(seen).toEqual([false, false, true])
})

test('a list without TLS is refused where only the public internet may be reached', async () => {
  const fetch = createGuardedFetch({ ...limits, allowPrivateNetwork: false })
  const source = new ListSource({ uri: server.uri, fetch, now: clock.now })
  const { signal } = new AbortController()
  const failure = await failureOf(source.newest(undefined, { ageMsMax: 0, signal }))
  expect(failure).toMatchObject({ name: 'FetchRefused' })
  expect(server.requests).toEqual([])
})

const bytesMax = 20_000
const limits = { timeoutMs: 5_000, responseBytesMax: bytesMax }
/** More than one step of a replacement. */
const manyLines = Array.from({ length: 1_200 }, (_, index) => `did:a:${index}`).join('\n')

interface Options {
  readonly id?: string
  readonly everyMs?: number
  readonly gapMs?: number
  readonly jitterMs?: number
  readonly retryMs?: number
  readonly patienceMs?: number
}

function made({ id = 'list', ...times }: Options = {}): ExternalList {
  const fetch: Fetch = (input, init) =>
    createGuardedFetch({ ...limits, timeoutMs, allowPrivateNetwork: true })(input, init)
  const list = new ExternalList({
    source: new ListSource({ uri: server.uri, fetch, now: clock.now }),
    store: new AllowList(sql, id),
    log: createLog('info', (line) => void log.push(line)),
    now: clock.now,
    times,
  })
  lists.push(list)
  return list
}

async function started(options: Options = {}): Promise<ExternalList> {
  const list = made(options)
  await list.start(count)
  return list
}

function muteServer(): void {
  server.gate = endless
  timeoutMs = 50
}

async function count(): Promise<void> {
  readings += 1
}

function warnings(): Record<string, unknown>[] {
  return log.flatMap((line) => {
    const fields: Record<string, unknown> = JSON.parse(line)
    return fields['level'] === 'warn' ? [fields] : []
  })
}
