import { Secp256k1Keypair } from '@atproto/crypto'
import { heapStats } from 'bun:jsc'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid, parseHandle } from '../../src/atproto/syntax.ts'
import {
  type DidFailure,
  DidNotResolved,
  Identities,
  PdsEndpointNotFound,
  SigningKeyNotFound,
} from '../../src/remote/identity.ts'
import { Clock, Directory, documentOf, loopbackFetch, method } from './directory.ts'

const minute = 60_000
const alice = parseHandle('alice.test')
const key = (await Secp256k1Keypair.create()).did()
const otherKey = (await Secp256k1Keypair.create()).did()

let directory: Directory
let clock: Clock
let identities: Identities

beforeEach(() => {
  directory = new Directory()
  clock = new Clock()
  identities = new Identities({ plcUrl: directory.url, fetch: loopbackFetch, now: clock.now })
})

afterEach(async () => {
  await directory[Symbol.asyncDispose]()
})

describe('a DID is not resolved', () => {
  const forms = [
    'did:plc:short',
    'did:plc:AAAAAAAAAAAAAAAAAAAAAAAA',
    'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme',
    'did:web:example.com:path',
    'did:web:example.com%2Fpath',
    'did:web:user%40example.com',
    'did:web:example.com%3A8443',
    'did:example:alice',
  ]
  test.each(forms)('in the form %s, and nobody is asked', async (text) => {
    expect(await failureOf(parseDid(text))).toBe('absent')
    expect(directory.asked).toEqual([])
  })

  test('that the directory does not know, or that has a tombstone', async () => {
    const did = directory.add({ didKey: key })
    directory.accounts.delete(did)
    expect(await failureOf(did)).toBe('absent')
    const gone = directory.add({ didKey: key })
    directory.broken = { status: 410 }
    expect(await failureOf(gone)).toBe('absent')
  })

  test('whose document is of another DID', async () => {
    const did = directory.add({ didKey: key, id: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa' })
    expect(await failureOf(did)).toBe('malformed')
  })

  test('whose document is none', async () => {
    directory.broken = { status: 200, body: 'hello' }
    expect(await failureOf(directory.add({}))).toBe('malformed')
    directory.broken = { status: 200, body: '{"id": 1}' }
    expect(await failureOf(directory.add({}))).toBe('malformed')
  })

  test('whose document is larger than any of a person, and one at the limit is', async () => {
    const did = directory.add({ didKey: key })
    const body = JSON.stringify(documentOf(did, { didKey: key }))
    directory.broken = { status: 200, body: body.padEnd(65_537) }
    expect(await failureOf(did)).toBe('unreachable')
    clock.ms += minute
    directory.broken = { status: 200, body: body.padEnd(65_536) }
    expect(await identities.signingKey(did)).toBe(key)
  })

  test('while the directory is down', async () => {
    directory.broken = { status: 502 }
    expect(await failureOf(directory.add({}))).toBe('unreachable')
  })

  test('of a did:web whose host is down or unknown', async () => {
    const host = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () => new Response(null, { status: 500 }),
    })
    const did = parseDid(`did:web:localhost%3A${host.port}`)
    expect(await failureOf(did)).toBe('unreachable')
    await host.stop(true)
    expect(await failureOf(parseDid('did:web:nowhere.invalid'))).toBe('unreachable')
  })
})

test('whoever follows moves hears of each document that was read, and of no failure', async () => {
  const heard: string[] = []
  identities = new Identities({
    plcUrl: directory.url,
    fetch: loopbackFetch,
    now: clock.now,
    onResolved: (did, pdsEndpoint) => void heard.push(`${did} ${pdsEndpoint}`),
  })
  const did = directory.add({ didKey: key, pds: 'https://old.test' })
  expect(identities.remembered(did)).toBeUndefined()
  await identities.signingKey(did)
  await identities.pdsEndpoint(did)
  directory.accounts.set(did, { didKey: key, pds: 'https://new.test' })
  await identities.pdsEndpoint(did, { fresh: true })
  expect(identities.remembered(did)).toBe('https://new.test')
  directory.accounts.set(did, { didKey: key })
  clock.ms += minute
  await identities.signingKey(did, { fresh: true })
  expect(identities.remembered(did)).toBeUndefined()
  directory.accounts.delete(did)
  clock.ms += minute
  await identities.signingKey(did, { fresh: true }).catch(() => undefined)
  expect(heard).toEqual([`${did} https://old.test`, `${did} https://new.test`])
})

