import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Answer, fieldsOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const invalidRecord: Refusal = [400, 'InvalidRecord']
const invalidRequest: Refusal = [400, 'InvalidRequest']
const invalidCollection: Refusal = [400, 'InvalidCollection']
const zone = ['zone.stratos.repo.createRecord', 'zone.stratos.repo.deleteRecord'] as const
const atproto = ['com.atproto.repo.createRecord', 'com.atproto.repo.deleteRecord'] as const
/** 25 bytes and one grapheme. */
const family = '\u{1F468}\u200D\u{1F469}\u200D\u{1F467}\u200D\u{1F466}'
const cid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

describe.each([zone, atproto])('%s and %s', (createRecord, deleteRecord) => {
  const asBob = () => stratos.person('bob').bearer
  const asStranger = () => stratos.person('stranger').bearer

  test.each(['did', 'handle'] as const)(
    'refuse who is not the owner, who is named by %s',
    async (name) => {
      const repo = stratos.person('alice')[name]
      const rkey = await existing()
      for (const authorization of [asBob(), asStranger()]) {
        const create = { input: input({ repo }), authorization }
        const remove = { input: { repo, collection: postCollection, rkey }, authorization }
        const forbidden: Refusal = [403, 'Forbidden']
        await expectNoChange(stratos, forbidden, () => stratos.call(createRecord, create))
        await expectNoChange(stratos, forbidden, () => stratos.call(deleteRecord, remove))
      }
    },
  )

  test('refuse the owner of another repo alike, whether that repo is there or not', async () => {
    const { did } = stratos.person('stranger')
    for (const repo of [did, `did:plc:${'b'.repeat(24)}`, 'did:web:example.com']) {
      const call = { input: input({ repo }), authorization: asBob() }
      await expectNoChange(stratos, [403, 'Forbidden'], () => stratos.call(createRecord, call))
    }
  })

  test('refuse who is not enrolled', async () => {
    const { did: repo } = stratos.person('stranger')
    const authorization = asStranger()
    const notEnrolled: Refusal = [403, 'NotEnrolled']
    const create = { input: input({ repo }), authorization }
    const remove = { input: { repo, collection: postCollection, rkey: 'x' }, authorization }
    await expectNoChange(stratos, notEnrolled, () => stratos.call(createRecord, create))
    await expectNoChange(stratos, notEnrolled, () => stratos.call(deleteRecord, remove))
  })

  test('refuse who does not say who calls', async () => {
    const rkey = await existing()
    const { did: repo } = stratos.person('alice')
    const create = { input: input({}) }
    const remove = { input: { repo, collection: postCollection, rkey } }
    const missing: Refusal = [401, 'AuthMissing']
    await expectNoChange(stratos, missing, () => stratos.call(createRecord, create))
    await expectNoChange(stratos, missing, () => stratos.call(deleteRecord, remove))
  })

  test.each<[string, Refusal]>([
    ['zone.stratos.actor.enrollment', invalidCollection],
    ['zone.stratos.boundary.defs', invalidCollection],
    ['zone.stratos.feed.like', invalidCollection],
    ['zone.stratos.feed.postt', invalidCollection],
    ['zone.stratos.feed', invalidCollection],
    ['app.bsky.feed.post', invalidCollection],
    ['app.bsky.actor.profile', invalidCollection],
    ['chat.bsky.actor.declaration', invalidCollection],
    ['com.atproto.lexicon.schema', invalidCollection],
    ['com.example.unheard.of', invalidCollection],
    ['ZONE.stratos.feed.post', invalidCollection],
    ['zone.stratos.feed.post#main', invalidRequest],
    ['lex:zone.stratos.feed.post', invalidRequest],
    ['zone.stratos.feed.*', invalidRequest],
    ['post', invalidRequest],
    ['__proto__', invalidRequest],
    ['', invalidRequest],
  ])('refuse the collection %j', async (collection, refusal) => {
    const { bearer: authorization, did: repo } = stratos.person('alice')
    const record = { ...post(), $type: collection }
    for (const more of [{}, { validate: false }]) {
      const call = { input: input({ collection, record, ...more }), authorization }
      await expectNoChange(stratos, refusal, () => stratos.call(createRecord, call))
    }
    const remove = { input: { repo, collection, rkey: 'x' }, authorization }
    await expectNoChange(stratos, refusal, () => stratos.call(deleteRecord, remove))
  })

  test.each([
    '',
    '.',
    '..',
    'a/b',
    'a b',
    ' a',
    'a\n',
    'a#b',
    'a?b',
    'a@b',
    'a%20b',
    'a+b',
    '(a)',
    '"a"',
    'é',
    '\u0000',
    'x'.repeat(513),
    null,
    1,
    [['a']],
    {},
  ])('refuse the record key %j', async (rkey) => {
    const { bearer: authorization, did: repo } = stratos.person('alice')
    const create = { input: input({ rkey }), authorization }
    await expectNoChange(stratos, invalidRequest, () => stratos.call(createRecord, create))
    const remove = { input: { repo, collection: postCollection, rkey }, authorization }
    await expectNoChange(stratos, invalidRequest, () => stratos.call(deleteRecord, remove))
  })

  test.each(['a', '~', '_', '-', ':', 'a.b', '...', '__proto__', 'constructor', 'x'.repeat(512)])(
    'take the record key %j',
    async (rkey) => {
      const created = await stratos.callAs('alice', createRecord, { input: input({ rkey }) })
      expect(created).toMatchObject({ status: 200 })
      const address = addressOf(textOf(created.body, 'uri'))
      expect(address.rkey).toBe(rkey)
      const params = { params: address }
      const read = await stratos.callAs('bob', 'zone.stratos.repo.getRecord', params)
      expect(read).toMatchObject({ status: 200, body: { uri: created.body['uri'] } })
      const removed = await stratos.callAs('alice', deleteRecord, { input: address })
      expect(removed.body).toHaveProperty('commit')
    },
  )

  test.each<[string, object]>([
    ['no repo', { repo: undefined }],
    ['a number for a repo', { repo: 1 }],
    ['no DID for a repo', { repo: 'did:plc' }],
    ['nobody’s name for a repo', { repo: 'no handle' }],
    ['no collection', { collection: undefined }],
    ['a text for validate', { validate: 'false' }],
    ['a commit that is no CID', { swapCommit: 'latest' }],
    ['null for a commit', { swapCommit: null }],
  ])('refuse %s', async (_, more) => {
    const call = { input: input(more), authorization: stratos.person('alice').bearer }
    await expectNoChange(stratos, invalidRequest, () => stratos.call(createRecord, call))
    const remove = { ...call, input: input({ ...more, rkey: await existing(), record: undefined }) }
    // deleteRecord knows no `validate`, and what a method does not know it leaves alone.
    if ('validate' in more) return
    await expectNoChange(stratos, invalidRequest, () => stratos.call(deleteRecord, remove))
  })
})

