import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { parseHandle } from '../../src/atproto/syntax.ts'
import { createGuardedFetch, type Fetch } from '../../src/remote/fetch.ts'
import { DidNotResolved, HandleUnavailable, Identities } from '../../src/remote/identity.ts'
import { failureOf as errorOf } from '../kit/wait.ts'
import { Clock, Directory, loopbackFetch } from './directory.ts'

const minute = 60_000
const alice = parseHandle('alice.test')

let directory: Directory
let clock: Clock

beforeEach(() => {
  directory = new Directory()
  clock = new Clock()
})

afterEach(async () => {
  await directory[Symbol.asyncDispose]()
})

describe('a handle cannot be looked up', () => {
  const answers: [string, () => Response][] = [
    ['a page', () => new Response('<html>SECRET')],
    ['a page too large', () => new Response('SECRET'.repeat(11_000))],
    ['no DID', () => Response.json({ did: 'SECRET' })],
    ['nothing', () => Response.json({})],
    ['an error', () => Response.json({ error: 'SECRET' }, { status: 500 })],
  ]
  test.each(answers)('at a server that answers %s', async (_, answer) => {
    await using server = new HandleServer(answer)
    const error = await errorOf(identitiesAt(server).resolveHandle(alice))
    expect(error).toBeInstanceOf(HandleUnavailable)
    expect(error).toHaveProperty('failure', 'unreachable')
    expect(Bun.inspect(error)).not.toContain('SECRET')
  })

  test('at a server that is down, or to which a rule forbids to go', async () => {
    const server = new HandleServer(() => new Response(null))
    await server[Symbol.asyncDispose]()
    const closed = createGuardedFetch({
      allowPrivateNetwork: false,
      timeoutMs: 1000,
      responseBytesMax: 1000,
    })
    for (const fetch of [loopbackFetch, closed]) {
      const error = await errorOf(identitiesAt(server, fetch).resolveHandle(alice))
      expect(error).toMatchObject({ name: 'HandleUnavailable', failure: 'unreachable' })
    }
  })

  test('while 32 others are, and can be when one of them is done', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const did = directory.add({ handle: 'h32.test' })
    await using server = new HandleServer(async (handle) => {
      await promise
      return handle === 'h32.test' ? Response.json({ did }) : notFound()
    })
    const identities = identitiesAt(server)
    const handles = Array.from({ length: 33 }, (_, i) => parseHandle(`h${i}.test`))
    const asked = handles.map((handle) => errorOf(identities.resolveHandle(handle)))
    expect(await asked.at(-1)).toMatchObject({ name: 'HandleUnavailable', failure: 'busy' })
    resolve()
    expect(await Promise.all(asked.slice(0, -1))).toEqual(Array(32).fill(undefined))
    expect(await identities.resolveHandle(parseHandle('h32.test'))).toBe(did)
    expect(server.asked).toHaveLength(33)
  })
})

describe('whether a handle leads to a DID is unknown', () => {
  test('where the server that knows is in trouble, or says nothing that is one', async () => {
    const did = directory.add({ handle: alice })
    for (const answer of [() => new Response(null, { status: 500 }), () => Response.json({})]) {
      await using server = new HandleServer(answer)
      expect(await identitiesAt(server).lead(alice, did)).toBe('unknown')
    }
  })

  test('where its host is in trouble or has too much to do, while DNS has nothing', async () => {
    const did = directory.add({ handle: alice })
    for (const status of [429, 500, 503]) {
      expect(await byDns([], { status }).lead(alice, did)).toBe('unknown')
    }
    for (const status of [200, 204, 302, 403, 404]) {
      expect(await byDns([], { status }).lead(alice, did)).toBe('elsewhere')
    }
  })

  test('where the document of the DID cannot be had, and not for another DID', async () => {
    const did = directory.add({ handle: alice })
    directory.broken = { status: 500 }
    const identities = byDns([`did=${did}`])
    expect(await identities.lead(alice, did)).toBe('unknown')
    expect(await identities.lead(alice, directory.add({ handle: alice }))).toBe('elsewhere')
  })

  test('while 32 others are looked up', async () => {
    const gate = Promise.withResolvers<void>()
    const did = directory.add({ handle: alice })
    await using server = new HandleServer(async () => {
      await gate.promise
      return Response.json({ did })
    })
    const identities = identitiesAt(server)
    const others = Array.from({ length: 32 }, (_, at) =>
      identities.lead(parseHandle(`h${at}.test`), did),
    )
    expect(await identities.lead(alice, did)).toBe('unknown')
    gate.resolve()
    expect(await Promise.all(others)).toEqual(others.map(() => 'elsewhere'))
    expect(await identities.lead(alice, did)).toBe('there')
  })
})

