import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { pathOf } from '../bulk/foreign-posts.ts'
import { ForeignRepo } from '../bulk/foreign-repo.ts'
import { type BlobRef, picture, picturePost, uploadBlob } from '../kit/blob.ts'
import { importRepo, withCar } from '../kit/import.ts'
import { postCollection } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { blobSubject, recordSubject, setTakedown } from '../kit/takedown.ts'
import { type Call, fieldsOf, isFields, textOf } from '../kit/xrpc.ts'
import { Readers } from './readers.ts'

setDefaultTimeout(60_000)

const listNames = ['zone.stratos.sync.listBlobs', 'com.atproto.sync.listBlobs'] as const
const missingName = 'zone.stratos.repo.listMissingBlobs'
const ownMissing = 'com.atproto.repo.listMissingBlobs'
const all = [...listNames, missingName]
const unnamed: Refusal = [401, 'AuthMissing']
const forbidden: Refusal = [403, 'Forbidden']
const noRepo: Refusal = [404, 'RepoNotFound']
const takendown: Refusal = [403, 'RepoTakendown']

interface Written {
  readonly rev: string
  readonly cid: string
  readonly uri: string
}

/** Of alice, in the order in which they were written; others are gone, or taken down. */
const written: Written[] = []
/** Of mia, who imported records whose blobs did not come along: the blob and its record. */
const missing: { readonly cid: string; readonly recordUri: string }[] = []
let readers: Readers
beforeAll(async () => {
  readers = await Readers.start({ people: { mia: ['a'] }, prepare })
})
afterAll(async () => {
  await readers?.stratos.stop()
})

describe('of alice', () => {
  test.each<[string, Refusal | 'all']>([
    ['anonymous', unnamed],
    ['stranger', forbidden],
    ['bob', forbidden],
    ['mia', forbidden],
    ['ivy', forbidden],
    ['tom', forbidden],
    ['erin', forbidden],
    ['moderator', forbidden],
    ['of-a', forbidden],
    ['of-each', forbidden],
    ['alice', 'all'],
    ['admin', 'all'],
    ['all', 'all'],
  ])('%s is answered %p', async (name, outcome) => {
    for (const nsid of all) {
      const params = { did: readers.person('alice').did }
      const answer = await readers.ask(name, nsid, { params })
      if (outcome !== 'all') expectRefusal(answer, outcome)
      else expect(answer).toMatchObject({ status: 200 })
    }
  })

  test.each(['alice', 'admin', 'all'])('%s lists what is to be seen, and once', async (name) => {
    const expected = name === 'all' ? shared() : written
    for (const nsid of listNames) {
      expect(await list(name, nsid, {})).toEqual({
        cids: expected.map(({ cid }) => cid).toSorted(),
      })
    }
  })

  test.each([1, 2, 3, 7, 1000])('pages of %i hold all, each once', async (limit) => {
    const cids = written.map(({ cid }) => cid)
    for (const nsid of listNames) {
      const found: string[] = []
      for (let cursor: string | undefined; ;) {
        const params = { limit, ...(cursor === undefined ? {} : { cursor }) }
        const page = await list('alice', nsid, params)
        const ofPage = textsOf(page['cids'])
        expect(ofPage.length).toBeLessThanOrEqual(limit)
        found.push(...ofPage)
        if (page['cursor'] === undefined) break
        cursor = textOf(page, 'cursor')
      }
      expect(found).toEqual(cids.toSorted())
    }
  })

  test('since a commit there are those that later records name', async () => {
    for (const { rev } of written) {
      const later = written.filter((one) => one.rev > rev)
      const expected = { cids: later.map(({ cid }) => cid).toSorted() }
      for (const nsid of listNames)
        expect(await list('alice', nsid, { since: rev })).toEqual(expected)
    }
  })

  test('nothing is missing', async () => {
    const params = { did: readers.person('alice').did }
    const { body } = await readers.ask('alice', missingName, { params })
    expect(body).toEqual({ cids: [], blobs: [] })
  })
})

describe('of others', () => {
  test.each<[string, string, Refusal]>([
    ['admin', 'stranger', noRepo],
    ['all', 'stranger', noRepo],
    ['stranger', 'stranger', noRepo],
    ['all', 'ivy', noRepo],
    ['all', 'tom', noRepo],
    ['tom', 'tom', takendown],
  ])('%s lists those of %s: %p', async (name, owner, refusal) => {
    const params = { did: readers.person(owner).did }
    for (const nsid of all) expectRefusal(await readers.ask(name, nsid, { params }), refusal)
  })

  test.each([
    ['ivy', 'ivy'],
    ['admin', 'ivy'],
    ['admin', 'tom'],
    ['bob', 'bob'],
  ])('%s lists those of %s', async (name, owner) => {
    const params = { did: readers.person(owner).did }
    for (const nsid of all) {
      const { status, body } = await readers.ask(name, nsid, { params })
      expect([status, body['cids']]).toEqual([200, []])
    }
  })
})