describe('a record is refused', () => {
  const blob = { $type: 'blob', ref: { $link: rawCid() }, mimeType: 'image/png', size: 1 }
  const image = { $type: 'app.bsky.embed.images', images: [{ alt: '', image: blob }] }
  const bad: Record<string, [object, Refusal]> = {
    'without a text': [{ text: undefined }, invalidRecord],
    'with a number for a text': [{ text: 1 }, invalidRecord],
    'with null for a text': [{ text: null }, invalidRecord],
    'with 301 graphemes': [{ text: 'x'.repeat(301) }, invalidRecord],
    'with 301 graphemes of several characters': [{ text: 'e\u0301'.repeat(301) }, invalidRecord],
    'with 3001 bytes in few graphemes': [{ text: `${family.repeat(120)}x` }, invalidRecord],
    'with half a character': [{ text: '\ud800' }, invalidRecord],
    'with half a character in a name': [{ '\udc00': 1 }, invalidRecord],
    'without a date': [{ createdAt: undefined }, invalidRecord],
    'with a number for a date': [{ createdAt: Date.now() }, invalidRecord],
    'with a date without a time': [{ createdAt: '2026-01-01' }, invalidRecord],
    'with a date without a zone': [{ createdAt: '2026-01-01T00:00:00' }, invalidRecord],
    'with a date that is none': [{ createdAt: 'yesterday' }, invalidRecord],
    'of another type': [{ $type: 'app.bsky.feed.post' }, invalidRecord],
    'of its type in another spelling': [{ $type: `lex:${postCollection}` }, invalidRecord],
    'of its type with a part': [{ $type: `${postCollection}#main` }, invalidRecord],
    'of no type': [{ $type: null }, invalidRecord],
    'of an empty type': [{ $type: '' }, invalidRecord],
    'with a float': [{ weight: 1.5 }, invalidRecord],
    'with a float far inside': [{ a: [{ b: [{ c: 0.1 }] }] }, invalidRecord],
    'with an integer beyond 2^53': [{ weight: 2 ** 53 }, invalidRecord],
    'with a float in a facet': [
      { facets: [{ index: { byteStart: 0.5, byteEnd: 1 }, features: [] }] },
      invalidRecord,
    ],
    'nested deeper than 32': [{ a: nested(32) }, invalidRecord],
    'with four languages': [{ langs: ['en', 'de', 'fr', 'it'] }, invalidRecord],
    'with a language that is none': [{ langs: ['klingon!'] }, invalidRecord],
    'with nine tags': [{ tags: 'abcdefghi'.split('') }, invalidRecord],
    'with a tag of 65 graphemes': [{ tags: ['x'.repeat(65)] }, invalidRecord],
    'with a tag of 641 bytes': [{ tags: [`${family.repeat(25)}${'x'.repeat(16)}`] }, invalidRecord],
    'with a text for tags': [{ tags: 'a' }, invalidRecord],
    'with an embed of no known type': [{ embed: { $type: 'com.example.embed' } }, invalidRecord],
    'with an embed without a type': [{ embed: { record: {} } }, invalidRecord],
    'with a salt of 33 bytes': [{ salt: bytesOf(33) }, invalidRecord],
    'with a text for a salt': [{ salt: 'salt' }, invalidRecord],
    'with the source of a stub': [
      { source: { vary: 'authenticated', subject: { uri: 'at://x', cid }, service: 'did:web:x' } },
      invalidRecord,
    ],
    'with a source of null': [{ source: null }, invalidRecord],
    'with a link that is none': [{ link: { $link: 'abc' } }, invalidRecord],
    'with bytes that are none': [{ bytes: { $bytes: '%%' } }, invalidRecord],
    'with a link that is more': [{ link: { $link: cid, more: 1 } }, invalidRecord],
    'with a blob that was not uploaded': [{ embed: image }, [400, 'BlobNotFound']],
    'with a blob where the lexicon knows none': [{ hidden: [{ blob }] }, [400, 'BlobNotFound']],
    'with a blob in the old form': [{ hidden: { cid, mimeType: 'image/png' } }, invalidRecord],
  }
  test.each(Object.entries(bad))('%s', async (_, [change, refusal]) => {
    for (const more of [{}, { validate: false }]) {
      await expectNoChange(stratos, refusal, () => write({ ...post(), ...change }, more))
    }
  })

  test('by the path of what is wrong with it', async () => {
    const { body } = await write({ ...post(), langs: ['en', 1] })
    expect(body['message']).toContain('Record/langs/1')
    const { body: float } = await write({ ...post(), a: { b: [1, 1.5] } })
    expect(float['message']).toContain('a.b[1]')
  })

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['a text', 'post'],
    ['a number', 1],
    ['a list', [{}]],
    ['a link', { $link: cid }],
    ['bytes', { $bytes: 'AAAA' }],
  ])('that is %s', async (_, record) => {
    await expectNoChange(stratos, invalidRequest, () => write(record))
    await expectNoChange(stratos, invalidRequest, () => write(record, { validate: false }))
  })

  test('at a key that is taken, with the record that is there or another', async () => {
    const taken: Refusal = [409, 'RecordAlreadyExists']
    const record = { ...post(), salt: bytesOf(16) }
    expect(await write(record, { rkey: 'taken' })).toMatchObject({ status: 200 })
    await expectNoChange(stratos, taken, () => write(record, { rkey: 'taken' }))
    await expectNoChange(stratos, taken, () => write(post(), { rkey: 'taken' }))
  })
})