test('what is remembered of an account is at most an hour old', async () => {
  const did = directory.add({ pds: 'https://pds.test' })
  await identities.pdsEndpoint(did)
  clock.ms += 60 * minute - 1
  expect(identities.remembered(did)).toBe('https://pds.test')
  clock.ms += 1
  expect(identities.remembered(did)).toBeUndefined()
})

test('a did:web is found on its own host', async () => {
  const host: Bun.Server<undefined> = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: (request) =>
      new URL(request.url).pathname === '/.well-known/did.json'
        ? Response.json(documentOf(`did:web:localhost%3A${host.port}`, { didKey: key }))
        : new Response(null, { status: 404 }),
  })
  try {
    expect(await identities.signingKey(parseDid(`did:web:localhost%3A${host.port}`))).toBe(key)
  } finally {
    await host.stop(true)
  }
})

describe('memory', () => {
  test('answers for five minutes and not for longer', async () => {
    const did = directory.add({ didKey: key })
    await identities.signingKey(did)
    directory.accounts.set(did, { didKey: otherKey })
    clock.ms += 5 * minute - 1
    expect(await identities.signingKey(did)).toBe(key)
    clock.ms += 1
    expect(await identities.signingKey(did)).toBe(otherKey)
    expect(directory.asked).toHaveLength(2)
  })

  test('answers for an hour when the directory is down, and not for longer', async () => {
    const did = directory.add({ didKey: key })
    await identities.signingKey(did)
    directory.broken = { status: 500 }
    clock.ms += 60 * minute - 1
    expect(await identities.signingKey(did)).toBe(key)
    clock.ms += 1
    expect(await failureOf(did)).toBe('unreachable')
  })

  test('ends at once for a DID that is gone', async () => {
    const did = directory.add({ didKey: key })
    await identities.signingKey(did)
    directory.accounts.delete(did)
    clock.ms += 5 * minute
    expect(await failureOf(did)).toBe('absent')
  })

  test('keeps a failure for a minute', async () => {
    const did = directory.add({ didKey: key })
    directory.broken = { status: 500 }
    expect(await failureOf(did)).toBe('unreachable')
    directory.broken = undefined
    clock.ms += minute - 1
    expect(await failureOf(did)).toBe('unreachable')
    clock.ms += 1
    expect(await identities.signingKey(did)).toBe(key)
    expect(directory.asked).toHaveLength(2)
  })

  test('asks once for many at a time', async () => {
    const did = directory.add({ didKey: key })
    const found = await Promise.all(Array.from({ length: 20 }, () => identities.signingKey(did)))
    expect(new Set(found)).toEqual(new Set([key]))
    expect(directory.asked).toHaveLength(1)
  })

  test('holds little of a large document', async () => {
    const bytes = () => {
      Bun.gc(true)
      return heapStats().heapSize
    }
    const alsoKnownAs = Array.from({ length: 1_000 }, (_, i) => `at://alice${i}.example.com`)
    const look = async () => {
      const did = directory.add({})
      const body = JSON.stringify({ ...documentOf(did, { didKey: key }), alsoKnownAs })
      directory.broken = { status: 200, body }
      await identities.signingKey(did)
    }
    await look()
    const before = bytes()
    for (let i = 0; i < 100; i++) await look()
    expect((bytes() - before) / 100).toBeLessThan(10_000)
  })

  test('has room for so many look-ups at a host and refuses more', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    directory.gate = promise
    const dids = Array.from({ length: 65 }, () => directory.add({ didKey: key }))
    const asked = dids.map((did) => failureOf(did))
    expect(await asked.at(-1)).toBe('busy')
    resolve()
    expect(await Promise.all(asked.slice(0, -1))).toEqual(Array(64).fill(undefined))
    const last = dids.at(-1)
    if (last !== undefined) expect(await identities.signingKey(last)).toBe(key)
  })
})

