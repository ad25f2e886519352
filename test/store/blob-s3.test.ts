import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { Cid } from '../../src/atproto/cid.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { S3Blobs } from '../../src/store/blob-s3.ts'
import type { S3Settings } from '../../src/store/blob-s3-client.ts'
import { BlobCut, type BlobKey } from '../../src/store/blob-storage.ts'
import { type Bucket, startS3rver } from '../kit/s3rver.ts'
import { startSwift, swiftLacks } from '../kit/swift.ts'
import { failureOf } from '../kit/wait.ts'
import { collect, contentOf, kept, received, some } from './blobs.ts'
import { HalfwayServer } from './halfway-server.ts'

const lack = swiftLacks()

describe('a bucket in between breaks', () => {
  let bucket: Bucket
  let between: HalfwayServer
  let blobs: S3Blobs
  const did = () => parseDid(`did:web:${crypto.randomUUID()}.test`)

  beforeAll(async () => {
    bucket = await startS3rver()
    between = await HalfwayServer.start(bucket.endpoint)
    blobs = await S3Blobs.open({ ...settingsOf(bucket), endpoint: between.origin })
  })
  afterAll(async () => {
    await blobs.close()
    await between[Symbol.asyncDispose]()
    await bucket[Symbol.asyncDispose]()
  })

  test.each(['half an answer', 'no length'] as const)(
    'while a blob is read, by %s: the read fails, and is never short',
    async (broken) => {
      const place = await kept(blobs, did(), some(3_000_000))
      between.break = (request) => (request.method === 'GET' ? broken : undefined)
      const failure = await failureOf(blobs.read(place).then(collect))
      expect(failure).toBeInstanceOf(BlobCut)
      between.break = () => undefined
    },
  )

  test('once: what is refused for a moment is asked again', async () => {
    let refused = 0
    between.break = ({ method }) => (method === 'PUT' && refused++ < 2 ? 'error' : undefined)
    const bytes = some(1000)
    const place = await received(blobs, did(), bytes)
    expect(refused).toBeGreaterThan(2)
    expect(await contentOf(blobs, place)).toEqual(bytes)
    between.break = () => undefined
  })

  test('for good: an upload fails with what to do, and leaves nothing when it is aborted', async () => {
    const [who, incoming] = [did(), await blobs.receive(did())]
    between.break = ({ method, url }) => {
      return method === 'PUT' && url.includes('partNumber=2') ? 'error' : undefined
    }
    const sending = async () => {
      for (let count = 0; count < 5; count++) await incoming.write(some(8_000_000))
      await incoming.finish()
    }
    const failure = await failureOf(sending())
    expect(String(failure)).toContain('bucket blobs at 127.0.0.1')
    expect(String(failure)).not.toContain(bucket.secretKey)
    between.break = () => undefined
    await incoming.abort()
    const left = await Array.fromAsync(blobs.places('temporary'))
    expect(left.filter(({ place }) => place.did === who)).toEqual([])
  })

  test('not: parts arrive in order, and at most two at once', async () => {
    between.partsAtOnce = 0
    const bytes = some(50_000_000)
    const place = await received(blobs, did(), bytes, [3_333_333])
    expect(between.partsAtOnce).toBeWithin(1, 3)
    const content = await contentOf(blobs, place)
    expect(Buffer.compare(content ?? new Uint8Array(), bytes)).toBe(0)
  })

  test('between copy and removal: the move is ended by the same call again', async () => {
    const place = await kept(blobs, did(), some(10))
    between.break = ({ method }) => (method === 'DELETE' ? 'error' : undefined)
    const failure = await failureOf(blobs.quarantine(place.did, place.cid))
    expect(String(failure)).toContain('a removal failed')
    between.break = () => undefined
    // Both are there until then.
    expect(await contentOf(blobs, place)).toHaveLength(10)
    await blobs.quarantine(place.did, place.cid)
    expect(await contentOf(blobs, place)).toBeUndefined()
    expect(await contentOf(blobs, { ...place, kind: 'quarantined' })).toHaveLength(10)
  })

  test('not: no name of a person, key or CID leads elsewhere, nor to the server', async () => {
    const place = await kept(blobs, did(), some(10))
    let asked = 0
    between.break = () => {
      asked += 1
      return undefined
    }
    for (const trick of ['..', '', '/', `${place.did}/..`, `${place.did}?x`, 'A', '../..']) {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what types cannot keep out
      const name = trick as Did & BlobKey & Cid
      for (const failure of [
        await failureOf(blobs.read({ ...place, did: name })),
        await failureOf(blobs.read({ ...place, cid: name })),
        await failureOf(blobs.remove({ kind: 'temporary', did: place.did, key: name })),
        await failureOf(blobs.removeAll(name)),
        await failureOf(blobs.receive(name)),
        await failureOf(blobs.keep(place.did, name, place.cid)),
        await failureOf(blobs.quarantine(place.did, name)),
      ]) {
        expect(String(failure)).toContain('named by')
      }
    }
    expect(asked).toBe(0)
    between.break = () => undefined
  })

  test('before the start: a server that is not there is named', async () => {
    const settings = { ...settingsOf(bucket), endpoint: 'http://127.0.0.1:1' }
    const failure = String(await failureOf(S3Blobs.open(settings)))
    expect(failure).toContain('bucket blobs at 127.0.0.1:1')
    expect(failure).toContain('check STRATOS_S3_ENDPOINT')
  })
})

