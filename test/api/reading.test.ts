import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { exactAnswer } from '../kit/exact.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { type Call, listOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const notFound: Refusal = [404, 'RecordNotFound']
const reads = ['zone.stratos.repo.getRecord', 'com.atproto.repo.getRecord'] as const
const lists = ['zone.stratos.repo.listRecords', 'com.atproto.repo.listRecords'] as const
const otherCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

let stratos: SeededStratos

beforeAll(async () => {
  const people = { alice: ['a', 'b', 'c'], bob: ['a'], carol: ['b'], dave: [] }
  stratos = await SeededStratos.start({ people })
})
afterAll(async () => {
  await stratos?.stop()
})

type Credential = (nsid: string) => Promise<string | undefined> | string | undefined
const developer = (name: string) => () => stratos.person(name).bearer
const token = (name: string) => (lxm: string) =>
  serviceToken(stratos.person(name), { aud: stratos.did, lxm }).then((text) => `Bearer ${text}`)

/** Nobody of them may see a record in a alone. */
const outsiders: Record<string, Credential> = {
  anonymous: () => undefined,
  'a stranger': developer('stranger'),
  'a stranger with a token': token('stranger'),
  'somebody of another boundary': developer('carol'),
  'somebody of another boundary with a token': token('carol'),
  'somebody of no boundary': developer('dave'),
}

describe.each(Object.entries(outsiders))('to %s a record that is hidden', (who, credential) => {
  test.each(reads)('answers %s as before it was written', async (nsid) => {
    const rkey = freshRkey()
    const ask = async (more: object = {}) =>
      exact(nsid, { params: { ...place(rkey), ...more }, authorization: await credential(nsid) })
    const missing = await ask()
    const missingByCid = await ask({ cid: otherCid })
    expect(missing).toContain('"RecordNotFound"')

    const { cid } = await write(rkey, ['a'])
    expect(await ask()).toBe(missing)
    expect(await ask({ cid })).toBe(missing)
    expect(await ask({ cid: otherCid })).toBe(missingByCid)
    // Nobody learns whether a record is there from a key beside it, either.
    const beside = freshRkey()
    const other = await exact(nsid, {
      params: place(beside),
      authorization: await credential(nsid),
    })
    expect(other.replaceAll(beside, rkey)).toBe(missing)

    await remove(rkey)
    expect(await ask()).toBe(missing)
  })

  test.each(lists)('answers %s as before it was written', async (nsid) => {
    const ask = async (more: object = {}) => {
      const params = { repo: stratos.person('alice').did, collection: postCollection, ...more }
      return exact(nsid, { params, authorization: await credential(nsid) })
    }
    const forms = [{}, { limit: 1 }, { reverse: true }, { cursor: '0' }, { cursor: '~' }]
    const before = await Promise.all(forms.map(ask))
    const rkeys = [freshRkey(), freshRkey(), freshRkey()]
    for (const rkey of rkeys) await write(rkey, ['a'])
    expect(await Promise.all(forms.map(ask))).toEqual(before)
    for (const rkey of rkeys) await remove(rkey)
  })

  test('is in no export and no collection, whoever’s repo is asked for', async () => {
    const nsid = 'zone.stratos.sync.getRepo'
    const call = {
      params: { did: stratos.person('alice').did },
      authorization: await credential(nsid),
    }
    const refusal: Refusal = who === 'anonymous' ? [401, 'AuthMissing'] : [403, 'Forbidden']
    expectRefusal(await stratos.call(nsid, call), refusal)
  })
})

describe('once the boundary is taken away', () => {
  test.each([
    ['developer', developer('bob')],
    ['token', token('bob')],
  ] as const)('a record answers like a missing one, to a %s', async (_, credential) => {
    const rkey = freshRkey()
    for (const nsid of reads) {
      const ask = async (key = rkey) =>
        exact(nsid, { params: place(key), authorization: await credential(nsid) })
      const missing = await ask()
      await write(rkey, ['a', 'c'])
      expect(await ask()).not.toBe(missing)
      expect(await ask()).toContain('HTTP 200')

      await stratos.setBoundaries('bob', ['b'])
      expect(await ask()).toBe(missing)
      await stratos.setBoundaries('bob', [])
      expect(await ask()).toBe(missing)
      await stratos.setBoundaries('bob', ['a'])
      expect(await ask()).toContain('HTTP 200')
      await remove(rkey)
    }
  })

  test('lists leave it out, and show it again when it is given back', async () => {
    const rkey = freshRkey()
    await write(rkey, ['a'])
    for (const nsid of lists) {
      const seen = async () => (await page('bob', nsid, {})).rkeys
      expect(await seen()).toEqual([rkey])
      await stratos.setBoundaries('bob', ['b'])
      expect(await seen()).toEqual([])
      await stratos.setBoundaries('bob', ['a'])
      expect(await seen()).toEqual([rkey])
    }
    await remove(rkey)
  })
})

