import { RedisClient } from 'bun'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { createGuardedFetch } from '../../src/remote/fetch.ts'
import { listBytesMax } from '../../src/remote/list.ts'
import { digestOf, SharedList } from '../../src/remote/shared-list.ts'
import { ListSource, type Newest } from '../../src/service/list-source.ts'
import type { ListCopy } from '../../src/store/allow-list.ts'
import { ListServer } from '../kit/list-server.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { hangUp, InstalledValkey, SmallValkey, type Valkey, valkeyPassword } from '../kit/valkey.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { Clock } from '../remote/directory.ts'

const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const minuteMs = 60_000
const intervalMs = 10 * minuteMs
const fetch = createGuardedFetch({
  allowPrivateNetwork: true,
  timeoutMs: 5_000,
  responseBytesMax: listBytesMax,
})
const backends = {
  small: { absent: false, start: async (): Promise<Valkey> => new SmallValkey() },
  installed: {
    absent: InstalledValkey.command === null,
    start: async (): Promise<Valkey> => InstalledValkey.start(),
  },
}
if (backends.installed.absent) {
  process.stderr.write('neither valkey-server nor redis-server is installed: tried without them\n')
}

let server: ListServer
let clock: Clock
let log: string[]

beforeEach(() => {
  server = new ListServer()
  server.set(alice)
  clock = new Clock()
  log = []
})

afterEach(async () => {
  await server[Symbol.asyncDispose]()
  for (const secret of [valkeyPassword, 'IN-THE-URI', 'redis:', 'GARBAGE']) {
    expect(log.join()).not.toContain(secret)
  }
})