describe('memory of handles', () => {
  test('asks once for many at a time', async () => {
    const did = directory.add({ handle: alice })
    await using server = new HandleServer(() => Response.json({ did }))
    const identities = identitiesAt(server)
    const found = Array.from({ length: 100 }, () => identities.resolveHandle(alice))
    expect(new Set(await Promise.all(found))).toEqual(new Set([did]))
    expect(server.asked).toEqual([alice])
  })

  test('answers for five minutes and not for longer', async () => {
    const did = directory.add({ handle: alice })
    await using server = new HandleServer(() => Response.json({ did }))
    const identities = identitiesAt(server)
    await identities.resolveHandle(alice)
    clock.ms += 5 * minute - 1
    await identities.resolveHandle(alice)
    expect(server.asked).toHaveLength(1)
    clock.ms += 1
    await identities.resolveHandle(alice)
    expect(server.asked).toHaveLength(2)
  })

  const failures: [string, () => Response][] = [
    ['a handle that leads nowhere', notFound],
    ['a handle that another account has', () => Response.json({ did: directory.add({}) })],
    ['a handle of an unknown DID', () => Response.json({ did: `did:plc:${'a'.repeat(24)}` })],
    ['a server in trouble', () => new Response(null, { status: 500 })],
  ]
  test.each(failures)('keeps %s for a minute', async (_, failure) => {
    const did = directory.add({ handle: alice })
    let answer = failure
    await using server = new HandleServer(() => answer())
    const identities = identitiesAt(server)
    const first = await errorOf(identities.resolveHandle(alice))
    answer = () => Response.json({ did })
    clock.ms += minute - 1
    const second = await errorOf(identities.resolveHandle(alice))
    expect(String(second)).toBe(String(first))
    expect(server.asked).toHaveLength(1)
    clock.ms += 1
    expect(await identities.resolveHandle(alice)).toBe(did)
  })

  test('keeps nothing of a time when too much was asked at once', async () => {
    const gate = Promise.withResolvers<void>()
    directory.gate = gate.promise
    const did = directory.add({ handle: alice })
    await using server = new HandleServer(() => Response.json({ did }))
    const identities = identitiesAt(server)
    const others = Array.from({ length: 64 }, () => identities.handle(directory.add({})))
    const error = await errorOf(identities.resolveHandle(alice))
    expect(error).toMatchObject({ name: 'DidNotResolved', failure: 'busy' })
    gate.resolve()
    await Promise.all(others)
    expect(await identities.resolveHandle(alice)).toBe(did)
  })
})

describe('a handle', () => {
  test('that its DID does not name in turn leads nowhere', async () => {
    const did = directory.add({ handle: 'bob.test' })
    expect(await byDns([`did=${did}`]).resolveHandle(alice)).toBeUndefined()
  })

  test('that leads to an unknown DID is an error with a name', async () => {
    const lost = byDns(['did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa']).resolveHandle(alice)
    expect(await errorOf(lost)).toBeInstanceOf(DidNotResolved)
  })

  test('with two DIDs in DNS, or none that is one, leads nowhere', async () => {
    const did = directory.add({ handle: alice })
    const other = directory.add({ handle: alice })
    for (const records of [[`did=${did}`, `did=${other}`], ['did=nonsense'], [did], []]) {
      expect(await byDns(records).resolveHandle(alice)).toBeUndefined()
    }
  })

  test('is found in DNS first', async () => {
    const did = directory.add({ handle: alice })
    const other = directory.add({ handle: alice })
    expect(await byDns([`did=${did}`], other).resolveHandle(alice)).toBe(did)
  })

  test('is found on its own host when DNS has nothing', async () => {
    const did = directory.add({ handle: alice })
    expect(await byDns([], ` ${did}\n`).resolveHandle(alice)).toBe(did)
    expect(await byDns([], '<html>').resolveHandle(alice)).toBeUndefined()
  })

  test('is asked for at the given server instead, when there is one', async () => {
    const did = directory.add({ handle: alice })
    await using server = new HandleServer((handle) =>
      handle === alice ? Response.json({ did }) : notFound(),
    )
    const there = identitiesAt(server)
    expect(await there.resolveHandle(alice)).toBe(did)
    expect(await there.resolveHandle(parseHandle('bob.test'))).toBeUndefined()
  })

  test('that its DID took on since it was last looked at is found', async () => {
    const did = directory.add({ handle: 'old.test' })
    const here = byDns([`did=${did}`])
    await here.handle(did)
    directory.accounts.set(did, { handle: alice })
    expect(await here.resolveHandle(alice)).toBe(did)
  })
})

function identitiesWith(more: Partial<ConstructorParameters<typeof Identities>[0]>): Identities {
  return new Identities({ plcUrl: directory.url, fetch: loopbackFetch, now: clock.now, ...more })
}

function identitiesAt(server: HandleServer, fetch: Fetch = loopbackFetch): Identities {
  return identitiesWith({ fetch, handleResolverUrl: server.url })
}

function notFound(): Response {
  return Response.json({ error: 'InvalidRequest' }, { status: 400 })
}

/** Handles by these TXT records, and by this text or answer at the well-known path of their host. */
function byDns(records: readonly string[], wellKnown?: string | ResponseInit): Identities {
  const fetch: Fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input)
    if (url.href !== `https://${alice}/.well-known/atproto-did`) return loopbackFetch(input, init)
    if (typeof wellKnown === 'string') return new Response(wellKnown)
    return new Response(null, wellKnown ?? { status: 404 })
  }
  return identitiesWith({ fetch, resolveTxt: async () => records.map(inChunks) })
}

function inChunks(text: string): string[] {
  return [text.slice(0, 8), text.slice(8)]
}

/** The server that handles are asked for at, on loopback. */
class HandleServer implements AsyncDisposable {
  readonly asked: string[] = []
  readonly url: string
  readonly #server: Bun.Server<undefined>

  constructor(answer: (handle: string) => Response | Promise<Response>) {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => {
        const handle = new URL(request.url).searchParams.get('handle') ?? ''
        this.asked.push(handle)
        return answer(handle)
      },
    })
    this.url = `http://127.0.0.1:${this.#server.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }
}
