import { afterAll, beforeEach, describe, expect, test } from 'bun:test'
import type { Did } from '../../src/atproto/syntax.ts'
import { Identities } from '../../src/remote/identity.ts'
import { OAuth } from '../../src/remote/oauth.ts'
import {
  Pds,
  PdsRejected,
  PdsUnavailable,
  SessionLost,
  SwapMismatch,
} from '../../src/remote/pds.ts'
import { AuthorizationServer } from './authorization-server.ts'
import { Clock, Directory, loopbackFetch } from './directory.ts'

const server = new AuthorizationServer()
const directory = new Directory()
const clock = new Clock()
const alice = directory.add({ pds: server.url })
server.subject = alice
server.grantedScope = 'atproto'

const sessions = new Map<Did, string>()
const oauth = new OAuth({
  publicUrl: 'http://127.0.0.1:3100',
  clientName: 'Stratos',
  scope: 'atproto',
  fetch: loopbackFetch,
  identities: new Identities({ plcUrl: directory.url, fetch: loopbackFetch, now: clock.now }),
  allowHttp: true,
  sessions: {
    get: async (did) => sessions.get(did),
    set: async (did, saved) => void sessions.set(did, saved),
    delete: async (did) => void sessions.delete(did),
  },
})
const saved = await signIn()

const pds = new Pds({ did: alice, use: (task) => oauth.use(alice, task), now: clock.now })
const place = { repo: alice, collection: 'zone.stratos.feed.post', rkey: 'a' }
const record = { $type: 'zone.stratos.feed.post' }
const writes = {
  put: () => pds.putRecord({ ...place, record, swapRecord: null }),
  delete: () => pds.deleteRecord({ ...place, swapRecord: 'bafy' }),
  get: () => pds.getRecord(place),
}
const calls = Object.entries<() => Promise<unknown>>(writes)

let seen: unknown[]

beforeEach(() => {
  seen = []
  server.broken = undefined
  sessions.set(alice, saved)
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await directory[Symbol.asyncDispose]()
})

describe.each(calls)('%s', (_, call) => {
  test('that the PDS refuses is rejected with status and name', async () => {
    answer({ error: 'ScopeMissingError', message: 'secret' }, { status: 403 })
    const error = await errorOf(call())
    expect(error).toBeInstanceOf(PdsRejected)
    expect(error).toMatchObject({ status: 403, error: 'ScopeMissingError' })
  })

  test('that something else than XRPC refuses can be tried later', async () => {
    for (const status of [400, 401, 403, 404, 407, 413, 421, 451]) {
      server.xrpc = () => new Response('<html>SECRET', { status })
      const error = await errorOf(call())
      expect(error).toBeInstanceOf(PdsUnavailable)
      expect(Bun.inspect(error)).not.toContain('SECRET')
    }
    for (const body of [{}, { error: 'a very long story' }, { error: { code: 1020 } }]) {
      answer(body, { status: 403 })
      expect(await errorOf(call())).toBeInstanceOf(PdsUnavailable)
    }
  })

  test('that came at a bad time can be tried later, whatever its name', async () => {
    for (const status of [408, 425]) {
      answer({ error: 'InvalidRequest' }, { status, headers: { 'retry-after': '7' } })
      expect(await errorOf(call())).toMatchObject({ name: 'PdsUnavailable', retryAfterMs: 7000 })
    }
  })

  test('refused for what is not its session or scope can be tried later', async () => {
    for (const [status, error] of [
      [401, 'AccountDeactivated'],
      [403, 'Forbidden'],
    ] as const) {
      answer({ error }, { status })
      expect(await errorOf(call())).toBeInstanceOf(PdsUnavailable)
    }
  })

  test('to a PDS in trouble can be tried later', async () => {
    for (const status of [500, 502, 503]) {
      server.xrpc = () => new Response('<html>', { status })
      expect(await errorOf(call())).toBeInstanceOf(PdsUnavailable)
    }
  })

  test('over the rate limit can be tried when the PDS says', async () => {
    const seconds = Math.floor(clock.ms / 1000)
    const waits: [Record<string, string>, number | undefined][] = [
      [{ 'retry-after': '7' }, 7000],
      [{ 'retry-after': new Date(clock.ms + 9000).toUTCString() }, 9000],
      [{ 'retry-after': 'soon' }, undefined],
      [{ 'ratelimit-reset': `${seconds + 60}` }, 60_000],
      [{ 'ratelimit-reset': `${seconds - 60}` }, 0],
      [{ 'ratelimit-reset': `${seconds + 1_000_000}` }, 86_400_000],
      [{}, undefined],
    ]
    for (const [headers, retryAfterMs] of waits) {
      answer({ error: 'RateLimitExceeded' }, { status: 429, headers })
      const error = await errorOf(call())
      expect(error).toBeInstanceOf(PdsUnavailable)
      expect(error).toHaveProperty('retryAfterMs', retryAfterMs)
    }
  })

  test('with a session that the PDS forgot loses it', async () => {
    server.xrpc = unauthorized
    server.broken = { status: 400, error: 'invalid_grant' }
    expect(await errorOf(call())).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
    expect(await errorOf(call())).toBeInstanceOf(SessionLost)
  })

  test('with a session that cannot be refreshed now can be tried later', async () => {
    server.xrpc = unauthorized
    server.broken = { status: 500, error: 'server_error' }
    expect(await errorOf(call())).toBeInstanceOf(PdsUnavailable)
    expect(sessions.size).toBe(1)
  })

  test('refused for its session by a PDS that knows it is rejected', async () => {
    answer({ error: 'InvalidToken' }, { status: 401 })
    expect(await errorOf(call())).toMatchObject({ status: 401, error: 'InvalidToken' })
  })

  test('answered by too much can be tried later', async () => {
    server.xrpc = () => new Response(new Uint8Array(200_000))
    expect(await errorOf(call())).toBeInstanceOf(PdsUnavailable)
  })
})

