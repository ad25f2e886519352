import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { keyOf, pathOf } from '../bulk/foreign-posts.ts'
import { postCollection } from '../kit/post.ts'
import type { Refusal } from '../kit/refusal.ts'
import { recordSubject, setTakedown } from '../kit/takedown.ts'
import { type Answer, textOf } from '../kit/xrpc.ts'
import { quoteOf, quoteWithMedia, reference } from '../service/posts.ts'
import { Importers } from './importers.ts'

setDefaultTimeout(60_000)

/** In the text of every record. */
const marker = `only for us ${crypto.randomUUID()}`
const stubSource = { vary: 'authenticated', subject: reference('at://x'), service: 'did:web:x' }
const invalidRecord: Refusal = [400, 'InvalidRecord']
const somebodysPost = 'at://did:web:other.test/zone.stratos.feed.post/one'

let importers: Importers

beforeAll(async () => {
  importers = await Importers.start({
    people: { alice: ['a', 'c'], bob: ['a', 'b', 'c'], dan: ['a', 'b'] },
    env: { STRATOS_COLLECTIONS: `${postCollection},com.example.*`, LOG_LEVEL: 'debug' },
  })
})
afterAll(async () => {
  await importers?.[Symbol.asyncDispose]()
})

/** Tries it with the record among sound ones, before and after it in the order of the tree. */
async function expectBroken(
  { path, record }: { readonly path: string; readonly record: unknown },
  refusal: Refusal,
): Promise<Answer> {
  const repo = importers.repoOf('alice', ...sound)
  repo.put(path, record)
  const answer = await importers.expectRefused('alice', refusal, () =>
    importers.import('alice', repo),
  )
  expect(textOf(answer.body, 'message')).toStartWith(`${path}: `)
  expect(JSON.stringify(answer.body)).not.toContain(marker)
  return answer
}
const sound = [keyOf(0), keyOf(1), `z-${keyOf(2)}`]
const path = pathOf('bad')
const post = (over: Readonly<Record<string, unknown>> = {}) => importers.post(marker, over)
const values = (...names: readonly unknown[]) => ({
  boundary: { values: names.map((value) => ({ value })) },
})