describe('a record is kept', () => {
  test.each<[string, object]>([
    ['with 300 graphemes', { text: 'x'.repeat(300) }],
    ['with 3000 bytes', { text: family.repeat(120) }],
    ['with an empty text', { text: '' }],
    ['with members that its lexicon does not know', { a: { b: [1, -1, null, true, 'x'] } }],
    ['with the largest integers', { a: [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER] }],
    ['with a salt of 32 bytes', { salt: bytesOf(32) }],
    ['nested 32 deep', { a: nested(31) }],
  ])('%s', async (_, change) => {
    const record = { ...post(), ...change }
    const { status, body } = await write(record)
    expect(status).toBe(200)
    const call = { params: addressOf(textOf(body, 'uri')) }
    const read = await stratos.callAs('bob', 'com.atproto.repo.getRecord', call)
    expect(fieldsOf(read.body, 'value')).toMatchObject(record)
    expect(read.body['cid']).toBe(body['cid'])
  })

  test('with its type and a salt where it had none, and another salt each time', async () => {
    const { $type: _, ...bare } = post()
    const salts = new Set<string>()
    for (let count = 0; count < 2; count++) {
      const { body } = await write(bare)
      const call = { params: addressOf(textOf(body, 'uri')) }
      const read = await stratos.callAs('bob', 'zone.stratos.repo.getRecord', call)
      const value = fieldsOf(read.body, 'value')
      expect(value).toMatchObject({ ...bare, $type: postCollection })
      salts.add(textOf(fieldsOf(value, 'salt'), '$bytes'))
    }
    expect(salts.size).toBe(2)
    for (const salt of salts) expect(Buffer.from(salt, 'base64')).toHaveLength(16)
  })

  test('in a repo that is named by its handle', async () => {
    const { handle, did } = stratos.person('alice')
    const answer = await write(post(), { repo: handle.toUpperCase() })
    expect(textOf(answer.body, 'uri')).toStartWith(`at://${did}/`)
    const unknown = await write(post(), { repo: 'nobody.test' })
    expectRefusal(unknown, [403, 'Forbidden'])
  })
})

function post() {
  return privatePost('a post', [stratos.boundary('a')])
}

function input(change: object) {
  return {
    repo: stratos.person('alice').did,
    collection: postCollection,
    record: post(),
    ...change,
  }
}

function write(record: unknown, more: object = {}): Promise<Answer> {
  const call = { input: input({ ...more, record }) }
  return stratos.callAs('alice', 'zone.stratos.repo.createRecord', call)
}

/** The key of a record of alice. */
async function existing(): Promise<string> {
  return addressOf(textOf((await write(post())).body, 'uri')).rkey
}

function nested(depth: number): unknown {
  return depth === 0 ? 1 : [nested(depth - 1)]
}

function bytesOf(count: number): object {
  return { $bytes: Buffer.alloc(count, 7).toString('base64').replaceAll('=', '') }
}

function rawCid(): string {
  return cid.replace('bafyrei', 'bafkrei')
}
