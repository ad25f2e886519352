import { P256Keypair, Secp256k1Keypair } from '@atproto/crypto'
import { p256 } from '@noble/curves/nist.js'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { afterAll, beforeEach, describe, expect, test, beforeAll } from 'bun:test'
import { join } from 'node:path'
import fc from 'fast-check'
import { createHmac } from 'node:crypto'
import { readJwt } from '../../src/api/jwt.ts'
import { ServiceAuth } from '../../src/api/service-auth.ts'
import { XrpcError } from '../../src/atproto/errors.ts'
import { nobleK256 } from '../../src/atproto/k256.ts'
import { parseDid, parseNsid } from '../../src/atproto/syntax.ts'
import { Identities } from '../../src/remote/identity.ts'
import { failureOf } from '../kit/wait.ts'
import { Clock, Directory, loopbackFetch } from '../remote/directory.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { migrateSqlite } from '../../src/store/migrate.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { UsedTokenStore } from '../../src/store/used-token.ts'
import { temporaryFolder } from '../store/temporary.ts'

const serviceDid = parseDid('did:web:stratos.example.com')
const nsid = parseNsid('zone.stratos.repo.createRecord')
const k256 = await Secp256k1Keypair.create()
const p256Key = await P256Keypair.create()
const stranger = await Secp256k1Keypair.create()

const directory = new Directory()
const alice = directory.add({ didKey: k256.did() })
const bob = directory.add({ didKey: p256Key.did() })
const keyless = directory.add({})
const impostor = directory.add({ didKey: k256.did(), id: alice })

const clock = new Clock()
const nowSeconds = clock.ms / 1000
const folder = temporaryFolder()
const sqlite = openSqlite(join(folder, 'service.sqlite'), {
  synchronous: 'normal',
  cacheKib: 256,
  exclusive: true,
})
const used = new UsedTokenStore(sqlite)
let auth: ServiceAuth

beforeAll(async () => {
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
})

beforeEach(() => {
  clock.ms = nowSeconds * 1000
  directory.broken = undefined
  directory.accounts.set(alice, { didKey: k256.did() })
  directory.asked.length = 0
  const identities = new Identities({
    plcUrl: directory.url,
    fetch: loopbackFetch,
    now: clock.now,
  })
  auth = new ServiceAuth({
    serviceDid,
    fragment: 'atproto_pns',
    identities,
    used,
    k256: nobleK256,
    serviceAuthSingleUse: false,
    isKnown: async () => false,
    now: clock.now,
  })
})

afterAll(async () => {
  await directory[Symbol.asyncDispose]()
})

const door = { nsid, tokens: 'any', address: '127.0.0.1' } as const
const other = { ...door, nsid: parseNsid('zone.stratos.repo.deleteRecord') }

type Fields = Readonly<Record<string, unknown>>
type Sign = (signed: Uint8Array) => Uint8Array | Promise<Uint8Array>

const claims: Fields = {
  iss: alice,
  aud: serviceDid,
  lxm: nsid,
  iat: nowSeconds,
  exp: nowSeconds + 60,
}