describe('getRecord', () => {
  test('by another CID than the present one is missing, to the owner too', async () => {
    const rkey = freshRkey()
    const { cid } = await write(rkey, ['a'])
    for (const name of ['alice', 'bob']) {
      for (const nsid of reads) {
        const call = (params: object) =>
          stratos.callAs(name, nsid, { params: { ...place(rkey), ...params } })
        expectRefusal(await call({ cid: otherCid }), notFound)
        expect(await call({ cid })).toMatchObject({ status: 200, body: { cid } })
        expectRefusal(await call({ cid: 'x' }), [400, 'InvalidRequest'])
      }
    }
    await remove(rkey)
  })

  test('of a repo that is not here is what it is of a record that is not', async () => {
    const rkey = freshRkey()
    const dids = [
      stratos.person('stranger').did,
      `did:plc:${'b'.repeat(24)}`,
      'did:web:example.com',
    ]
    for (const authorization of [undefined, stratos.person('bob').bearer, stratos.adminBasic]) {
      const missing = await exact(reads[0], { params: place(rkey), authorization })
      for (const repo of dids) {
        const params = { ...place(rkey), repo }
        expect(await exact(reads[0], { params, authorization })).toBe(missing)
      }
    }
  })

  test('takes a handle for a repo, and hides the same behind it', async () => {
    const rkey = freshRkey()
    const { handle } = stratos.person('alice')
    const params = { ...place(rkey), repo: handle }
    const missing = await exact(reads[0], { params, authorization: stratos.person('carol').bearer })
    await write(rkey, ['a'])
    expect(await stratos.callAs('bob', reads[0], { params })).toMatchObject({ status: 200 })
    expect(await exact(reads[0], { params, authorization: stratos.person('carol').bearer })).toBe(
      missing,
    )
    const unknown = { ...params, repo: 'nobody.test' }
    expectRefusal(await stratos.callAs('bob', reads[0], { params: unknown }), notFound)
    await remove(rkey)
  })

  test('shows everything to the operator', async () => {
    const rkey = freshRkey()
    await write(rkey, ['c'])
    const call = { params: place(rkey), authorization: stratos.adminBasic }
    for (const nsid of reads) expect(await stratos.call(nsid, call)).toMatchObject({ status: 200 })
    await remove(rkey)
  })
})

test('the rev of a repo is told to its owner and nobody else', async () => {
  const rkey = freshRkey()
  const { commit } = (await write(rkey, ['a', 'b'])).body
  const rev = textOf(Object.fromEntries(Object.entries(commit ?? {})), 'rev')
  const told = async (nsid: string, authorization: string | undefined) => {
    const { headers, status } = await stratos.call(nsid, { params: place(rkey), authorization })
    expect(status).toBeOneOf([200, 404])
    return headers.get('atproto-repo-rev')
  }
  for (const nsid of [...reads, ...lists]) {
    expect(await told(nsid, stratos.person('alice').bearer)).toBe(rev)
    expect(await told(nsid, await token('alice')(nsid))).toBe(rev)
    for (const name of ['bob', 'carol', 'dave', 'stranger']) {
      expect(await told(nsid, stratos.person(name).bearer)).toBeNull()
    }
    expect(await told(nsid, stratos.adminBasic)).toBeNull()
    expect(await told(nsid, undefined)).toBeNull()
  }
  await remove(rkey)
})