describe('a repo is refused, and the record of it named, of which a record', () => {
  test.each<[string, () => unknown, Refusal]>([
    ['has no text', () => post({ text: undefined }), invalidRecord],
    ['has no type', () => post({ $type: undefined }), invalidRecord],
    ['has another type', () => post({ $type: 'com.example.thing' }), invalidRecord],
    ['is a stub', () => post({ source: stubSource }), invalidRecord],
    ['has a facet outside of its text', () => post({ facets: [facet(0, 1000)] }), invalidRecord],
    ['has a salt without end', () => post({ salt: bytesOf(33) }), invalidRecord],
    ['has too many languages', () => post({ langs: ['a', 'b', 'c', 'd'] }), invalidRecord],
    ['has a blob of the old form', () => post({ embed: oldBlob }), invalidRecord],
    ['is too large', () => post({ padding: marker.repeat(9_000) }), [400, 'RecordTooLarge']],
    ['has no boundary', () => post({ boundary: undefined }), [400, 'MissingBoundary']],
    ['has an empty one', () => post(values()), [400, 'MissingBoundary']],
    ['has one that is no text', () => post(values(7)), invalidRecord],
    ['has one twice', () => post(values(of('a'), of('a'))), invalidRecord],
    ['has eleven', () => post(values(...Array(11).keys())), invalidRecord],
    ['has one that is not here', () => post(values(of('z'))), [400, 'ForbiddenDomain']],
    ['has one of others', () => post(values(of('a'), of('b'))), [400, 'ForbiddenBoundary']],
  ])('%s', async (_, record, refusal) => {
    await expectBroken({ path, record: without(record()) }, refusal)
  })

  test.each<[string, Refusal]>([
    ['app.bsky.feed.post', [400, 'InvalidCollection']],
    ['zone.stratos.actor.enrollment', [400, 'InvalidCollection']],
    ['org.example.thing', [400, 'InvalidCollection']],
    ['com.example.defs', invalidRecord],
  ])('is in the collection %s', async (collection, refusal) => {
    const $type = collection === 'com.example.defs' ? 'com.example.other' : collection
    await expectBroken({ path: `${collection}/one`, record: post({ $type }) }, refusal)
  })

  test.each(['notannsid/one', 'zone.stratos/one', 'zone.stratos.feed.post/.', '-/-', 'a.b.9/one'])(
    'has the key %s, which is none of a record',
    async (key) => {
      const repo = importers.repoOf('alice', ...sound)
      repo.put(key, post())
      const ask = () => importers.import('alice', repo)
      const answer = await importers.expectRefused('alice', [400, 'InvalidCar'], ask)
      expect(textOf(answer.body, 'message')).toEndWith(`: ${key}`)
    },
  )

  test('was taken down here', async () => {
    const uri = `at://${importers.did('alice')}/${path}`
    const subject = recordSubject({ uri, cid: anyCid })
    await setTakedown(importers.stratos, subject, { applied: true })
    await expectBroken({ path, record: post() }, [403, 'RecordTakendown'])
    await setTakedown(importers.stratos, subject, { applied: false })
  })

  test('has boundaries of another service that nothing maps', async () => {
    const record = post(values('did:web:old.test/a', of('a')))
    const repo = importers.repoOf('alice', ...sound)
    repo.put(path, record)
    const ask = () => importers.import('alice', repo)
    const answer = await importers.expectRefused('alice', [400, 'ServiceMismatch'], ask)
    expect(answer.body['uris']).toEqual([`at://${importers.did('alice')}/${path}`])
    expect(JSON.stringify(answer.body)).not.toContain(marker)
  })
})

describe('a map of boundaries is refused', () => {
  const old = 'did:web:old.test/a'
  test.each<[string, () => readonly string[], Refusal]>([
    ['of one name', () => [of('a')], [400, 'InvalidRequest']],
    ['without the new one', () => [`${old}=`], [400, 'InvalidRequest']],
    ['without the old one', () => [`=${of('a')}`], [400, 'InvalidRequest']],
    ['with a bare old one', () => [`a=${of('a')}`], [400, 'InvalidRequest']],
    ['from none', () => [`did:web:old.test/=${of('a')}`], [400, 'InvalidRequest']],
    ['of three', () => [`${old}=${of('a')}=${of('a')}`], [400, 'InvalidRequest']],
    [
      'of one from twice',
      () => [`${old}=${of('a')}`, `${old}=${of('c')}`],
      [400, 'InvalidRequest'],
    ],
    ['from one of here', () => [`${of('b')}=${of('a')}`], [400, 'InvalidRequest']],
    ['to a bare one', () => [`${old}=a`], [400, 'ServiceMismatch']],
    ['to another service', () => [`${old}=did:web:new.test/a`], [400, 'ServiceMismatch']],
    ['to one that is not here', () => [`${old}=${of('z')}`], [400, 'ForbiddenDomain']],
    ['to one of others', () => [`${old}=${of('b')}`], [400, 'ForbiddenBoundary']],
    ['of fifty-one', () => Array(51).fill(`${old}=${of('a')}`), [400, 'InvalidRequest']],
    ['without end', () => [`${old}${'x'.repeat(500)}=${of('a')}`], [400, 'InvalidRequest']],
  ])('%s', async (_, boundaryMap, refusal) => {
    const call = { params: { boundaryMap: boundaryMap() } }
    const ask = () => importers.import('alice', importers.repoOf('alice', 'one'), call)
    await importers.expectRefused('alice', refusal, ask)
  })
})

test.each(['yes', '1', ''])('that stubs are wanted is not said by "%s"', async (stubs) => {
  const ask = () =>
    importers.import('alice', importers.repoOf('alice', 'one'), { params: { stubs } })
  await importers.expectRefused('alice', [400, 'InvalidRequest'], ask)
})