test.each(calls.slice(0, 2))('%s over something else is a swap mismatch', async (_, call) => {
  answer({ error: 'InvalidSwap', message: 'Record was at null' }, { status: 400 })
  expect(await errorOf(call())).toBeInstanceOf(SwapMismatch)
})

test('an answer that is none of XRPC can be tried later', async () => {
  server.xrpc = () => new Response('<html>')
  expect(await errorOf(writes.put())).toBeInstanceOf(PdsUnavailable)
  expect(await errorOf(writes.get())).toBeInstanceOf(PdsUnavailable)
})

test('a CID of any length is none', async () => {
  for (const call of [writes.put, writes.get]) {
    answer({ cid: 'b'.repeat(257), value: {} })
    expect(await errorOf(call())).toBeInstanceOf(PdsUnavailable)
  }
})

test('a record that is not there is undefined, and another failure is not', async () => {
  answer({ error: 'RecordNotFound' }, { status: 400 })
  expect(await writes.get()).toBeUndefined()
  answer({ error: 'InvalidRequest' }, { status: 400 })
  expect(await errorOf(writes.get())).toBeInstanceOf(PdsRejected)
})

test('a put says what must stand there: nothing, a CID, or anything', async () => {
  for (const swap of [{ swapRecord: null }, { swapRecord: 'bafy' }, {}]) {
    answer({ uri: 'at://x', cid: 'bafynew' })
    expect(await pds.putRecord({ ...place, record, ...swap })).toEqual({ cid: 'bafynew' })
    expect(seen.at(-1)).toEqual({ ...place, record, validate: false, ...swap })
  }
})

test('a get gives CID and value, and a delete nothing', async () => {
  answer({ uri: 'at://x', cid: 'bafy', value: record })
  expect(await writes.get()).toEqual({ cid: 'bafy', value: record })
  answer({})
  expect(await pds.deleteRecord(place)).toBeUndefined()
  expect(seen.at(-1)).toEqual(place)
})

function answer(body: object, init: ResponseInit = {}): void {
  server.xrpc = async (request) => {
    const { searchParams } = new URL(request.url)
    seen.push(request.method === 'POST' ? await request.json() : Object.fromEntries(searchParams))
    return Response.json(body, init)
  }
}

function unauthorized(): Response {
  const headers = { 'www-authenticate': 'DPoP error="invalid_token"' }
  return Response.json({ error: 'invalid_token' }, { status: 401, headers })
}

async function signIn(): Promise<string> {
  let state = ''
  let begun = ''
  await oauth.authorize(alice, async (given, value) => {
    state = given
    begun = value
  })
  return (await oauth.callback(server.approve(state), async () => begun)).saved
}

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}
