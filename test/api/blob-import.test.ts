import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { pathOf } from '../bulk/foreign-posts.ts'
import { ForeignRepo } from '../bulk/foreign-repo.ts'
import { type BlobRef, getBlob, picture, picturePost } from '../kit/blob.ts'
import { noBytes } from '../kit/blob-bytes.ts'
import { blobHomes } from '../kit/blob-home.ts'
import { importRepo, withCar } from '../kit/import.ts'
import { addressOf } from '../kit/post.ts'
import { seed } from '../kit/seed.ts'
import { setTakedown } from '../kit/takedown.ts'
import { listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'
import { BlobUploaders } from './blob-uploaders.ts'

setDefaultTimeout(60_000)

const missingNsid = 'com.atproto.repo.listMissingBlobs'
let service: BlobUploaders
describe.each(blobHomes)('blobs %s', (home) => {
  beforeAll(async () => {
    const names = ['ada', 'bea', 'cem', 'dot', 'eli', 'fay', 'bob']
    service = await BlobUploaders.start(
      {
        people: Object.fromEntries(names.map((name) => [name, ['a']])),
      },
      home,
    )
  })
  afterAll(async () => {
    await service[Symbol.asyncDispose]()
  })

  describe('an import', () => {
    test('lists the blobs that are missing, each with a record, until they come', async () => {
      const [one, two, both] = [described(), described(), described()]
      await bring('ada', { r1: [one.ref, both.ref], r2: [two.ref, two.ref], r3: [both.ref] })
      const keys = { [one.cid]: 'r1', [two.cid]: 'r2', [both.cid]: 'r1' }
      expect(Object.fromEntries(await missing('ada'))).toEqual(keys)
      expect(await listed('ada')).toEqual([])
      expect(await seen('ada', 'ada', one.cid)).toBe(404)
      expect((await service.tryPost('ada', one.ref)).body['error']).toBe('BlobNotFound')

      expect(await service.upload('ada', both.bytes)).toEqual(both.ref)
      expect((await missing('ada')).map(([cid]) => cid)).toEqual([one.cid, two.cid].toSorted())
      await service.settled('ada', { permanent: [both.cid] })
      expect(await seen('ada', 'bob', both.cid)).toBe(200)
      await service.upload('ada', one.bytes)
      await service.upload('ada', two.bytes)
      expect(await missing('ada')).toEqual([])
      expect(await listed('ada')).toEqual([one.cid, two.cid, both.cid].toSorted())
      await service.post('ada', one.ref)
    })

    test('finds the blobs that came before it', async () => {
      const [before, after] = [described(), described()]
      await service.upload('bea', before.bytes)
      await bring('bea', { r1: [before.ref, after.ref] })
      expect(await missing('bea')).toEqual([[after.cid, 'r1']])
      await service.settled('bea', { permanent: [before.cid] })
      expect(await seen('bea', 'bob', before.cid)).toBe(200)
    })

    test('that is refused names no blobs', async () => {
      const waits = described()
      await service.upload('cem', waits.bytes)
      const repo = repoOf('cem', { r1: [waits.ref] })
      repo.put(pathOf('bad'), { text: 'no post' })
      const answer = await service.stratos.callAs('cem', importRepo, withCar(repo.car()))
      expect(answer.status).toBe(400)
      expect(await missing('cem')).toEqual([])
      expect(await seen('cem', 'cem', waits.cid)).toBe(404)
      expect((await service.bytes('cem')).permanent).toEqual([])
    })

    test('that says another type of a blob has it filled as it is', async () => {
      const blob = described()
      await bring('dot', { r1: [{ ...blob.ref, mimeType: 'image/jpeg' }] })
      expect((await service.upload('dot', blob.bytes)).mimeType).toBe('image/png')
      const response = await ask('dot', 'bob', blob.cid)
      expect(response.headers.get('content-type')).toBe('image/png')
      expect(await response.bytes()).toEqual(blob.bytes)
    })

    test('of a blob that is taken down leaves it missing', async () => {
      const blob = described()
      const $type = 'com.atproto.admin.defs#repoBlobRef'
      const subject = { $type, did: service.did('eli'), cid: blob.cid }
      await setTakedown(service.stratos, subject, { applied: true })
      await bring('eli', { r1: [blob.ref] })
      expect((await service.send('eli', blob.bytes)).body['error']).toBe('BlobTakendown')
      await setTakedown(service.stratos, subject, { applied: false })
      await service.upload('eli', blob.bytes)
      await service.settled('eli', { permanent: [blob.cid] })
    })
  })

  test('an export brings along what it names and no bytes, and comes back as that', async () => {
    const blob = described()
    await service.upload('fay', blob.bytes)
    await service.post('fay', blob.ref)
    const { stratos } = service
    const call = { params: { did: service.did('fay') }, authorization: bearer('fay') }
    const response = await xrpcResponse(stratos.url, 'zone.stratos.sync.getRepo', call)
    const car = await response.bytes()
    expect(Buffer.from(car).includes(Buffer.from(blob.bytes))).toBeFalse()

    await stratos.callAs('fay', 'zone.stratos.enrollment.unenroll', { verb: 'POST' })
    await service.settled('fay', noBytes)
    expect((await service.send('fay', blob.bytes)).status).toBe(403)
    await stratos.terminate()
    const back = { did: service.did('fay'), boundaries: [stratos.boundary('a')] }
    await seed(stratos.dataFolder, stratos.did, [back])
    await stratos.run()
    expect(await missing('fay')).toEqual([])
    const { status } = await stratos.callAs('fay', importRepo, withCar(car))
    expect(status).toBe(200)
    expect((await missing('fay')).map(([cid]) => cid)).toEqual([blob.cid])
    await service.upload('fay', blob.bytes)
    expect(await missing('fay')).toEqual([])
    expect(await seen('fay', 'bob', blob.cid)).toBe(200)
  })
})

/** Bytes that nobody has, and how a record names them. */
function described() {
  const bytes = picture()
  const cid = cidToString(cidForRaw(bytes))
  const ref: BlobRef = {
    $type: 'blob',
    ref: { $link: cid },
    mimeType: 'image/png',
    size: bytes.length,
  }
  return { bytes, cid, ref }
}

function repoOf(name: string, posts: Readonly<Record<string, readonly BlobRef[]>>): ForeignRepo {
  const records = Object.entries(posts).map(([rkey, [first, ...more]]) => {
    if (first === undefined) throw new Error('a post names a blob')
    const post = picturePost(rkey, [service.stratos.boundary('a')], first)
    const images = [...post.embed.images, ...more.map((image) => ({ image, alt: '' }))]
    return [pathOf(rkey), { ...post, embed: { ...post.embed, images } }] as const
  })
  return new ForeignRepo(service.did(name), Object.fromEntries(records))
}

async function bring(name: string, posts: Readonly<Record<string, readonly BlobRef[]>>) {
  const car = repoOf(name, posts).car()
  const { status, body } = await service.stratos.callAs(name, importRepo, withCar(car))
  expect([status, body]).toEqual([200, body])
}

/** CIDs in order, each with the key of a record. */
async function missing(name: string): Promise<[cid: string, rkey: string][]> {
  const { body } = await service.stratos.callAs(name, missingNsid)
  return listOf(body, 'blobs').map((one) => [
    textOf(one, 'cid'),
    addressOf(textOf(one, 'recordUri')).rkey,
  ])
}

async function listed(name: string): Promise<unknown> {
  const call = { params: { did: service.did(name) } }
  return (await service.stratos.callAs(name, 'zone.stratos.sync.listBlobs', call)).body['cids']
}

function ask(owner: string, viewer: string, cid: string): Promise<Response> {
  return getBlob(service.stratos, owner, { cid, authorization: bearer(viewer) })
}

async function seen(owner: string, viewer: string, cid: string): Promise<number> {
  const response = await ask(owner, viewer, cid)
  await response.body?.cancel()
  return response.status
}

function bearer(name: string): string {
  return service.stratos.person(name).bearer
}
