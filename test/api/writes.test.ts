import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Answer, fieldsOf, listOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const prefixes = ['zone.stratos.repo', 'com.atproto.repo'] as const
const otherCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const invalid: Refusal = [400, 'InvalidRequest']

let stratos: SeededStratos
let count = 0

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a', 'b'], bob: ['a'], carol: ['b'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

describe.each(prefixes)('%s', (prefix) => {
  const put = (more: object, as = 'alice') =>
    stratos.callAs(as, `${prefix}.putRecord`, { input: { ...place(), record: post(), ...more } })
  const apply = (writes: readonly unknown[], more: object = {}, as = 'alice') =>
    stratos.callAs(as, `${prefix}.applyWrites`, {
      input: { repo: stratos.person('alice').did, writes, ...more },
    })
  const typed = (kind: string, more: object = {}) => ({
    $type: `${prefix}.applyWrites#${kind}`,
    collection: postCollection,
    ...more,
  })

  describe('refused is', () => {
    test.each<[string, string, Refusal]>([
      ['somebody else of the boundary', 'bob', [403, 'Forbidden']],
      ['a stranger', 'stranger', [403, 'Forbidden']],
    ])('%s', async (_, as, refusal) => {
      const rkey = await existing()
      await expectNoChange(stratos, refusal, () => put({ rkey }, as))
      const writes = [typed('delete', { rkey })]
      await expectNoChange(stratos, refusal, () => apply(writes, {}, as))
    })

    test('whoever does not say who calls', async () => {
      const rkey = await existing()
      const input = { ...place(), rkey, record: post() }
      const missing: Refusal = [401, 'AuthMissing']
      await expectNoChange(stratos, missing, () => stratos.call(`${prefix}.putRecord`, { input }))
      const batch = { repo: stratos.person('alice').did, writes: [] }
      await expectNoChange(stratos, missing, () =>
        stratos.call(`${prefix}.applyWrites`, { input: batch }),
      )
    })

    test.each<[string, () => object, Refusal]>([
      ['without a key', () => ({ rkey: undefined }), invalid],
      ['at a bad key', () => ({ rkey: 'a/b' }), invalid],
      [
        'of a public collection',
        () => ({ collection: 'app.bsky.feed.post' }),
        [400, 'InvalidCollection'],
      ],
      [
        'of no boundary',
        () => ({ record: post({ boundary: undefined }) }),
        [400, 'MissingBoundary'],
      ],
      ['of a foreign boundary', () => ({ record: post({}, ['c']) }), [400, 'ForbiddenBoundary']],
      ['of a bad shape', () => ({ record: post({ text: 1 }) }), [400, 'InvalidRecord']],
      ['as a stub', () => ({ record: post({ source: {} }) }), [400, 'InvalidRecord']],
      ['with a swap on another record', () => ({ swapRecord: otherCid }), [400, 'InvalidSwap']],
      ['with a swap on another commit', () => ({ swapCommit: otherCid }), [400, 'InvalidSwap']],
      ['with a swap of no CID', () => ({ swapRecord: 'bafy' }), invalid],
      [
        'with a boundary, but validate: false',
        () => ({ validate: false, record: post({}, ['c']) }),
        [400, 'ForbiddenBoundary'],
      ],
      [
        'with a bad shape and validate: false',
        () => ({ validate: false, record: post({ text: 1 }) }),
        [400, 'InvalidRecord'],
      ],
    ])('a put %s', async (_, more, refusal) => {
      await expectNoChange(stratos, refusal, () => put({ rkey: 'new-put', ...more() }))
    })

    test('a put that must be the first, where there is a record', async () => {
      const rkey = await existing()
      const ask = () => put({ rkey, swapRecord: null })
      await expectNoChange(stratos, [400, 'InvalidSwap'], ask)
    })

    test.each<[string, () => unknown[], Refusal]>([
      [
        'of 201 operations',
        () => Array.from({ length: 201 }, () => typed('create', { value: post() })),
        invalid,
      ],
      ['of an unknown kind', () => [typed('move', { rkey: 'x' })], invalid],
      ['without a type', () => [{ collection: postCollection, rkey: 'x' }], invalid],
      [
        'of an unknown action',
        () => [{ action: 'move', collection: postCollection, rkey: 'x' }],
        invalid,
      ],
      ['of nothing that is an object', () => ['create', 1, null], invalid],
      [
        'with an update of what is not there',
        () => [typed('update', { rkey: 'absent', value: post() })],
        [404, 'RecordNotFound'],
      ],
      ['with an update without a key', () => [typed('update', { value: post() })], invalid],
      [
        'with one bad record among good ones',
        () => [
          typed('create', { value: post() }),
          typed('create', { value: post({ text: 1 }) }),
          typed('create', { value: post() }),
        ],
        [400, 'InvalidRecord'],
      ],
      [
        'with a public collection among good ones',
        () => [
          typed('create', { value: post() }),
          typed('create', { collection: 'app.bsky.feed.post', value: post() }),
        ],
        [400, 'InvalidCollection'],
      ],
      [
        'with one key twice',
        () => [
          typed('create', { rkey: 'twice', value: post() }),
          typed('create', { rkey: 'twice', value: post() }),
        ],
        [409, 'RecordAlreadyExists'],
      ],
    ])('a batch %s', async (_, writes, refusal) => {
      await expectNoChange(stratos, refusal, () => apply(writes()))
    })

    test('a batch on another commit', async () => {
      const writes = [typed('create', { value: post() })]
      const ask = () => apply(writes, { swapCommit: otherCid })
      await expectNoChange(stratos, [400, 'InvalidSwap'], ask)
    })
  })

  test('a put creates, replaces, and does nothing where nothing changes', async () => {
    const rkey = `put-${++count}`
    const created = expectOk(await put({ rkey, swapRecord: null, record: post({ text: 'one' }) }))
    expect(created.body).toMatchObject({ validationStatus: 'valid', commit: {} })
    const cid = textOf(created.body, 'cid')
    expect(await seenBy('bob', rkey)).toMatchObject({ text: 'one' })

    const same = expectOk(await put({ rkey, record: post({ text: 'one' }) }))
    expect(same.body).toEqual({
      uri: created.body['uri'],
      cid,
      validationStatus: 'valid',
    })
    const swapRecord = cid
    const replaced = expectOk(await put({ rkey, swapRecord, record: post({ text: 'two' }) }))
    expect(replaced.body['cid']).not.toBe(cid)
    expect(await seenBy('bob', rkey)).toMatchObject({ text: 'two' })
    const stale = () => put({ rkey, swapRecord: cid, record: post({ text: 'three' }) })
    await expectNoChange(stratos, [400, 'InvalidSwap'], stale)
  })

  test('a put that changes boundaries changes who reads it', async () => {
    const rkey = `put-${++count}`
    expectOk(await put({ rkey, record: post({ text: 'moves' }, ['a']) }))
    expect(await seenBy('bob', rkey)).toMatchObject({ text: 'moves' })
    expect(await seenBy('carol', rkey)).toBe(404)
    expectOk(await put({ rkey, record: post({ text: 'moves' }, ['b']) }))
    expect(await seenBy('bob', rkey)).toBe(404)
    expect(await seenBy('carol', rkey)).toMatchObject({ text: 'moves' })
  })

  test('a batch does all of it in one commit', async () => {
    const [old, gone] = [await existing(), await existing()]
    const answer = expectOk(
      await apply([
        typed('create', { value: post({ text: 'made' }) }),
        typed('update', { rkey: old, value: post({ text: 'changed' }) }),
        typed('delete', { rkey: gone }),
        typed('delete', { rkey: 'never-was' }),
      ]),
    )
    const results = listOf(answer.body, 'results')
    expect(results.map((result) => result['$type'])).toEqual(
      ['create', 'update', 'delete', 'delete'].map((kind) => `${prefix}.applyWrites#${kind}Result`),
    )
    const [made] = results
    const { rkey } = addressOf(textOf(made ?? {}, 'uri'))
    expect(await seenBy('bob', rkey)).toMatchObject({ text: 'made' })
    expect(await seenBy('bob', old)).toMatchObject({ text: 'changed' })
    expect(await seenBy('alice', gone)).toBe(404)
    const swapCommit = textOf(fieldsOf(answer.body, 'commit'), 'cid')
    expectOk(await apply([typed('delete', { rkey })], { swapCommit }))
  })

  test('a batch of 200 fits, and one of none changes nothing', async () => {
    const writes = Array.from({ length: 200 }, (_, index) =>
      typed('create', { value: post({ text: `number ${index}` }) }),
    )
    const made = listOf(expectOk(await apply(writes)).body, 'results')
    const rkeys = made.map((result) => addressOf(textOf(result, 'uri')).rkey)
    expect(new Set(rkeys).size).toBe(200)
    expectOk(await apply(rkeys.map((rkey) => typed('delete', { rkey }))))
    expect((await apply([])).body).toEqual({ results: [] })
  })

  test('operations come in the older form, and under the other name, too', async () => {
    const other = prefix === 'com.atproto.repo' ? 'zone.stratos.repo' : 'com.atproto.repo'
    const rkey = `older-${++count}`
    const place = { collection: postCollection, rkey }
    expectOk(await apply([{ action: 'create', ...place, record: post({ text: 'older' }) }]))
    expect(await seenBy('bob', rkey)).toMatchObject({ text: 'older' })
    expectOk(await apply([{ action: 'update', ...place, record: post({ text: 'newer' }) }]))
    expect(await seenBy('bob', rkey)).toMatchObject({ text: 'newer' })
    expectOk(await apply([{ ...typed('delete', { rkey }), $type: `${other}.applyWrites#delete` }]))
    expect(await seenBy('alice', rkey)).toBe(404)
    expectOk(await apply([{ action: 'delete', ...place }]))
  })
})

function place() {
  return { repo: stratos.person('alice').did, collection: postCollection, rkey: 'one' }
}

function post(over: object = {}, boundaries: readonly string[] = ['a']) {
  const record = privatePost(
    'a post',
    boundaries.map((name) => stratos.boundary(name)),
  )
  // Of one moment, so that the same text is the same record.
  return { ...record, createdAt: '2026-11-23T09:00:00.000Z', ...over }
}

async function existing(): Promise<string> {
  const { repo, collection } = place()
  const input = { repo, collection, record: post() }
  const { body } = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
  return addressOf(textOf(body, 'uri')).rkey
}

/** The record, or the status of the refusal. */
async function seenBy(name: string, rkey: string): Promise<unknown> {
  const params = { ...place(), rkey }
  const answer = await stratos.callAs(name, 'zone.stratos.repo.getRecord', { params })
  return answer.status === 200 ? answer.body['value'] : answer.status
}

function expectOk(answer: Answer): Answer {
  expect({ status: answer.status, error: answer.body['error'] }).toEqual({
    status: 200,
    error: undefined,
  })
  return answer
}