describe('a list', () => {
  /** Of every three posts bob sees one and carol two; in the order of their keys. */
  const posts = Array.from({ length: 30 }, (_, index) => ({
    rkey: `list-${String(index).padStart(2, '0')}`,
    boundaries: index % 3 === 0 ? ['a', 'b'] : index % 3 === 1 ? ['b'] : ['c'],
  }))
  const visible = (bare: readonly string[]) =>
    posts.filter(({ boundaries }) => boundaries.some((one) => bare.includes(one)))

  beforeAll(async () => {
    for (const { rkey, boundaries } of posts) await write(rkey, boundaries)
  })

  test.each([
    ['alice', ['a', 'b', 'c']],
    ['bob', ['a']],
    ['carol', ['b']],
    ['dave', []],
    ['stranger', []],
  ] as const)('gives %s full pages of what they may see', async (name, bare) => {
    const ascending = visible(bare).map(({ rkey }) => rkey)
    for (const nsid of lists) {
      for (const limit of [1, 3, 10, 29, 100]) {
        for (const reverse of [false, true]) {
          const expected = reverse ? ascending : ascending.toReversed()
          const pages = await allPages(name, nsid, { limit, reverse })
          expect(pages.flat()).toEqual(expected)
          // Every page but the last is full, however much is hidden between its records.
          expect(pages.slice(0, -1).every((rkeys) => rkeys.length === limit)).toBe(true)
        }
      }
    }
  })

  test('has a cursor that is the last visible key, and names no hidden one', async () => {
    const hidden = posts.filter(({ boundaries }) => !boundaries.includes('a'))
    for (const limit of [1, 2, 5]) {
      const params = { repo: stratos.person('alice').did, collection: postCollection, limit }
      const answer = await stratos.callAs('bob', lists[0], { params })
      const last = listOf(answer.body, 'records').at(-1)
      expect(answer.body['cursor']).toBe(addressOf(textOf(last ?? {}, 'uri')).rkey)
      for (const { rkey } of hidden) expect(JSON.stringify(answer.body)).not.toContain(rkey)
    }
  })

  test('goes on after a key whether that is visible, hidden or missing', async () => {
    const keys = visible(['a']).map(({ rkey }) => rkey)
    for (const cursor of ['list-09', 'list-10', 'list-11', 'list-10x']) {
      const below = keys.filter((rkey) => rkey < cursor).toReversed()
      expect((await page('bob', lists[0], { cursor })).rkeys).toEqual(below)
      const above = keys.filter((rkey) => rkey > cursor)
      expect((await page('bob', lists[0], { cursor, reverse: true })).rkeys).toEqual(above)
    }
  })

  test('is empty of a collection that holds nothing, and refused of a repo that is not here', async () => {
    const repo = stratos.person('alice').did
    const empty = { params: { repo, collection: 'app.bsky.feed.post' } }
    expect(await stratos.callAs('alice', lists[0], empty)).toMatchObject({
      status: 200,
      body: { records: [] },
    })
    const params = { repo: stratos.person('stranger').did, collection: postCollection }
    for (const authorization of [undefined, stratos.person('bob').bearer]) {
      const answer = await stratos.call(lists[0], { params, authorization })
      expectRefusal(answer, [404, 'RepoNotFound'])
    }
  })
})

describe('a membership', () => {
  const nsid = 'zone.stratos.enrollment.status'
  test.each<[string, () => string | undefined, readonly string[] | undefined, boolean]>([
    ['its owner all of it, attested', developer('alice'), ['a', 'b', 'c'], true],
    ['the operator all of it, attested', () => stratos.adminBasic, ['a', 'b', 'c'], true],
    ['somebody enrolled what both share', developer('bob'), ['a'], false],
    ['somebody of no boundary nothing', developer('dave'), [], false],
    ['a stranger that there is one', developer('stranger'), undefined, false],
    ['nobody that there is one', () => undefined, undefined, false],
  ])('shows %s', async (_, credential, bare, attested) => {
    const params = { did: stratos.person('alice').did }
    const { body } = await stratos.call(nsid, { params, authorization: credential() })
    expect(body).toMatchObject({ ...params, enrolled: true, active: true })
    const shown = bare?.map((one) => ({ value: stratos.boundary(one) }))
    expect(body['boundaries']).toEqual(shown)
    expect('attestation' in body).toBe(attested)
  })

  test('that is none is told to everybody alike', async () => {
    const { did } = stratos.person('stranger')
    for (const credential of [developer('stranger'), developer('bob'), () => undefined]) {
      const answer = await stratos.call(nsid, { params: { did }, authorization: credential() })
      expect(answer).toMatchObject({ status: 200, body: { did, enrolled: false } })
      expect(Object.keys(answer.body)).toHaveLength(2)
    }
  })
})

let keys = 0
function freshRkey(): string {
  keys += 1
  return `key-${String(keys).padStart(4, '0')}`
}

function place(rkey: string) {
  return { repo: stratos.person('alice').did, collection: postCollection, rkey }
}

async function write(rkey: string, bare: readonly string[]) {
  const record = privatePost(
    'a post',
    bare.map((one) => stratos.boundary(one)),
  )
  const input = { ...place(rkey), record }
  const answer = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
  expect(answer).toMatchObject({ status: 200 })
  return { cid: textOf(answer.body, 'cid'), body: answer.body }
}

async function remove(rkey: string): Promise<void> {
  const nsid = 'zone.stratos.repo.deleteRecord'
  const answer = await stratos.callAs('alice', nsid, { input: place(rkey) })
  expect(answer.body).toHaveProperty('commit')
}

function exact(nsid: string, call: Call): Promise<string> {
  return exactAnswer(stratos.url, nsid, call)
}

async function page(name: string, nsid: string, more: object) {
  const params = { repo: stratos.person('alice').did, collection: postCollection, ...more }
  const { status, body } = await stratos.callAs(name, nsid, { params })
  expect(status).toBe(200)
  const rkeys = listOf(body, 'records').map((record) => addressOf(textOf(record, 'uri')).rkey)
  return { rkeys, cursor: body['cursor'] }
}

async function allPages(name: string, nsid: string, more: object): Promise<string[][]> {
  const pages: string[][] = []
  for (let cursor: unknown; ;) {
    const next = await page(name, nsid, { ...more, ...(cursor === undefined ? {} : { cursor }) })
    if (next.rkeys.length > 0) pages.push(next.rkeys)
    if (next.cursor === undefined) return pages
    cursor = next.cursor
  }
}
