import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { blobs as command } from '../../src/cli/blobs.ts'
import type { BlobPlace, MovableBlobs } from '../../src/store/blob-storage.ts'
import { DiskBlobs } from '../../src/store/blob-disk.ts'
import { S3Blobs } from '../../src/store/blob-s3.ts'
import { type Bucket, startS3rver } from '../kit/s3rver.ts'
import { projectFolder } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { contentOf, kept, received, some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'

const root = temporaryFolder()
const there = ['migrate', '--from', 'local', '--to', 's3']
const back = ['migrate', '--from', 's3', '--to', 'local']
let bucket: Bucket

beforeAll(async () => {
  bucket = await startS3rver()
})
afterAll(async () => await bucket[Symbol.asyncDispose]())

describe('stratos blobs migrate refuses', () => {
  test.each<[string, readonly string[], Record<string, string>, string]>([
    ['another command', ['move'], {}, 'there is no such command'],
    ['no source', ['migrate', '--to', 's3'], {}, '--from must be'],
    ['what is no storage', ['migrate', '--from', 'disk', '--to', 's3'], {}, '--from must be'],
    ['to move to where it is', ['migrate', '--from', 's3', '--to', 's3'], {}, 'must differ'],
    ['a key as an argument', [...there, '--secret-key', 'SECRET-KEY'], {}, 'environment'],
    ['a bucket without a name', there, { STRATOS_S3_BUCKET: '' }, 'STRATOS_S3_BUCKET'],
    ['half of the keys', there, { STRATOS_S3_ACCESS_KEY: '' }, 'STRATOS_S3_ACCESS_KEY'],
    ['a folder that is not there', there, { STRATOS_DATA_DIR: '/none' }, 'STRATOS_DATA_DIR'],
    ['to prune what is in use', [...there, '--prune'], { STRATOS_BLOB_STORAGE: 's3' }, '--prune'],
  ])('%s', async (_name, args, env, said) => {
    const ended = await run(args, { ...settings(fresh().dataDir), ...env })
    expect(ended.code).toBe(2)
    expect(ended.told).toContain(said)
    expect(ended.told).not.toContain('SECRET')
  })

  test('keys that the bucket does not know, without repeating them', async () => {
    const keys = { STRATOS_S3_ACCESS_KEY: 'UNKNOWN-KEY', STRATOS_S3_SECRET_KEY: 'SECRET-KEY' }
    const ended = await run(there, { ...settings(fresh().dataDir), ...keys })
    expect(ended.code).toBe(1)
    expect(ended.told).toContain('bucket blobs at 127.0.0.1')
    expect(ended.told).toContain('check STRATOS_S3_ACCESS_KEY')
    expect(ended.told).not.toMatch(/UNKNOWN-KEY|SECRET-KEY/)
  })
})

describe('stratos blobs migrate', () => {
  test('moves every kind of blob there, and back', async () => {
    const { dataDir, disk, did } = fresh()
    const expected = await filled(disk, did)
    const ended = await run(there, settings(dataDir))
    expect(ended.code).toBe(0)
    expect(ended.printed).toContain('copied and read back: 4 blobs, 12.0 MB')
    expect(ended.printed).toContain('set STRATOS_BLOB_STORAGE=s3')
    await using remote = await openBucket()
    await expectAll(remote.blobs, expected)
    const other = fresh()
    expect((await run(back, settings(other.dataDir))).code).toBe(0)
    await expectAll(other.disk, expected)
    await remote.blobs.removeAll(did)
  })

  test('leaves out what is there, and follows what happened since', async () => {
    const { dataDir, disk, did } = fresh()
    const [first, second, third] = [
      await kept(disk, did, some(10)),
      await kept(disk, did, some(20)),
      await kept(disk, did, some(30)),
    ]
    await disk.quarantine(did, second.cid)
    await run(there, settings(dataDir))
    await disk.quarantine(did, first.cid)
    await disk.restore(did, second.cid)
    await disk.remove(third)
    const again = await run(there, settings(dataDir))
    expect(again.printed).toContain('copied and read back: 0 blobs')
    expect(again.printed).toContain('there already:        2')
    expect(again.told).toContain(`only at the target: permanent ${did}/${third.cid}`)
    await using remote = await openBucket()
    expect(await contentOf(remote.blobs, first)).toBeUndefined()
    expect(await contentOf(remote.blobs, { ...first, kind: 'quarantined' })).toHaveLength(10)
    expect(await contentOf(remote.blobs, second)).toHaveLength(20)
    expect(await contentOf(remote.blobs, third)).toHaveLength(30)
    expect((await run([...there, '--prune'], settings(dataDir))).printed).toContain('removed')
    expect(await contentOf(remote.blobs, third)).toBeUndefined()
    expect(await contentOf(remote.blobs, second)).toHaveLength(20)
    await remote.blobs.removeAll(did)
  })

  test('names what is not what its CID says, and copies the rest', async () => {
    const { dataDir, disk, did } = fresh()
    const [bad, good] = [await kept(disk, did, some(10)), await kept(disk, did, some(10))]
    writeFileSync(join(dataDir, 'blobs', did, bad.cid), some(10))
    writeFileSync(join(dataDir, 'blobs', did, 'notes.txt'), 'x')
    const unfinished = await disk.receive(did)
    await unfinished.write(some(300_000))
    const ended = await run(there, settings(dataDir))
    expect(ended.code).toBe(1)
    expect(ended.told).toContain(`not copied: permanent ${did}/${bad.cid}: its bytes are not`)
    expect(ended.told).toContain('unknown, not copied: ')
    expect(ended.printed).toContain('not copied:           1')
    expect(ended.printed).toContain('unfinished uploads:   1')
    expect(ended.printed).not.toContain('Next')
    await using remote = await openBucket()
    expect(await contentOf(remote.blobs, bad)).toBeUndefined()
    expect(await contentOf(remote.blobs, good)).toHaveLength(10)
    const left = await Array.fromAsync(remote.blobs.places('temporary'))
    expect(left.filter(({ place }) => place.did === did)).toEqual([])
    await unfinished.abort()
    await remote.blobs.removeAll(did)
  })

  test('goes on where it was killed', async () => {
    const { dataDir, disk, did } = fresh()
    const places: BlobPlace[] = []
    for (let count = 0; count < 60; count++) places.push(await kept(disk, did, some(count)))
    const child = Bun.spawn([process.execPath, 'src/main.ts', 'blobs', ...there], {
      cwd: projectFolder,
      env: { ...process.env, ...settings(dataDir) },
      stdout: 'ignore',
      stderr: 'ignore',
    })
    await using remote = await openBucket()
    const arrived = async () => await Array.fromAsync(remote.blobs.places('permanent'))
    await eventually('blob', async () => ((await arrived()).length > 3 ? true : undefined), {
      everyMs: 1,
    })
    child.kill('SIGKILL')
    await child.exited
    const ended = await run([...there, '--prune'], settings(dataDir))
    expect({ code: ended.code, told: ended.told }).toEqual({ code: 0, told: '' })
    const [, copied = ''] = /read back: (\d+) blobs/.exec(ended.printed) ?? []
    expect(Number(copied)).toBeLessThan(60)
    for (const place of places) {
      expect(await contentOf(remote.blobs, place)).toEqual(await contentOf(disk, place))
    }
    expect(await Array.fromAsync(remote.blobs.places('temporary'))).toEqual([])
    await remote.blobs.removeAll(did)
  })
})

function fresh(): { readonly dataDir: string; readonly disk: DiskBlobs; readonly did: Did } {
  const dataDir = join(root, crypto.randomUUID())
  mkdirSync(dataDir)
  const did = parseDid(`did:web:${crypto.randomUUID()}.test%3A8080`)
  return { dataDir, disk: new DiskBlobs(dataDir), did }
}

/** One place of each kind, one of them with bytes for an upload in parts. */
async function filled(blobs: MovableBlobs, did: Did): Promise<[BlobPlace, Uint8Array][]> {
  const large = some(12_000_000)
  const away = await kept(blobs, did, some(7))
  await blobs.quarantine(did, away.cid)
  const places = [
    await kept(blobs, did, large),
    await kept(blobs, did, new Uint8Array()),
    await received(blobs, did, some(9)),
    { ...away, kind: 'quarantined' } as const,
  ]
  return await Promise.all(
    places.map(async (place): Promise<[BlobPlace, Uint8Array]> => {
      return [place, (await contentOf(blobs, place)) ?? new Uint8Array()]
    }),
  )
}

async function expectAll(blobs: MovableBlobs, expected: [BlobPlace, Uint8Array][]): Promise<void> {
  for (const [place, bytes] of expected) expect(await contentOf(blobs, place)).toEqual(bytes)
  const dids = new Set(expected.map(([{ did }]) => did))
  for (const kind of ['permanent', 'quarantined', 'temporary'] as const) {
    const found = await Array.fromAsync(blobs.places(kind))
    const count = found.filter(({ place }) => dids.has(place.did)).length
    expect(count).toBe(expected.filter(([place]) => place.kind === kind).length)
  }
}

async function openBucket(): Promise<AsyncDisposable & { readonly blobs: S3Blobs }> {
  const blobs = await S3Blobs.open({
    bucket: bucket.name,
    region: bucket.region,
    endpoint: bucket.endpoint,
    keys: { access: bucket.accessKey, secret: bucket.secretKey },
    bucketIn: 'path',
  })
  return { blobs, [Symbol.asyncDispose]: async () => await blobs.close() }
}

function settings(dataDir: string): Record<string, string> {
  return {
    STRATOS_DATA_DIR: dataDir,
    STRATOS_S3_BUCKET: bucket.name,
    STRATOS_S3_ENDPOINT: bucket.endpoint,
    STRATOS_S3_ACCESS_KEY: bucket.accessKey,
    STRATOS_S3_SECRET_KEY: bucket.secretKey,
  }
}

async function run(args: readonly string[], given: Record<string, string>) {
  const [printed, told]: [string[], string[]] = [[], []]
  // Empty stands for unset here.
  const env = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ''))
  const code = await command(args, {
    env,
    version: '0',
    print: (text) => printed.push(text),
    tell: (text) => told.push(text),
  })
  return { code, printed: printed.join('\n'), told: told.join('\n') }
}
