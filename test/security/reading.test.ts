import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { exactAnswer } from '../kit/exact.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import type { Refusal } from '../kit/refusal.ts'
import { type Answer, type Call, listOf, textOf } from '../kit/xrpc.ts'
import { Readers } from '../api/readers.ts'

setDefaultTimeout(60_000)

// Alice's records: `in-a` and `in-b` by their boundary, `taken`, which is taken down, and `absent`.
const states = ['in-a', 'in-b', 'taken', 'absent'] as const
type State = (typeof states)[number]

const found = 200
const missing: Refusal = [404, 'RecordNotFound']
const repoMissing: Refusal = [404, 'RepoNotFound']
const unnamed: Refusal = [401, 'AuthMissing']
const forbidden: Refusal = [403, 'Forbidden']
const takendown: Refusal = [403, 'RecordTakendown']
const blocked: Refusal = [403, 'RecordBlocked']
type Outcome = typeof found | Refusal

interface Row {
  readonly reads: Readonly<Record<State, Outcome>>
  /** Of those it cannot read, the records that a member is told of by their stubs. */
  readonly isToldOf?: readonly State[]
  /** Keys on a page of the list; alice has one more record in both boundaries. */
  readonly lists: readonly string[]
  readonly describes: Outcome
  readonly exports: Outcome
  readonly writes: Refusal | 'may write'
  readonly administers: Outcome
}

const nothing = { 'in-a': missing, 'in-b': missing, taken: missing, absent: missing }
const outsider = {
  reads: nothing,
  lists: [],
  describes: repoMissing,
  exports: forbidden,
  writes: forbidden,
  administers: forbidden,
} as const
const callers: Record<string, Row> = {
  anonymous: { ...outsider, exports: unnamed, writes: unnamed, administers: unnamed },
  stranger: outsider,
  // Enrolled, in another boundary, and in none.
  carol: { ...outsider, isToldOf: ['in-a', 'in-b'] },
  dave: { ...outsider, isToldOf: ['in-a', 'in-b'] },
  bob: {
    ...outsider,
    reads: { ...nothing, 'in-a': found },
    isToldOf: ['in-b'],
    lists: ['in-a', 'in-both'],
    describes: found,
  },
  alice: {
    reads: { 'in-a': found, 'in-b': found, taken: takendown, absent: missing },
    lists: ['in-a', 'in-b', 'in-both', 'in-lost'],
    describes: found,
    exports: found,
    writes: 'may write',
    administers: forbidden,
  },
  // AppViews: of all boundaries, of one, and of another.
  all: {
    ...outsider,
    reads: { ...nothing, 'in-a': found, 'in-b': found },
    lists: ['in-a', 'in-b', 'in-both'],
    describes: found,
    exports: found,
  },
  'of-a': {
    ...outsider,
    reads: { ...nothing, 'in-a': found },
    lists: ['in-a', 'in-both'],
    describes: found,
  },
  'of-c': outsider,
  admin: {
    reads: { 'in-a': found, 'in-b': found, taken: found, absent: missing },
    lists: ['in-a', 'in-b', 'in-both', 'in-lost', 'taken'],
    describes: found,
    exports: found,
    writes: forbidden,
    administers: found,
  },
}

let readers: Readers

beforeAll(async () => {
  readers = await Readers.start()
})
afterAll(async () => {
  await readers?.stratos.stop()
})