describe('the whole document', () => {
  test('is what the directory has, and comes from the same memory', async () => {
    const account = { didKey: key, pds: 'https://pds.test', handle: alice }
    const did = directory.add(account)
    expect(await identities.document(did)).toEqual(documentOf(did, account))
    expect(await identities.handle(did)).toBe(alice)
    expect(directory.asked).toHaveLength(1)
  })

  test('is not kept where it is too large, and the rest of it is', async () => {
    const did = directory.add({ didKey: key, handle: alice, pds: `https://${'x'.repeat(17_000)}` })
    expect(await identities.document(did)).toBeUndefined()
    expect(await identities.handle(did)).toBe(alice)
  })

  test('of a DID that leads to none fails like every look-up', async () => {
    const did = directory.add({})
    directory.accounts.delete(did)
    const failure = await identities.document(did).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(DidNotResolved)
  })
})

describe('a fresh look-up', () => {
  test('goes past memory once a minute', async () => {
    const did = directory.add({ didKey: key })
    await identities.signingKey(did)
    directory.accounts.set(did, { didKey: otherKey })
    expect(await identities.signingKey(did, { fresh: true })).toBe(otherKey)
    directory.accounts.set(did, { didKey: key })
    clock.ms += minute - 1
    expect(await identities.signingKey(did, { fresh: true })).toBe(otherKey)
    clock.ms += 1
    expect(await identities.signingKey(did, { fresh: true })).toBe(key)
    expect(directory.asked).toHaveLength(3)
  })

  test('that fails says so, and leaves what is known to others', async () => {
    const did = directory.add({ didKey: key })
    await identities.signingKey(did)
    directory.broken = { status: 500 }
    for (let i = 0; i < 3; i++) expect(await failureOf(did, true)).toBe('unreachable')
    expect(await identities.signingKey(did)).toBe(key)
    expect(directory.asked).toHaveLength(2)
  })
})

describe('a document', () => {
  test('without an #atproto key has no signing key, whatever other keys it has', async () => {
    const did = directory.add({})
    directory.broken = {
      status: 200,
      body: JSON.stringify({
        ...documentOf(did, {}),
        verificationMethod: [
          method(did, 'other', key),
          method('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', 'atproto', key),
          { id: '#atproto_pns', type: 'Multikey', controller: did, publicKeyMultibase: key },
        ],
      }),
    }
    expect(await errorOf(identities.signingKey(did))).toBeInstanceOf(SigningKeyNotFound)
  })

  test('with a broken #atproto key has no signing key', async () => {
    for (const didKey of ['did:key:zzzz', 'did:key:', key.slice(0, -5), 'did:key:0OIl']) {
      const did = directory.add({ didKey })
      expect(await errorOf(identities.signingKey(did))).toBeInstanceOf(SigningKeyNotFound)
    }
  })

  const noOrigins = [
    `https://${'a.'.repeat(150)}test`,
    'https://pds.test/path',
    'https://a:b@pds.test',
    'ftp://pds.test',
    'pds.test',
  ]
  test.each([undefined, ...noOrigins])('with the endpoint %p names no PDS', async (pds) => {
    const did = directory.add(pds === undefined ? {} : { pds })
    expect(await errorOf(identities.pdsEndpoint(did))).toBeInstanceOf(PdsEndpointNotFound)
  })

  test('gives the PDS as an origin, and the handle in lower case', async () => {
    const did = directory.add({ pds: 'https://PDS.test/', handle: 'Alice.test' })
    expect(await identities.pdsEndpoint(did)).toBe('https://pds.test')
    expect(await identities.handle(did)).toBe(alice)
    expect(await identities.handle(directory.add({ handle: 'no handle' }))).toBeUndefined()
  })
})

async function failureOf(did: Did, fresh = false): Promise<DidFailure | undefined> {
  const error = await errorOf(identities.signingKey(did, { fresh }))
  return error instanceof DidNotResolved ? error.failure : undefined
}

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}
