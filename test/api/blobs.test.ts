import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { type BlobRef, getBlob, picture, picturePost, uploadBlob } from '../kit/blob.ts'
import { keptBytes, noBytes } from '../kit/blob-bytes.ts'
import { blobHomes, type Housed, startHoused } from '../kit/blob-home.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import type { SeededStratos } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

let housed: Housed
let stratos: SeededStratos

describe.each(blobHomes)('blobs %s', (home) => {
  beforeAll(async () => {
    const people = { alice: ['a', 'b'], bob: ['a'], carol: ['b'], dave: ['a'] }
    housed = await startHoused(home, { people })
    stratos = housed.stratos
  })
  afterAll(async () => {
    await housed[Symbol.asyncDispose]()
  })

  test('are there for who may read a record that names them, and no longer than one does', async () => {
    const bytes = picture()
    const blob = await uploadBlob(stratos, 'alice', { bytes })
    const cid = blob.ref.$link
    expect(blob).toMatchObject({ mimeType: 'image/png', size: bytes.length })
    for (const name of ['alice', 'bob', 'carol']) expect(await seen(name, cid)).toBe(404)
    expect((await kept('alice')).temporary).toHaveLength(1)

    const { uri } = await post('alice', [stratos.boundary('a')], blob)
    const answer = await getBlob(stratos, 'alice', { cid, authorization: bearer('bob') })
    expect(await answer.bytes()).toEqual(bytes)
    expect(await seen('alice', cid)).toBe(200)
    expect(await seen('carol', cid)).toBe(404)
    await eventually('permanent bytes', async () =>
      (await kept('alice')).permanent.includes(cid) ? true : undefined,
    )
    expect(await seen('bob', cid)).toBe(200)

    const { uri: second } = await post('alice', [stratos.boundary('b')], blob)
    expect(await seen('carol', cid)).toBe(200)
    await remove(uri)
    expect(await seen('bob', cid)).toBe(404)
    expect(await seen('carol', cid)).toBe(200)
    await remove(second)
    expect(await seen('alice', cid)).toBe(404)
    await eventually('no bytes', async () =>
      (await kept('alice')).permanent.length === 0 ? true : undefined,
    )
    const again = await tryPost('alice', [stratos.boundary('a')], blob)
    expect(again.body).toMatchObject({ error: 'BlobNotFound' })
  })

  test('go with whoever leaves, and take nothing from others', async () => {
    const bytes = picture()
    const blob = await uploadBlob(stratos, 'dave', { bytes })
    await uploadBlob(stratos, 'dave', { bytes: picture() })
    await post('dave', [stratos.boundary('a')], blob)
    const same = await uploadBlob(stratos, 'bob', { bytes })
    await post('bob', [stratos.boundary('a')], same)
    const leaving = { input: {}, authorization: bearer('dave') }
    const { status } = await stratos.call('zone.stratos.enrollment.unenroll', leaving)
    expect(status).toBe(200)
    await eventually('no bytes of dave', async () =>
      Bun.deepEquals(await kept('dave'), noBytes) ? true : undefined,
    )
    const call = { cid: same.ref.$link, authorization: bearer('alice') }
    expect((await getBlob(stratos, 'bob', call)).status).toBe(200)
  })
})

function bearer(name: string): string {
  return stratos.person(name).bearer
}

function kept(name: string) {
  return keptBytes(housed.storage, stratos.person(name).did)
}

async function seen(name: string, cid: string): Promise<number> {
  const { status, body } = await getBlob(stratos, 'alice', { cid, authorization: bearer(name) })
  await body?.cancel()
  return status
}

async function tryPost(name: string, boundaries: readonly string[], blob: BlobRef) {
  const record = picturePost('a picture', boundaries, blob)
  const input = { repo: stratos.person(name).did, collection: postCollection, record }
  return await stratos.call('com.atproto.repo.createRecord', { input, authorization: bearer(name) })
}

async function post(name: string, boundaries: readonly string[], blob: BlobRef) {
  const { status, body } = await tryPost(name, boundaries, blob)
  expect([status, body]).toEqual([200, body])
  return { uri: textOf(body, 'uri') }
}

async function remove(uri: string): Promise<void> {
  const { repo, collection, rkey } = addressOf(uri)
  const call = { input: { repo, collection, rkey }, authorization: bearer('alice') }
  expect((await stratos.call('com.atproto.repo.deleteRecord', call)).status).toBe(200)
}