describe('a reply that reaches more people than its parent', () => {
  /** Records of bob, by their boundaries. */
  const ofBob = new Map<string, string>()
  beforeAll(async () => {
    for (const names of ['a', 'a c', 'b']) {
      const record = { ...post(values(...names.split(' ').map(of))), text: names }
      const input = { repo: importers.did('bob'), collection: postCollection, record }
      const nsid = 'zone.stratos.repo.createRecord'
      const { body } = await importers.stratos.callAs('bob', nsid, { input })
      ofBob.set(names, textOf(body, 'uri'))
    }
  })
  const replyTo = (uri: string) => ({ root: reference(somebodysPost), parent: reference(uri) })

  test('of somebody else is refused where the person can see that', async () => {
    const reply = replyTo(ofBob.get('a') ?? '')
    const record = post({ ...values(of('a'), of('c')), reply })
    await expectBroken({ path, record }, [400, 'ReplyBoundaryEscalation'])
  })

  test.each(['before', 'after'])(
    'of the same repo is refused, with its parent %s it',
    async (at) => {
      const parent = pathOf(at === 'before' ? 'aaa' : 'zzz')
      const repo = importers.repoOf('alice')
      repo.put(parent, post(values(of('a'))))
      const reply = replyTo(`at://${importers.did('alice')}/${parent}`)
      repo.put(path, post({ ...values(of('c')), reply }))
      const ask = () => importers.import('alice', repo)
      const answer = await importers.expectRefused('alice', [400, 'ReplyBoundaryEscalation'], ask)
      expect(textOf(answer.body, 'message')).toStartWith(`${path}: `)
    },
  )

  test('is taken where that is public, gone, hidden, or reaches as many', async () => {
    const repo = importers.repoOf('alice')
    const parents = [
      'at://did:web:other.test/app.bsky.feed.post/one',
      `${ofBob.get('a')}-gone`,
      ofBob.get('b') ?? '',
      ofBob.get('a c') ?? '',
    ]
    for (const [index, parent] of parents.entries()) {
      const over = { ...values(of('a'), of('c')), reply: replyTo(parent) }
      repo.put(pathOf(keyOf(index)), post(over))
    }
    repo.put(pathOf('quote'), post({ embed: quoteOf(ofBob.get('b') ?? '') }))
    repo.put(pathOf('media'), post({ embed: quoteWithMedia(somebodysPost) }))
    const blob = { $type: 'blob', ref: { $link: rawCid }, mimeType: 'image/png', size: 7 }
    const images = [{ alt: '', image: blob }]
    repo.put(pathOf('image'), post({ embed: { $type: 'app.bsky.embed.images', images } }))
    repo.put('com.example.thing/one', post({ $type: 'com.example.thing', any: [{ thing: 1 }] }))
    expect(await importers.import('alice', repo)).toMatchObject({
      status: 200,
      body: { imported: 8, rewritten: 0 },
    })
  })
})

test('what was refused is in the log by its name, and without what it says', async () => {
  const { log } = importers.stratos
  expect(log).toContain('"reason":"ForbiddenBoundary"')
  expect(log).not.toContain(marker)
  expect(log).not.toContain(of('z'))
})

function of(bare: string): string {
  return importers.stratos.boundary(bare)
}

/** Without members that are undefined. */
function without(record: unknown): unknown {
  return JSON.parse(JSON.stringify(record))
}

function facet(byteStart: number, byteEnd: number) {
  const features = [{ $type: 'app.bsky.richtext.facet#tag', tag: 'tag' }]
  return { index: { byteStart, byteEnd }, features }
}

function bytesOf(length: number) {
  return { $bytes: Buffer.alloc(length).toString('base64').replaceAll('=', '') }
}

const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const rawCid = 'bafkreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const oldBlob = { cid: rawCid, mimeType: 'image/png' }