describe.skipIf(lack !== undefined)('a server that checks signatures refuses', () => {
  let bucket: Bucket

  beforeAll(async () => {
    bucket = await startSwift()
  })
  afterAll(async () => await bucket[Symbol.asyncDispose]())

  test.each<[string, (settings: S3Settings) => S3Settings, string]>([
    ['a wrong secret', (one) => withKeys(one, { secret: 'WRONG-SECRET' }), 'STRATOS_S3_SECRET_KEY'],
    ['an unknown key', (one) => withKeys(one, { access: 'UNKNOWN-KEY' }), 'STRATOS_S3_ACCESS_KEY'],
    ['a wrong region', (one) => ({ ...one, region: 'eu-north-1' }), 'STRATOS_S3_REGION'],
    ['another bucket', (one) => ({ ...one, bucket: 'others' }), 'STRATOS_S3_BUCKET'],
  ])('%s, with what to set', async (_name, wrong, variable) => {
    const failure = String(await failureOf(S3Blobs.open(wrong(settingsOf(bucket)))))
    expect(failure).toContain(variable)
    expect(failure).not.toMatch(/WRONG-SECRET|UNKNOWN-KEY/)
  })

  test('bytes that were changed on the way', async () => {
    await using between = await HalfwayServer.start(bucket.endpoint)
    const blobs = await S3Blobs.open({ ...settingsOf(bucket), endpoint: between.origin })
    between.break = ({ method }) => (method === 'PUT' ? 'changed bytes' : undefined)
    const did = parseDid('did:web:alice.test')
    for (const size of [1000, 9_000_000]) {
      const failure = await failureOf(received(blobs, did, some(size)))
      expect(String(failure)).toMatch(/BadDigest|Mismatch/)
    }
    between.break = () => undefined
    await blobs.removeAll(did)
    expect(await Array.fromAsync(blobs.places('temporary'))).toEqual([])
    await blobs.close()
  })
})

function settingsOf(bucket: Bucket): S3Settings {
  return {
    bucket: bucket.name,
    region: bucket.region,
    endpoint: bucket.endpoint,
    keys: { access: bucket.accessKey, secret: bucket.secretKey },
    bucketIn: 'path',
  }
}

function withKeys(settings: S3Settings, keys: { access?: string; secret?: string }): S3Settings {
  return { ...settings, keys: { access: 'test:tester', secret: 'testing', ...keys } }
}