describe('refused without a look-up is a token', () => {
  const badClaims: Record<string, Fields> = {
    'for another audience': { aud: 'did:web:other.example.com' },
    'for another fragment': { aud: `${serviceDid}#atproto_labeler` },
    'for two audiences': { aud: [serviceDid, 'did:web:other.example.com'] },
    'for our audience in a list': { aud: [serviceDid] },
    'for nobody': { aud: undefined },
    'for another method': { lxm: 'zone.stratos.repo.deleteRecord' },
    'for the twin of the method': { lxm: 'com.atproto.repo.createRecord' },
    'for no method': { lxm: undefined },
    'for any method': { lxm: '*' },
    'for a list of methods': { lxm: [nsid] },
    'without an end': { exp: undefined },
    'that ends in a text': { exp: String(nowSeconds + 60) },
    'that ends before the epoch': { exp: -1 },
    'that lives over an hour': { exp: nowSeconds + 3601 },
    'of a day, in its last hour': { iat: nowSeconds - 86_000, exp: nowSeconds + 400 },
    'from the future': { iat: nowSeconds + 31 },
    'that begins in the future': { nbf: nowSeconds + 31 },
    'of a time that is a text': { iat: 'now' },
    'that begins at null': { nbf: null },
    'without an issuer': { iss: undefined },
    'of an issuer with a fragment': { iss: `${alice}#atproto` },
    'of an issuer that is no DID': { iss: 'alice.test' },
    'of several issuers': { iss: [alice] },
    'with a jti that is no text': { jti: 7 },
  }
  test.each(Object.entries(badClaims))('%s', async (_, bad) => {
    await expectRefusal(await mint(bad), 'InvalidToken')
    expect(directory.asked).toEqual([])
  })

  test('that is expired, by its own name', async () => {
    await expectRefusal(await mint({ exp: nowSeconds }), 'ExpiredToken')
    await expectRefusal(await mint({ iat: nowSeconds - 90, exp: nowSeconds - 30 }), 'ExpiredToken')
    expect(directory.asked).toEqual([])
  })

  test('that is not there, by its own name', async () => {
    await expectRefusal('', 'AuthMissing')
  })

  const badHeaders: Record<string, Fields> = {
    'without a signature': { alg: 'none' },
    'without an algorithm': { alg: undefined },
    'of two algorithms': { alg: ['ES256K'] },
    'of an unknown algorithm': { alg: 'EdDSA' },
    'of the type at+jwt': { typ: 'at+jwt' },
    'of the type dpop+jwt': { typ: 'dpop+jwt' },
    'of the type null': { typ: null },
    'with critical extensions': { crit: ['exp'] },
    'with an empty list of them': { crit: [] },
  }
  test.each(Object.entries(badHeaders))('%s', async (_, header) => {
    await expectRefusal(await mint({}, { header }), 'InvalidToken')
    expect(directory.asked).toEqual([])
  })

  test('signed by HMAC with the public key as secret', async () => {
    const secret = k256.publicKeyBytes()
    const sign = (signed: Uint8Array) => createHmac('sha256', secret).update(signed).digest()
    await expectRefusal(await mint({}, { header: { alg: 'HS256' }, sign }), 'InvalidToken')
    expect(directory.asked).toEqual([])
  })

  test('in another form', async () => {
    const token = await mint({})
    const [header = '', body = '', sig = ''] = token.split('.')
    const twice = (json: string) => Buffer.from(json).toString('base64url')
    const forms = [
      `${header}.${body}`,
      `${token}.`,
      `${token}.${sig}`,
      `.${token}`,
      `${header}..${sig}`,
      `${token}=`,
      ` ${token}`,
      `${token}\n`,
      `${header}.${body}.${sig.slice(0, -1)}${sig.endsWith('A') ? 'B' : 'A'}x`,
      // 64 bytes leave 4 bits over in the last character: another one of the 16 reads the same.
      `${header}.${body}.${sig.slice(0, -1)}${neighbour(sig.slice(-1))}`,
      `${header}.${body}.${sig.slice(0, 40)}+/${sig.slice(42)}`,
      `${header}.${body.slice(0, -1)}!.${sig}`,
      `${header}.${Buffer.from('[]').toString('base64url')}.${sig}`,
      `${header}.${Buffer.from('"text"').toString('base64url')}.${sig}`,
      `${header}.${Buffer.from([0x7b, 0xff, 0x7d]).toString('base64url')}.${sig}`,
      `${twice('{"alg":"none","alg":"ES256K"}')}.${body}.${sig}`,
      `${header}.${twice(`{"iss":"${bob}",${JSON.stringify(claims).slice(1)}`)}.${sig}`,
      `${header}.${twice(`{"i\\u0073s":"${bob}",${JSON.stringify(claims).slice(1)}`)}.${sig}`,
      'a.b.c',
      '..',
      'did:plc:abc',
    ]
    for (const form of forms) await expectRefusal(form, 'InvalidToken')
    await expectRefusal(await mint({ padding: 'x'.repeat(10_000) }), 'InvalidToken')
    expect(directory.asked).toEqual([])
  })
})

describe('refused is a token', () => {
  test('signed by another key', async () => {
    const sign = (signed: Uint8Array) => stranger.sign(signed)
    await expectRefusal(await mint({}, { sign }), 'InvalidToken')
  })

  test('signed over something else', async () => {
    const sign = () => k256.sign(new Uint8Array(3))
    await expectRefusal(await mint({}, { sign }), 'InvalidToken')
  })

  test('whose algorithm is not that of the key', async () => {
    await expectRefusal(await mint({}, { header: { alg: 'ES256' } }), 'InvalidToken')
    const sign = (signed: Uint8Array) => p256Key.sign(signed)
    await expectRefusal(
      await mint({ iss: bob }, { header: { alg: 'ES256K' }, sign }),
      'InvalidToken',
    )
  })

  test('with a high-S signature', async () => {
    const highK = async (signed: Uint8Array) =>
      withHighS(await k256.sign(signed), secp256k1.Point.CURVE().n)
    await expectRefusal(await mint({}, { sign: highK }), 'InvalidToken')
    const highP = async (signed: Uint8Array) =>
      withHighS(await p256Key.sign(signed), p256.Point.CURVE().n)
    await expectRefusal(
      await mint({ iss: bob }, { header: { alg: 'ES256' }, sign: highP }),
      'InvalidToken',
    )
  })

  test('with a signature of another length', async () => {
    const lengths: ((sig: Uint8Array) => Uint8Array)[] = [
      (sig) => sig.subarray(0, 63),
      (sig) => Buffer.concat([sig, new Uint8Array(1)]),
      (sig) => Buffer.concat([new Uint8Array(1), sig]),
      () => new Uint8Array(0),
      () => new Uint8Array(64),
      () => new Uint8Array(64).fill(255),
    ]
    for (const change of lengths) {
      const sign = async (signed: Uint8Array) => change(await k256.sign(signed))
      await expectRefusal(await mint({}, { sign }), 'InvalidToken')
    }
  })

  test.each([
    ['that the directory does not know', 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa'],
    ['of a method that has no documents', 'did:example:alice'],
    ['whose key stands in the DID itself', k256.did()],
    ['whose host does not exist', 'did:web:nowhere.invalid'],
    ['without an #atproto key', keyless],
    ['whose document is of another DID', impostor],
  ])('of an issuer %s', async (_, iss) => {
    await expectRefusal(await mint({ iss }), 'InvalidToken')
  })
})

test('any text is refused with a name', async () => {
  const good = await mint({})
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.tuple(fc.json(), fc.json(), fc.base64String()).map(([header, body, sig]) => {
      const encoded = [header, body].map((json) => Buffer.from(json).toString('base64url'))
      return `${encoded.join('.')}.${sig}`
    }),
    fc
      .tuple(fc.nat({ max: good.length - 1 }), fc.string({ minLength: 1, maxLength: 2 }))
      .map(([at, other]) => good.slice(0, at) + other + good.slice(at + 1))
      .filter((changed) => changed !== good),
  )
  const check = fc.asyncProperty(text, async (token) => {
    const error = await failureOf(auth.verify(token, door))
    expect(error).toBeInstanceOf(XrpcError)
    expect(error).toHaveProperty('status', 401)
  })
  await fc.assert(check, { numRuns: 300 })
})

test('a JWT with a member given twice cannot be read, however deep it lies', () => {
  const read = (json: string) => {
    const encoded = Buffer.from(json).toString('base64url')
    return readJwt(`${encoded}.${encoded}.AAAA`)
  }
  expect(read('{"a":{"b":[{"c":1,"c":2}]}}')).toBeUndefined()
  expect(read('{"__proto__":1,"__proto__":2}')).toBeUndefined()
  expect(read('{ "a" : "b\\":" , "c" : ["d:", {"a" : {}}] }')).toBeDefined()
})

describe('accepted is a token', () => {
  test('of either algorithm, for the bare DID or our fragment', async () => {
    const sign = (signed: Uint8Array) => p256Key.sign(signed)
    expect(await auth.verify(await mint({}), door)).toBe(alice)
    expect(await auth.verify(await mint({ aud: `${serviceDid}#atproto_pns` }), door)).toBe(alice)
    const token = await mint({ iss: bob }, { header: { alg: 'ES256' }, sign })
    expect(await auth.verify(token, door)).toBe(bob)
  })

  test.each<[string, Fields, Fields]>([
    ['without a type', {}, { typ: undefined }],
    ['without iat', { iat: undefined }, {}],
    ['of exactly an hour', { exp: nowSeconds + 3600 }, {}],
    ['of a clock that is 30 s ahead', { iat: nowSeconds + 30, nbf: nowSeconds + 30 }, {}],
    ['with members that mean nothing here', { jti: 'a', nonce: 'b', sub: alice }, { kid: 'c' }],
  ])('%s', async (_, change, header) => {
    expect(await auth.verify(await mint(change, { header }), door)).toBe(alice)
  })

  test('until it expires, and not once more', async () => {
    const token = await mint({})
    expect(await auth.verify(token, door)).toBe(alice)
    clock.ms += 59_999
    expect(await auth.verify(token, door)).toBe(alice)
    clock.ms += 1
    await expectRefusal(token, 'ExpiredToken')
  })

  test('for its method only, also when it was seen before', async () => {
    const token = await mint({})
    await auth.verify(token, door)
    const error = await failureOf(auth.verify(token, other))
    expect(error).toHaveProperty('error', 'InvalidToken')
  })
})

describe('after a change of keys', () => {
  test('the new key counts at once', async () => {
    await auth.verify(await mint({}), door)
    directory.accounts.set(alice, { didKey: stranger.did() })
    const token = await mint({}, { sign: (signed) => stranger.sign(signed) })
    expect(await auth.verify(token, door)).toBe(alice)
    expect(directory.asked).toHaveLength(2)
  })

  test('to the other curve the new key counts at once', async () => {
    await auth.verify(await mint({}), door)
    directory.accounts.set(alice, { didKey: p256Key.did() })
    const sign = (signed: Uint8Array) => p256Key.sign(signed)
    expect(await auth.verify(await mint({}, { header: { alg: 'ES256' }, sign }), door)).toBe(alice)
  })

  test('a token by the old key that was seen before counts no longer', async () => {
    const token = await mint({ exp: nowSeconds + 3600 })
    await auth.verify(token, door)
    directory.accounts.set(alice, { didKey: stranger.did() })
    clock.ms += 5 * 60_000
    await expectRefusal(token, 'InvalidToken')
  })

  test('forged tokens cause one look-up a minute', async () => {
    await auth.verify(await mint({}), door)
    for (let i = 0; i < 5; i++) {
      const sign = (signed: Uint8Array) => stranger.sign(signed)
      await expectRefusal(await mint({ jti: `${i}` }, { sign }), 'InvalidToken')
    }
    expect(directory.asked).toHaveLength(2)
  })
})

describe('while the directory is down', () => {
  test('a token of an unknown issuer is not called bad', async () => {
    directory.broken = { status: 503 }
    const error = await failureOf(auth.verify(await mint({}), door))
    expect(error).toMatchObject({ status: 503, error: 'Overloaded' })
  })

  test('a known issuer is let in', async () => {
    await auth.verify(await mint({}), door)
    directory.broken = { status: 503 }
    clock.ms += 30 * 60_000
    const later = { iat: clock.ms / 1000, exp: clock.ms / 1000 + 60 }
    expect(await auth.verify(await mint(later), door)).toBe(alice)
  })
})

async function mint(
  change: Fields,
  by: { readonly header?: Fields; readonly sign?: Sign } = {},
): Promise<string> {
  const header = { typ: 'JWT', alg: 'ES256K', ...by.header }
  const parts = [header, { ...claims, ...change }].map((part) =>
    Buffer.from(JSON.stringify(part)).toString('base64url'),
  )
  const signed = parts.join('.')
  const sign = by.sign ?? ((bytes: Uint8Array) => k256.sign(bytes))
  const sig = await sign(Buffer.from(signed))
  return `${signed}.${Buffer.from(sig).toString('base64url')}`
}

async function expectRefusal(token: string, name: string): Promise<void> {
  const outcome = await failureOf(auth.verify(token, door))
  expect(outcome).toBeInstanceOf(XrpcError)
  expect(outcome).toMatchObject({
    status: 401,
    error: name,
    headers: { 'www-authenticate': `Bearer realm="stratos", error="${name}"` },
  })
}

/** The same signature in the form that AT Protocol forbids. */
function withHighS(sig: Uint8Array, order: bigint): Uint8Array {
  const s = order - BigInt(`0x${Buffer.from(sig.subarray(32)).toString('hex')}`)
  return Buffer.concat([sig.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex')])
}

/** Another base64url character that differs in its lowest bit only. */
function neighbour(character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return alphabet.charAt(alphabet.indexOf(character) ^ 1)
}
