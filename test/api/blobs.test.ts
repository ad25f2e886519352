import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type BlobRef, getBlob, picture, picturePost, uploadBlob } from '../kit/blob.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

let stratos: SeededStratos
beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a', 'b'], bob: ['a'], carol: ['b'] } })
})
afterAll(async () => {
  await stratos.stop()
})

test('a blob is there for who may read a record that names it, and no longer than one does', async () => {
  const bytes = picture()
  const blob = await uploadBlob(stratos, 'alice', { bytes })
  const cid = blob.ref.$link
  expect(blob).toMatchObject({ mimeType: 'image/png', size: bytes.length })
  for (const name of ['alice', 'bob', 'carol']) expect(await seen(name, cid)).toBe(404)
  expect(files('temp')).toHaveLength(1)

  const { uri } = await post([stratos.boundary('a')], blob)
  const answer = await getBlob(stratos, 'alice', { cid, authorization: bearer('bob') })
  expect(await answer.bytes()).toEqual(bytes)
  expect(await seen('alice', cid)).toBe(200)
  expect(await seen('carol', cid)).toBe(404)
  await eventually('permanent bytes', () => (existsSync(permanent(cid)) ? true : undefined))
  expect(await seen('bob', cid)).toBe(200)

  const { uri: second } = await post([stratos.boundary('b')], blob)
  expect(await seen('carol', cid)).toBe(200)
  await remove(uri)
  expect(await seen('bob', cid)).toBe(404)
  expect(await seen('carol', cid)).toBe(200)
  await remove(second)
  expect(await seen('alice', cid)).toBe(404)
  await eventually('no bytes', () => (existsSync(permanent(cid)) ? undefined : true))
  expect((await tryPost([stratos.boundary('a')], blob)).body).toMatchObject({
    error: 'BlobNotFound',
  })
})

function bearer(name: string): string {
  return stratos.person(name).bearer
}

async function seen(name: string, cid: string): Promise<number> {
  const { status, body } = await getBlob(stratos, 'alice', { cid, authorization: bearer(name) })
  await body?.cancel()
  return status
}

async function tryPost(boundaries: readonly string[], blob: BlobRef) {
  const { did: repo } = stratos.person('alice')
  return await stratos.call('com.atproto.repo.createRecord', {
    input: { repo, collection: postCollection, record: picturePost('a picture', boundaries, blob) },
    authorization: bearer('alice'),
  })
}

async function post(boundaries: readonly string[], blob: BlobRef) {
  const { status, body } = await tryPost(boundaries, blob)
  expect([status, body]).toEqual([200, body])
  return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
}

async function remove(uri: string): Promise<void> {
  const { repo, collection, rkey } = addressOf(uri)
  const call = { input: { repo, collection, rkey }, authorization: bearer('alice') }
  expect((await stratos.call('com.atproto.repo.deleteRecord', call)).status).toBe(200)
}

function permanent(cid: string): string {
  return join(stratos.dataFolder, 'blobs', stratos.person('alice').did, cid)
}

function files(place: 'temp' | 'quarantine'): string[] {
  const folder = join(stratos.dataFolder, 'blobs', place, stratos.person('alice').did)
  return existsSync(folder) ? readdirSync(folder) : []
}