describe.each(Object.entries(callers))('%s', (name, row) => {
  const ask = async (nsid: string, call: Call): Promise<Answer> => readers.ask(name, nsid, call)

  describe.each(['zone.stratos.repo', 'com.atproto.repo'])('by %s', (prefix) => {
    const get = `${prefix}.getRecord`

    test.each(states)(
      'reads the record %s, or exactly what one gets that never was',
      async (state) => {
        const params = addressOf(uriOf(state))
        const expected = row.reads[state]
        expectOutcome(await ask(get, { params }), expected)
        if (expected !== missing) return
        const authorization = await readers.credential(name, get)
        const exact = async (rkey: string) => {
          const call = { params: { ...params, rkey }, authorization }
          return await exactAnswer(readers.stratos.url, get, call)
        }
        const other = 'x'.repeat(params.rkey.length)
        expect(await exact(params.rkey)).toBe((await exact(other)).replaceAll(other, params.rkey))
      },
    )

    test('lists what it reads', async () => {
      const params = { repo: aliceDid(), collection: postCollection }
      const { status, body } = await ask(`${prefix}.listRecords`, { params })
      expect(status).toBe(200)
      const keys = listOf(body, 'records').map((record) => addressOf(textOf(record, 'uri')).rkey)
      expect(keys.filter((key) => !key.startsWith('written-')).toSorted()).toEqual([...row.lists])
    })

    test('describes the repo', async () => {
      const params = { repo: aliceDid() }
      expectOutcome(await ask(`${prefix}.describeRepo`, { params }), row.describes)
    })

    test.each(states)('writes to the key of %s', async (state) => {
      const { rkey } = addressOf(uriOf(state))
      const at = { repo: aliceDid(), collection: postCollection, rkey }
      const record = privatePost('written', [readers.stratos.boundary('a')])
      const operation = { $type: `${prefix}.applyWrites#update`, ...at, value: record }
      const asks: [string, Readonly<Record<string, unknown>>, Outcome][] = [
        ['createRecord', { ...at, record }, [409, 'RecordAlreadyExists']],
        ['putRecord', { ...at, swapRecord: otherCid, record }, [400, 'InvalidSwap']],
        ['deleteRecord', { ...at, swapRecord: otherCid }, [400, 'InvalidSwap']],
        [
          'applyWrites',
          { repo: aliceDid(), writes: [operation], swapCommit: otherCid },
          [400, 'InvalidSwap'],
        ],
      ]
      for (const [method, input, ofOwner] of asks) {
        // What is not there can be made, which is another suite's matter.
        if (method === 'createRecord' && state === 'absent' && row.writes === 'may write') continue
        const outcome = row.writes === 'may write' ? ofOwner : row.writes
        expectOutcome(await ask(`${prefix}.${method}`, { input }), outcome)
      }
    })
  })

  test.each(states)('hydrates the record %s', async (state) => {
    const expected = row.isToldOf?.includes(state) === true ? blocked : row.reads[state]
    const params = { uri: uriOf(state) }
    expectOutcome(await ask('zone.stratos.repo.hydrateRecord', { params }), expected)
  })

  test('hydrates many records, each of them once', async () => {
    const input = { uris: states.map(uriOf) }
    const { status, body } = await ask('zone.stratos.repo.hydrateRecords', { input })
    expect(status).toBe(200)
    const isToldOf = row.isToldOf ?? []
    const has = states.filter((state) => row.reads[state] === found)
    expect(listOf(body, 'records').map((record) => textOf(record, 'uri'))).toEqual(has.map(uriOf))
    const rest = states.filter((state) => !has.includes(state) && !isToldOf.includes(state))
    expect(body['blocked']).toEqual(isToldOf.map(uriOf))
    expect(body['notFound']).toEqual(rest.map(uriOf))
  })

  test('exports the repo', async () => {
    const params = { did: aliceDid() }
    expectOutcome(await ask('zone.stratos.sync.getRepo', { params }), row.exports)
  })

  test.each([
    'zone.stratos.admin.listMembers',
    'zone.stratos.admin.listBoundaries',
    'zone.stratos.admin.listOutbox',
  ])('calls %s', async (nsid) => {
    expectOutcome(await ask(nsid, {}), row.administers)
  })

  test.each(['addBoundary', 'removeBoundary'])('calls zone.stratos.admin.%s', async (method) => {
    const input = { did: readers.person('dave').did, boundary: readers.stratos.boundary('c') }
    expectOutcome(await ask(`zone.stratos.admin.${method}`, { input }), row.administers)
  })
})

const otherCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

function aliceDid(): string {
  return readers.person('alice').did
}

function uriOf(state: State): string {
  return `at://${aliceDid()}/${postCollection}/${state}`
}

function expectOutcome(answer: Answer, expected: Outcome): void {
  const [status, error] = typeof expected === 'number' ? [expected, undefined] : expected
  expect({ status: answer.status, error: answer.body['error'] }).toEqual({ status, error })
}