for (const [name, { absent, start }] of Object.entries(backends)) {
  describe.skipIf(absent)(`through a Valkey (${name})`, () => {
    let valkey: Valkey
    let client: RedisClient
    let url: string
    let listId: string

    beforeAll(async () => {
      valkey = await start()
      url = valkey.url
      client = new RedisClient(url)
    })
    afterAll(async () => {
      client.close()
      await valkey[Symbol.asyncDispose]()
    })
    beforeEach(() => {
      listId = crypto.randomUUID()
    })

    const key = () => `stratos:allow-list:${listId}`
    const source = (over: Options = {}) => made({ url, listId, ...over })
    const put = (head: unknown, text: string) => {
      const line = typeof head === 'string' ? head : JSON.stringify(head)
      return client.set(key(), `${line}\n${text}`)
    }
    const headOf = (text: string, over: object = {}) => {
      const digest = digestOf(Buffer.from(text))
      return { digest, etag: null, fetchedAtMs: clock.ms, ...over }
    }

    describe('garbage is not used, warned of once, and replaced by what is fetched:', () => {
      const other = `${bob}\n`
      test.each<[string, () => Promise<unknown>]>([
        ['a text without a head', () => client.set(key(), 'GARBAGE')],
        ['an empty head', () => put('', other)],
        ['a head that is no JSON', () => put('GARBAGE', other)],
        ['a head that is null', () => put('null', other)],
        ['a head that is a list', () => put([], other)],
        ['a head without an end', () => client.set(key(), JSON.stringify(headOf(other)))],
        ['a head that is too long', () => put({ ...headOf(other), x: 'x'.repeat(2000) }, other)],
        ['a digest that is none', () => put(headOf(other, { digest: 'x' }), other)],
        ['a time that is none', () => put(headOf(other, { fetchedAtMs: 'now' }), other)],
        ['a text of another digest', () => put(headOf(other), `${other}${alice}`)],
        ['a text that is cut off', () => put(headOf(other), other.slice(0, -5))],
        ['an empty text', () => put(headOf(''), '')],
        ['a text that is no list', () => put(headOf('GARBAGE'), 'GARBAGE')],
      ])('%s', async (_, write) => {
        await write()
        expect(dids(await newest(source()))).toEqual([alice])
        expect(server.requests).toHaveLength(1)
        expect(warnings()).toHaveLength(1)
        expect(dids(await newest(source()))).toEqual([alice])
        expect(server.requests).toHaveLength(1)
      })

      test('a key of another type, where nothing is replaced', async () => {
        await client.send('LPUSH', [key(), 'GARBAGE']).catch(() => client.set(key(), 'GARBAGE'))
        expect(dids(await newest(source()))).toEqual([alice])
        expect(warnings()).toHaveLength(1)
      })
    })

    test.each([
      ['too old', -intervalMs - 1],
      ['of a time that is yet to come', minuteMs + 1],
    ])('a copy that is %s is not used, and that is no fault', async (_, offMs) => {
      const text = `${bob}\n`
      await put(headOf(text, { fetchedAtMs: clock.ms + offMs }), text)
      expect(dids(await newest(source()))).toEqual([alice])
      expect(warnings()).toEqual([])
    })

    test('what was fetched once is used by all until it is old', async () => {
      const [one, two] = [source(), source()]
      expect(dids(await newest(one))).toEqual([alice])
      server.set(bob)
      clock.ms += intervalMs
      const taken = await newest(two)
      expect(dids(taken)).toEqual([alice])
      expect(taken.copy.fetchedAtMs).toBe(clock.ms - intervalMs)
      expect(server.requests).toHaveLength(1)
      clock.ms += 1
      // The lock of the first is gone by then.
      await client.del(`${key()}:lock`)
      expect(dids(await newest(two))).toEqual([bob])
      expect(dids(await newest(one))).toEqual([bob])
      expect(server.requests).toHaveLength(2)
      expect(warnings()).toEqual([])
    })

    test('who needs a younger copy than the interval gives gets one', async () => {
      await newest(source())
      await client.del(`${key()}:lock`)
      clock.ms += minuteMs
      await newest(source(), { ageMsMax: minuteMs })
      expect(server.requests).toHaveLength(1)
      clock.ms += 1
      await newest(source(), { ageMsMax: minuteMs })
      expect(server.requests).toHaveLength(2)
    })

    test('of services that ask at once only one fetches', async () => {
      const open = Promise.withResolvers<void>()
      server.gate = open.promise
      const asked = [source(), source(), source()].map((one) => newest(one))
      await eventually('request', () => (server.requests.length > 0 ? true : undefined))
      open.resolve()
      for (const found of await Promise.all(asked)) expect(dids(found)).toEqual([alice])
      expect(server.requests).toHaveLength(1)
      expect(warnings()).toEqual([])
    })

    test('when the one who fetches fails, the next one does', async () => {
      server.status = 500
      expect(await failureOf(newest(source()))).toMatchObject({ name: 'FetchFailed' })
      server.status = 200
      expect(dids(await newest(source({ pollsMax: 1 })))).toEqual([alice])
    })

    test('nobody waits for ever for one who died, whose lock ends by itself', async () => {
      await client.set(`${key()}:lock`, '1')
      expect(dids(await newest(source({ pollsMax: 3 })))).toEqual([alice])
      await client.del(`${key()}:lock`)
      await newest(source())
      await client.del(key())
      await newest(source({ pollsMax: 1 }))
      expect(Number(await client.send('PTTL', [`${key()}:lock`]))).toBeWithin(1, 45_001)
      expect(Number(await client.send('PTTL', [key()]))).toBeWithin(1, 3_600_001)
    })

    test('nor for a Valkey that takes long for each answer', async () => {
      await client.set(`${key()}:lock`, '1')
      const startMs = clock.ms
      const now = () => (clock.ms += 1_000)
      expect(dids(await newest(source({ now })))).toEqual([alice])
      expect(clock.ms - startMs).toBeLessThan(60_000)
    })

    test('what is no list is shared with nobody', async () => {
      server.body = 'GARBAGE'
      expect(await failureOf(newest(source()))).toMatchObject({ name: 'NoList' })
      expect(await client.get(key())).toBeNull()
    })

    test('an unchanged list is not sent again, and counts as fetched for all', async () => {
      server.etag = '"one"'
      const { copy } = await newest(source())
      clock.ms += intervalMs + 1
      await client.del(`${key()}:lock`)
      const again = await newest(source(), { known: copy })
      expect(again).toEqual({ copy: { ...copy, fetchedAtMs: clock.ms } })
      expect(server.requests).toEqual([null, '"one"'])
      const elsewhere = await newest(source())
      expect(dids(elsewhere)).toEqual([alice])
      expect(elsewhere.copy).toEqual(again.copy)
      expect(server.requests).toHaveLength(2)
    })

    test('whoever could not share what is unchanged asks for all of it', async () => {
      server.etag = '"one"'
      const { copy } = await newest(source())
      await client.del(key(), `${key()}:lock`)
      await newest(source(), { known: copy })
      expect(server.requests).toEqual([null, null])
      expect(dids(await newest(source()))).toEqual([alice])
    })

    test('a list of another address is another list', async () => {
      await newest(source())
      await newest(source({ listId: crypto.randomUUID() }))
      expect(server.requests).toHaveLength(2)
    })

    test('a large list comes through whole', async () => {
      const lines = Array.from({ length: 100_000 }, (_, index) => `did:web:p${index}.test`)
      server.body = lines.join('\n')
      await newest(source())
      expect(dids(await newest(source()))).toEqual(lines.map(parseDid))
      expect(server.requests).toHaveLength(1)
    })

    test('a wrong password leaves everybody to themselves', async () => {
      const wrong = url.replace(valkeyPassword, 'VALKEY-PASSWORD-OF-OLD')
      expect(dids(await newest(source({ url: wrong })))).toEqual([alice])
      expect(dids(await newest(source()))).toEqual([alice])
      expect(server.requests).toHaveLength(2)
      expect(warnings()).toHaveLength(1)
    })
  })
}

