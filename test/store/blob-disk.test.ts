import { describe, expect, test } from 'bun:test'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Cid } from '../../src/atproto/cid.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { DiskBlobs } from '../../src/store/blob-disk.ts'
import {
  BlobCut,
  type BlobKey,
  type BlobPlace,
  type MovableBlobs,
} from '../../src/store/blob-storage.ts'
import { collect, contentOf, kept, received, some } from './blobs.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const did = parseDid('did:web:alice.test')

describe('blobs on disk', () => {
  test('lie where the protocol says, for nobody else on the machine', async () => {
    const { dataDir, blobs } = fresh()
    const temporary = await received(blobs, did, some(10))
    const { cid } = await kept(blobs, did, some(10))
    const away = await kept(blobs, did, some(10))
    await blobs.quarantine(did, away.cid)
    const unfinished = await blobs.receive(did)
    const names = readdirSync(join(dataDir, 'blobs'), { recursive: true }).map(String)
    expect(names.toSorted()).toEqual(
      [
        did,
        `${did}/${cid}`,
        'temp',
        `temp/${did}`,
        `temp/${did}/${temporary.key}`,
        `temp/${did}/${unfinished.key}.part`,
        'quarantine',
        `quarantine/${did}`,
        `quarantine/${did}/${away.cid}`,
      ].toSorted(),
    )
    for (const name of names) {
      const found = statSync(join(dataDir, 'blobs', name))
      expect(found.mode & 0o777).toBe(found.isDirectory() ? 0o700 : 0o600)
    }
    await unfinished.abort()
  })

  test('no name of a person, key or CID leads elsewhere', async () => {
    const { dataDir, blobs } = fresh()
    const { cid } = await kept(blobs, did, some(10))
    writeFileSync(join(dataDir, 'signing_key'), 'secret')
    const tricks = ['..', '../..', '../../signing_key', '.', '', `${did}/..`, `${did}\0`, 'A']
    const trusting: MovableBlobs = blobs
    for (const trick of tricks) {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what types cannot keep out
      const name = trick as Did & BlobKey & Cid
      for (const place of [
        { kind: 'permanent', did: name, cid },
        { kind: 'permanent', did, cid: name },
        { kind: 'temporary', did, key: name },
      ] as const) {
        expect(String(await failureOf(trusting.read(place)))).toContain('named by')
        expect(String(await failureOf(trusting.remove(place)))).toContain('named by')
      }
      expect(String(await failureOf(trusting.removeAll(name)))).toContain('named by')
      expect(String(await failureOf(trusting.receive(name)))).toContain('named by')
      expect(String(await failureOf(trusting.receiveAs(did, name)))).toContain('named by')
      expect(String(await failureOf(trusting.quarantine(did, name)))).toContain('named by')
      expect(String(await failureOf(trusting.keep(did, name, cid)))).toContain('named by')
    }
    expect(existsSync(join(dataDir, 'signing_key'))).toBeTrue()
  })

  test('a person whose DID is longer than a name can be has none', async () => {
    const { blobs } = fresh()
    const long = parseDid(`did:web:${'a'.repeat(300)}.test`)
    const { cid } = await kept(blobs, did, some(10))
    expect(await blobs.read({ kind: 'permanent', did: long, cid })).toBeUndefined()
    await blobs.quarantine(long, cid)
    await blobs.removeAll(long)
    expect(String(await failureOf(blobs.receive(long)))).toContain('ENAMETOOLONG')
  })

  test.each([
    ['shrinks', (path: string) => truncateSync(path, 500_000)],
    ['grows', (path: string) => truncateSync(path, 950_000)],
    ['vanishes', (path: string) => unlinkSync(path)],
  ])('a file that %s before it is read fails', async (_name, change) => {
    const { dataDir, blobs } = fresh()
    const place = await kept(blobs, did, some(900_000))
    const found = await blobs.read(place)
    change(join(dataDir, 'blobs', did, place.cid))
    expect(await failureOf(collect(found))).toBeInstanceOf(BlobCut)
  })

  test('a file that shrinks while it is read fails', async () => {
    const { dataDir, blobs } = fresh()
    const place = await kept(blobs, did, some(900_000))
    const reader = await readerOf(blobs, place)
    await reader.read()
    truncateSync(join(dataDir, 'blobs', did, place.cid), 500_000)
    expect(await failureOf(restOf(reader))).toBeInstanceOf(BlobCut)
  })

  test.each([
    ['replaced', (path: string) => renameSync(`${path}.new`, path)],
    ['removed', (path: string) => unlinkSync(path)],
  ])('a file that is %s while it is read is read as it was', async (_name, change) => {
    const { dataDir, blobs } = fresh()
    const bytes = some(900_000)
    const place = await kept(blobs, did, bytes)
    const reader = await readerOf(blobs, place)
    const pieces = [(await reader.read()).value ?? new Uint8Array()]
    const path = join(dataDir, 'blobs', did, place.cid)
    writeFileSync(`${path}.new`, some(900_000))
    change(path)
    pieces.push(...(await restOf(reader)))
    expect(Buffer.concat(pieces).equals(bytes)).toBeTrue()
  })

  test('who goes away in the middle leaves no open file', async () => {
    const { blobs } = fresh()
    const place = await kept(blobs, did, some(20_000_000))
    using server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: async () => new Response((await blobs.read(place))?.body),
    })
    const before = readdirSync('/proc/self/fd').length
    for (let count = 0; count < 20; count++) {
      const going = new AbortController()
      const answer = await fetch(server.url, { signal: going.signal })
      await answer.body?.getReader().read()
      going.abort()
      await fetch(server.url, { method: 'HEAD' })
    }
    await server.stop(true)
    await eventually('closed file', () => {
      return readdirSync('/proc/self/fd').length <= before ? true : undefined
    })
  })

  test('a folder that vanishes under an upload fails it', async () => {
    const { blobs } = fresh()
    const incoming = await blobs.receive(did)
    await incoming.write(some(10))
    await blobs.removeAll(did)
    expect(String(await failureOf(incoming.finish()))).toContain('ENOENT')
    await incoming.abort()
  })

  test('an upload that a kill cut off is listed, can be removed, and is begun anew', async () => {
    const { dataDir, blobs } = fresh()
    const cut = await blobs.receive(did)
    await cut.write(some(600_000))
    const [found] = await Array.fromAsync(new DiskBlobs(dataDir).places('temporary'))
    expect(found).toMatchObject({ place: { key: cut.key } })
    const again = await blobs.receiveAs(did, cut.key)
    const bytes = some(10)
    await again.write(bytes)
    await again.finish()
    const place = { kind: 'temporary', did, key: cut.key } as const
    expect(await contentOf(blobs, place)).toEqual(bytes)
    await blobs.remove(place)
    expect(readdirSync(join(dataDir, 'blobs', 'temp', did))).toEqual([])
  })

  test('files of others are listed as strangers, and as nothing else', async () => {
    const { dataDir, blobs } = fresh()
    const { cid } = await kept(blobs, did, some(10))
    await received(blobs, did, some(10))
    const root = join(dataDir, 'blobs')
    const others = [`${did}/notes.txt`, `temp/${did}/UP`, 'temp/x', 'lost+found', 'quarantine/y']
    mkdirSync(join(root, 'quarantine'))
    for (const name of others) writeFileSync(join(root, name), 'x')
    const found = await Array.fromAsync(blobs.strangers())
    expect(found.toSorted()).toEqual(others.map((name) => join(root, name)).toSorted())
    expect(await Array.fromAsync(blobs.places('permanent'))).toMatchObject([{ place: { cid } }])
    expect(await Array.fromAsync(blobs.dids())).toEqual([did, did])
  })
})

function fresh(): { dataDir: string; blobs: DiskBlobs } {
  const dataDir = join(folder, crypto.randomUUID())
  return { dataDir, blobs: new DiskBlobs(dataDir) }
}

interface Reader {
  read(): Promise<{ value?: Uint8Array | undefined }>
}

async function readerOf(blobs: DiskBlobs, place: BlobPlace): Promise<Reader> {
  const found = await blobs.read(place)
  if (!(found?.body instanceof ReadableStream)) throw new Error('no stream is there')
  return found.body.getReader()
}

async function restOf(reader: Reader): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = []
  for (;;) {
    const { value } = await reader.read()
    if (value === undefined) return pieces
    pieces.push(value)
  }
}
