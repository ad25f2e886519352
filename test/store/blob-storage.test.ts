import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import {
  BlobCut,
  type BlobKey,
  BlobMissing,
  type BlobPlace,
  isBlobKey,
  makeBlobKey,
  type MovableBlobs,
} from '../../src/store/blob-storage.ts'
import { failureOf } from '../kit/wait.ts'
import { blobBackends } from './blob-backends.ts'
import { collect, contentOf, kept, received, some } from './blobs.ts'

for (const backend of blobBackends()) {
  describe(`blobs ${backend.name}`, () => {
    let running: AsyncDisposable
    let blobs: MovableBlobs
    let did: Did

    beforeAll(async () => {
      const started = await backend.start()
      running = started
      blobs = started.blobs
    })
    afterAll(async () => {
      await blobs.close()
      await running[Symbol.asyncDispose]()
    })
    const person = (): Did => (did = parseDid(`did:web:${crypto.randomUUID()}.test`))

    describe('uploads', () => {
      test.each([
        ['nothing', 0, [1]],
        ['one byte', 1, [1]],
        ['tiny pieces', 300_000, [1, 7, 1000]],
        ['pieces around the size that is gathered', 1_000_000, [262_143, 1, 262_145]],
        ['exactly one part', 5_242_880, [1_000_000]],
        ['exactly two parts', 10_485_760, [5_242_880]],
        ['one byte more', 10_485_761, [9_999_999]],
        ['20 MB in odd pieces', 20_000_003, [1_234_567, 13, 65_536]],
      ])('of %s are read back as they were', async (_name, size, pieces) => {
        const bytes = some(size)
        const place = await received(blobs, person(), bytes, pieces)
        expect(await contentOf(blobs, place)).toEqual(bytes)
      })

      test('are copied by the time a write is through', async () => {
        const incoming = await blobs.receive(person())
        const piece = new Uint8Array(10_000).fill(1)
        await incoming.write(piece)
        piece.fill(2)
        await incoming.write(piece)
        await incoming.finish()
        const content = await contentOf(blobs, { kind: 'temporary', did, key: incoming.key })
        expect([content?.[0], content?.[10_000]]).toEqual([1, 2])
      })

      test('that are not finished can be neither read nor kept', async () => {
        const bytes = some(1000)
        const incoming = await blobs.receive(person())
        await incoming.write(bytes)
        expect(await blobs.read({ kind: 'temporary', did, key: incoming.key })).toBeUndefined()
        const keeping = failureOf(blobs.keep(did, incoming.key, cidOf(bytes)))
        expect(await keeping).toBeInstanceOf(BlobMissing)
        await incoming.abort()
      })

      test.each([10, 20_000_000])('of %d bytes that are aborted leave nothing', async (size) => {
        const incoming = await blobs.receive(person())
        await incoming.write(some(size))
        await incoming.abort()
        await incoming.abort()
        expect(await placesOf(blobs, 'temporary', did)).toEqual([])
      })

      test('that are aborted after the end leave nothing either', async () => {
        const incoming = await blobs.receive(person())
        await incoming.write(some(10))
        await incoming.finish()
        await incoming.abort()
        expect(await placesOf(blobs, 'temporary', did)).toEqual([])
      })

      test('have keys that no other has', async () => {
        const keys = new Set<BlobKey>()
        for (let count = 0; count < 100; count++) keys.add(makeBlobKey())
        expect(keys.size).toBe(100)
      })
    })

    describe('keeping', () => {
      test('bytes that are nowhere is refused', async () => {
        const cid = cidOf(some(5))
        expect(await failureOf(blobs.keep(person(), makeBlobKey(), cid))).toBeInstanceOf(
          BlobMissing,
        )
      })

      test('leaves the temporary bytes until they are removed', async () => {
        const bytes = some(5000)
        const temporary = await received(blobs, person(), bytes)
        const cid = cidOf(bytes)
        await blobs.keep(did, temporary.key, cid)
        expect(await contentOf(blobs, temporary)).toEqual(bytes)
        await blobs.remove(temporary)
        await blobs.remove(temporary)
        expect(await contentOf(blobs, temporary)).toBeUndefined()
        expect(await contentOf(blobs, { kind: 'permanent', did, cid })).toEqual(bytes)
      })

      test('again is no error, with or without the temporary bytes', async () => {
        const bytes = some(5000)
        const temporary = await received(blobs, person(), bytes)
        const cid = cidOf(bytes)
        await blobs.keep(did, temporary.key, cid)
        await blobs.keep(did, temporary.key, cid)
        await blobs.remove(temporary)
        await blobs.keep(did, temporary.key, cid)
        expect(await contentOf(blobs, { kind: 'permanent', did, cid })).toEqual(bytes)
      })

      test('the same content for two people keeps it twice', async () => {
        const bytes = some(100)
        const first = await kept(blobs, person(), bytes)
        const second = await kept(blobs, person(), bytes)
        expect(first.cid).toBe(second.cid)
        await blobs.remove(first)
        expect(await contentOf(blobs, first)).toBeUndefined()
        expect(await contentOf(blobs, second)).toEqual(bytes)
      })
    })

    describe('quarantine', () => {
      test('of what is nowhere changes nothing', async () => {
        await blobs.quarantine(person(), cidOf(some(3)))
        await blobs.restore(did, cidOf(some(3)))
        expect(await placesOf(blobs, 'permanent', did)).toEqual([])
        expect(await placesOf(blobs, 'quarantined', did)).toEqual([])
      })

      test('and return, each repeated, move the bytes', async () => {
        const bytes = some(3000)
        const place = await kept(blobs, person(), bytes)
        const away = { ...place, kind: 'quarantined' } as const
        for (let count = 0; count < 2; count++) {
          await blobs.quarantine(did, place.cid)
          expect(await contentOf(blobs, place)).toBeUndefined()
          expect(await contentOf(blobs, away)).toEqual(bytes)
        }
        for (let count = 0; count < 2; count++) {
          await blobs.restore(did, place.cid)
          expect(await contentOf(blobs, away)).toBeUndefined()
          expect(await contentOf(blobs, place)).toEqual(bytes)
        }
      })

      test('takes away what was kept from the same upload once more', async () => {
        const bytes = some(3000)
        const temporary = await received(blobs, person(), bytes)
        const cid = cidOf(bytes)
        await blobs.keep(did, temporary.key, cid)
        await blobs.quarantine(did, cid)
        // Both places have it now, as they do when a move is cut off between copy and removal.
        await blobs.keep(did, temporary.key, cid)
        await blobs.quarantine(did, cid)
        expect(await contentOf(blobs, { kind: 'permanent', did, cid })).toBeUndefined()
        expect(await contentOf(blobs, { kind: 'quarantined', did, cid })).toEqual(bytes)
        await blobs.keep(did, temporary.key, cid)
        await blobs.restore(did, cid)
        expect(await contentOf(blobs, { kind: 'permanent', did, cid })).toEqual(bytes)
        expect(await contentOf(blobs, { kind: 'quarantined', did, cid })).toBeUndefined()
      })
    })

    describe('reading', () => {
      test('what is not there gives nothing', async () => {
        const cid = cidOf(some(4))
        for (const kind of ['permanent', 'quarantined'] as const) {
          expect(await blobs.read({ kind, did: person(), cid })).toBeUndefined()
          expect(await blobs.read({ kind, did, cid }, { start: 0, end: 1 })).toBeUndefined()
        }
      })

      const size = 600_000
      test.each([
        ['whole', 0, size],
        ['the first byte', 0, 1],
        ['the last byte', size - 1, size],
        ['the middle', 123_456, 456_789],
        ['nothing', 77, 77],
      ])('a range: %s', async (_name, start, end) => {
        const bytes = some(size)
        const place = await kept(blobs, person(), bytes)
        const found = await blobs.read(place, { start, end })
        expect(found?.bytes).toBe(size)
        expect(await collect(found)).toEqual(bytes.subarray(start, end))
      })

      test.each([
        [0, 101],
        [100, 101],
        [200, 300],
      ])('more than there is fails: from %d to %d of 100', async (start, end) => {
        const place = await kept(blobs, person(), some(100))
        const reading = blobs.read(place, { start, end }).then(collect)
        expect(await failureOf(reading)).toBeInstanceOf(BlobCut)
      })

      test('a blob that is removed meanwhile is whole, or fails', async () => {
        const bytes = some(9_000_000)
        const place = await kept(blobs, person(), bytes)
        const found = await blobs.read(place)
        await blobs.remove(place)
        expect(found?.bytes).toBe(bytes.length)
        const read = await collect(found).catch((error: unknown) => error)
        if (!(read instanceof Error)) expect(read).toEqual(bytes)
        expect(await blobs.read(place)).toBeUndefined()
      })

      test('may end early by those who read', async () => {
        const place = await kept(blobs, person(), some(9_000_000))
        const found = await blobs.read(place)
        if (found?.body instanceof ReadableStream) await found.body.cancel()
        await blobs.remove(place)
      })
    })

    describe('removing', () => {
      test('a person leaves no one else without', async () => {
        const bytes = some(500)
        const other = await kept(blobs, person(), bytes)
        // A name that begins with the name of the other.
        const leaving = parseDid(`${other.did}x`)
        const places: BlobPlace[] = [
          await received(blobs, leaving, bytes),
          await kept(blobs, leaving, bytes),
        ]
        const away = await kept(blobs, leaving, some(50))
        await blobs.quarantine(leaving, away.cid)
        const unfinished = await blobs.receive(leaving)
        await unfinished.write(some(9_000_000))
        await blobs.removeAll(parseDid(other.did.slice(0, -1)))
        for (const place of places) expect(await contentOf(blobs, place)).toEqual(bytes)
        await blobs.removeAll(leaving)
        await blobs.removeAll(leaving)
        for (const kind of ['temporary', 'permanent', 'quarantined'] as const) {
          expect(await placesOf(blobs, kind, leaving)).toEqual([])
        }
        const isEnded = backend.listsUploads
        if (isEnded) expect(await failureOf(unfinished.finish())).toBeInstanceOf(Error)
        await unfinished.abort()
        expect(await placesOf(blobs, 'temporary', leaving)).toEqual([])
        expect(await contentOf(blobs, other)).toEqual(bytes)
      })
    })

    describe('listing', () => {
      test('names each place with its bytes and its time', async () => {
        const before = Date.now()
        const bytes = some(321)
        const temporary = await received(blobs, person(), bytes)
        const place = await kept(blobs, did, bytes)
        const [listed, ...more] = await placesOf(blobs, 'temporary', did)
        expect(more).toEqual([])
        expect(listed).toMatchObject({ place: temporary, bytes: 321 })
        // Times of files and of S3 are coarse.
        expect(listed?.writtenAtMs).toBeWithin(before - 2000, Date.now() + 2000)
        expect(await placesOf(blobs, 'permanent', did)).toMatchObject([{ place, bytes: 321 }])
        await blobs.quarantine(did, place.cid)
        const away = { ...place, kind: 'quarantined' }
        expect(await placesOf(blobs, 'quarantined', did)).toMatchObject([{ place: away }])
      })

      const canList = test.skipIf(!backend.listsUploads)
      canList(
        'names unfinished uploads among the temporary ones, which can be removed',
        async () => {
          const incoming = await blobs.receive(person())
          await incoming.write(some(20_000_000))
          const found = await placesOf(blobs, 'temporary', did)
          expect(found).toMatchObject([{ place: { key: incoming.key } }])
          for (const { place } of found) await blobs.remove(place)
          expect(await placesOf(blobs, 'temporary', did)).toEqual([])
          await incoming.abort()
        },
      )

      canList('of unfinished uploads goes by the whole key, not by how it begins', async () => {
        const [short, long] = [makeBlobKey(), makeBlobKey()]
        const key = `${short}${long}`.slice(0, 40)
        if (!isBlobKey(key)) throw new Error('two keys together are a key')
        const incoming = await blobs.receiveAs(person(), key)
        await incoming.write(some(9_000_000))
        await blobs.remove({ kind: 'temporary', did, key: short })
        await incoming.finish()
        expect(await contentOf(blobs, { kind: 'temporary', did, key })).toHaveLength(9_000_000)
      })

      test('names everybody who has something', async () => {
        const first = await received(blobs, person(), some(1))
        const second = await kept(blobs, person(), some(1))
        const third = await kept(blobs, person(), some(1))
        await blobs.quarantine(third.did, third.cid)
        const dids = await Array.fromAsync(blobs.dids())
        for (const one of [first, second, third]) expect(dids).toContain(one.did)
      })

      test('goes through more than a page', async () => {
        const keys = new Set<string>()
        person()
        for (let batch = 0; batch < backend.many / 50; batch++) {
          const batched = Array.from({ length: 50 }, () => received(blobs, did, some(1)))
          for (const { key } of await Promise.all(batched)) keys.add(key)
        }
        const found = await placesOf(blobs, 'temporary', did)
        expect(
          new Set(found.map(({ place }) => ('key' in place ? String(place.key) : ''))),
        ).toEqual(keys)
        await blobs.removeAll(did)
        expect(await placesOf(blobs, 'temporary', did)).toEqual([])
      })
    })
  })
}

async function placesOf(blobs: MovableBlobs, kind: BlobPlace['kind'], did: Did) {
  const found = []
  for await (const listed of blobs.places(kind)) if (listed.place.did === did) found.push(listed)
  return found
}

function cidOf(bytes: Uint8Array): Cid {
  return cidToString(cidForRaw(bytes))
}