describe('without an answer from the Valkey every service fetches for itself, when it', () => {
  test('is not there, with one warning an outage', async () => {
    const port = await freePort()
    const url = `redis://:${valkeyPassword}@127.0.0.1:${port}`
    const source = made({ url })
    for (let tries = 0; tries < 3; tries++) expect(dids(await newest(source))).toEqual([alice])
    expect(server.requests).toHaveLength(3)
    expect(warnings()).toHaveLength(1)

    const valkey = new SmallValkey(port)
    await newest(source)
    await newest(source)
    expect(server.requests).toHaveLength(4)
    expect(log.filter((line) => line.includes('allow-list.shared.back'))).toHaveLength(1)
    await valkey[Symbol.asyncDispose]()
    await newest(source)
    expect(warnings()).toHaveLength(2)
  })

  test('is not there, and is asked for a change only', async () => {
    server.etag = '"one"'
    const source = made({ url: `redis://127.0.0.1:${await freePort()}` })
    const { copy } = await newest(source)
    expect(await newest(source, { known: copy })).toMatchObject({ copy: { etag: '"one"' } })
    expect(server.requests).toEqual([null, '"one"'])
  })

  const commands = ['HELLO', 'GETRANGE', 'SET', 'STRLEN', 'GET'] as const
  test.each([
    ...commands.map((command) => [command, 'no answer', ''] as const),
    ...commands.map((command) => [command, 'a closed connection', hangUp] as const),
    ...commands.map((command) => [command, 'an error', '-ERR GARBAGE\r\n'] as const),
    ...commands.map((command) => [command, 'no such protocol', 'GARBAGE\r\n'] as const),
    ['GET', 'a length without the text', '$1000000\r\nGARBAGE'] as const,
  ])('answers %s with %s', async (command, _, answer) => {
    await using valkey = new SmallValkey()
    // An old copy, so that all commands are needed.
    server.etag = '"one"'
    const { copy } = await newest(made({ url: valkey.url }))
    clock.ms += intervalMs + 1
    valkey.instead = ([name]) => (name === command ? answer : undefined)
    const source = made({ url: valkey.url, answerMs: 50, pollsMax: 2 })
    for (let tries = 0; tries < 2; tries++) {
      const found = await newest(source, { known: copy })
      expect(found.copy).toMatchObject({ digest: copy.digest, fetchedAtMs: clock.ms })
      expect(dids(await newest(source))).toEqual([alice])
    }
    expect(server.requests.length).toBeGreaterThan(2)
    expect(warnings()).toHaveLength(1)
  })
})

test('a copy that is longer than all lists is not even asked for', async () => {
  await using valkey = new SmallValkey()
  await newest(made({ url: valkey.url }))
  valkey.instead = ([name]) => (name === 'STRLEN' ? ':99999999999\r\n' : undefined)
  valkey.commands.length = 0
  expect(dids(await newest(made({ url: valkey.url })))).toEqual([alice])
  expect(valkey.commands).not.toContain('GET')
  expect(warnings()).toHaveLength(1)
})

test('a young copy that is known already is not transferred', async () => {
  await using valkey = new SmallValkey()
  const source = made({ url: valkey.url })
  const { copy } = await newest(source)
  valkey.commands.length = 0
  expect(await newest(source, { known: copy })).toEqual({ copy })
  expect(valkey.commands).toEqual(['GETRANGE'])
})

test('a stop ends the wait for a lock, and that for an answer, without a warning', async () => {
  await using valkey = new SmallValkey()
  for (const mute of [false, true]) {
    const stopping = new AbortController()
    valkey.instead = ([name]) => (mute && name === 'GETRANGE' ? '' : undefined)
    const open = Promise.withResolvers<void>()
    server.gate = open.promise
    const holder = mute ? undefined : newest(made({ url: valkey.url }))
    const before = valkey.commands.length
    const waiting = newest(made({ url: valkey.url, pollMs: 60_000 }), { signal: stopping.signal })
    await eventually('question', () =>
      valkey.commands.length > before + 1 || mute ? true : undefined,
    )
    stopping.abort()
    expect(await failureOf(waiting)).toMatchObject({ name: 'AbortError' })
    open.resolve()
    await holder
  }
  expect(warnings()).toEqual([])
})

interface Options {
  readonly url?: string
  readonly listId?: string
  readonly answerMs?: number
  readonly pollMs?: number
  readonly pollsMax?: number
  readonly now?: () => number
}

/** A service of its own. */
function made({ url = '', listId = 'list', answerMs = 5_000, ...polls }: Options): ListSource {
  return new ListSource({
    uri: server.uri,
    fetch,
    now: clock.now,
    shared: new SharedList({
      url,
      listId,
      answerMs,
      log: createLog('info', (line) => void log.push(line)),
    }),
    pollMs: 1,
    pollsMax: 5_000,
    ...polls,
  })
}

function newest(
  source: ListSource,
  over: { known?: ListCopy; ageMsMax?: number; signal?: AbortSignal } = {},
): Promise<Newest> {
  const { known, ...ask } = over
  const { signal } = new AbortController()
  return source.newest(known, { ageMsMax: intervalMs, signal, ...ask })
}

function dids({ dids: found }: Newest): string[] {
  return [...(found ?? [])]
}

function warnings(): string[] {
  return log.filter((line) => line.includes('"warn"'))
}