describe('what is missing', () => {
  test.each(['mia', 'admin', 'all'])('is told to %s with a record that names it', async (name) => {
    const params = { did: readers.person('mia').did }
    const blobs = missing.toSorted((a, b) => (a.cid < b.cid ? -1 : 1))
    const { body } = await readers.ask(name, missingName, { params })
    expect(body).toEqual({ cids: blobs.map(({ cid }) => cid), blobs })
    for (const nsid of listNames) {
      expect((await readers.ask(name, nsid, { params })).body).toEqual({ cids: [] })
    }
  })

  test('is told to its owner as a PDS would tell it', async () => {
    const { body } = await readers.ask('mia', ownMissing, {})
    expect(body).toEqual({ blobs: missing.toSorted((a, b) => (a.cid < b.cid ? -1 : 1)) })
    expect((await readers.ask('alice', ownMissing, {})).body).toEqual({ blobs: [] })
  })

  test.each<[string, Refusal]>([
    ['anonymous', unnamed],
    ['admin', forbidden],
    ['all', forbidden],
    ['stranger', noRepo],
    // An AppView, too.
    ['moderator', forbidden],
    ['tom', takendown],
  ])('is told as on a PDS to people only: %s gets %p', async (name, refusal) => {
    expectRefusal(await readers.ask(name, ownMissing, {}), refusal)
  })

  test('comes in pages', async () => {
    for (const [nsid, params] of [
      [missingName, { did: readers.person('mia').did }],
      [ownMissing, {}],
    ] as const) {
      const found: unknown[] = []
      for (let cursor: string | undefined; ;) {
        const asked = { ...params, limit: 2, ...(cursor === undefined ? {} : { cursor }) }
        const { body } = await readers.ask('mia', nsid, { params: asked })
        found.push(...blobsOf(body))
        if (body['cursor'] === undefined) break
        cursor = textOf(body, 'cursor')
      }
      expect(found).toEqual(missing.toSorted((a, b) => (a.cid < b.cid ? -1 : 1)))
    }
  })
})

describe('a bad request is', () => {
  test.each<[string, Record<string, string | number>]>([
    ['a handle', { did: 'alice.test' }],
    ['no DID', { did: '' }],
    ['a page of none', { limit: 0 }],
    ['a page of too many', { limit: 1001 }],
    ['half a page', { limit: 1.5 }],
    ['a cursor that is none', { cursor: 'x' }],
    ['a cursor with more', { cursor: "bafkrei' or 1=1 --" }],
    ['a commit that is none', { since: 'x' }],
  ])('%s', async (_, over) => {
    for (const nsid of all) {
      const params = { did: readers.person('alice').did, ...over }
      expectRefusal(await readers.ask('alice', nsid, { params }), [400, 'InvalidRequest'])
    }
  })
})

/** What a present boundary lets an AppView read. */
function shared(): Written[] {
  return written.filter((_, index) => index % 3 !== 2)
}

async function list(name: string, nsid: string, params: Readonly<Record<string, string | number>>) {
  const did = readers.person('alice').did
  const { status, body } = await readers.ask(name, nsid, { params: { did, ...params } })
  expect(status).toBe(200)
  return body
}

function textsOf(value: unknown): string[] {
  if (!Array.isArray(value)) throw new Error('expected a list')
  return value.map(String)
}

function blobsOf({ blobs }: Readonly<Record<string, unknown>>): unknown[] {
  if (!Array.isArray(blobs) || !blobs.every(isFields)) throw new Error('expected a list')
  return blobs
}

/** Seven blobs of alice's that stay, each third of them in the boundary that will be lost. */
async function prepare(made: Readers): Promise<void> {
  const { stratos } = made
  for (let index = 0; index < 7; index++) {
    const ref = await uploadBlob(stratos, 'alice', { bytes: picture() })
    const one = await post(made, index % 3 === 2 ? 'd' : 'a', ref)
    written.push({ ...one, cid: ref.ref.$link })
    // A second record that names it is no second blob; where it is older, it does not count.
    if (index === 1) {
      const { rev } = await post(made, 'b', ref)
      written[1] = { ...one, cid: ref.ref.$link, rev }
    }
  }
  const taken = await uploadBlob(stratos, 'alice', { bytes: picture() })
  await post(made, 'a', taken)
  const { did } = stratos.person('alice')
  await setTakedown(stratos, blobSubject({ did, cid: taken.ref.$link }), { applied: true })
  const hidden = await post(made, 'a', await uploadBlob(stratos, 'alice', { bytes: picture() }))
  await setTakedown(stratos, recordSubject({ uri: hidden.uri, cid: anyCid }), { applied: true })
  await uploadBlob(stratos, 'alice', { bytes: picture() })
  await importWithout(made)
}

async function post({ stratos }: Readers, bare: string, ref: BlobRef) {
  const { did: repo } = stratos.person('alice')
  const record = picturePost('a picture', [stratos.boundary(bare)], ref)
  const call: Call = { input: { repo, collection: postCollection, record } }
  const { body } = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', call)
  return { uri: textOf(body, 'uri'), rev: textOf(fieldsOf(body, 'commit'), 'rev') }
}

/** Five blobs, of which two records name the first. */
async function importWithout({ stratos }: Readers): Promise<void> {
  const { did } = stratos.person('mia')
  const repo = new ForeignRepo(did)
  for (let index = 0; index < 5; index++) {
    const cid = cidToString(cidForRaw(picture()))
    const ref: BlobRef = { $type: 'blob', ref: { $link: cid }, mimeType: 'image/png', size: 100 }
    const record = picturePost('imported', [stratos.boundary('a')], ref)
    repo.put(pathOf(`post${index}`), record)
    if (index === 0) repo.put(pathOf('second'), record)
    missing.push({ cid, recordUri: `at://${did}/${pathOf(`post${index}`)}` })
  }
  const answer = await stratos.callAs('mia', importRepo, withCar(new Uint8Array(repo.car())))
  expect(answer).toMatchObject({ status: 200 })
}

/** Takedowns of records go by the URI. */
const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
