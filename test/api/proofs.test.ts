import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { actorDatabasePath } from '../../src/store/actor-database.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import { readProof } from '../kit/record-proof.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { textOf, xrpcResponse } from '../kit/xrpc.ts'
import { Readers } from './readers.ts'

setDefaultTimeout(60_000)

const names = ['zone.stratos.sync.getRecord', 'com.atproto.sync.getRecord'] as const
const missing: Refusal = [404, 'RecordNotFound']
/** The record, or for a key that is not there that it is not. */
const proven = 'proven'
type Outcome = typeof proven | Refusal

/** Of alice, as far as no other name says whose they are. */
const rkeys = ['in-a', 'in-b', 'in-both', 'in-lost', 'taken', 'absent'] as const
const ofOthers = ['of-tom', 'of-ivy', 'of-nobody'] as const
const all = [...rkeys, ...ofOthers]
type Rkey = (typeof all)[number]
type Row = Partial<Record<Rkey, Outcome>>

const ofA: Row = { 'in-a': proven, 'in-both': proven }
const ofAandB: Row = { ...ofA, 'in-b': proven }

const ofAlice: Row = { ...ofAandB, 'in-lost': proven, absent: proven }

/** What is not named is missing. */
const wholeReaders: Record<string, Row> = {
  alice: { ...ofAlice, taken: [403, 'RecordTakendown'] },
  all: { ...ofAandB, absent: proven },
  admin: { ...ofAlice, taken: proven, 'of-tom': proven, 'of-ivy': proven },
}
const owners: Record<string, Row> = {
  tom: { ...ofAandB, 'of-tom': [403, 'RepoTakendown'] },
  // Inactive: of others there is nothing to see.
  ivy: { 'of-ivy': proven },
}
const others: Record<string, Row> = {
  anonymous: {},
  stranger: {},
  bob: ofA,
  carol: {},
  dave: {},
  'of-a': ofA,
  'of-b': { 'in-b': proven, 'in-both': proven },
  'of-c': {},
  'of-each': ofAandB,
  moderator: {},
  // By service auth an AppView, whatever she is besides.
  erin: ofA,
}

let readers: Readers
beforeAll(async () => {
  readers = await Readers.start()
})
afterAll(async () => {
  await readers?.stratos.stop()
})

describe('while stubs are published', () => {
  const callers = Object.entries({ ...others, ...owners, ...wholeReaders })
  test.each(callers)('%s gets a proof of what they may read', async (name, row) => {
    for (const rkey of all) {
      const expected = row[rkey] ?? missing
      if (expected === proven) await expectProven(name, rkey)
      else await expectRefused(name, rkey, expected)
    }
  })

  test.each(Object.keys(others))('%s learns nothing else of any record', async (name) => {
    for (const rkey of all) {
      if ((others[name]?.[rkey] ?? missing) === proven) continue
      for (const nsid of names) {
        // The very answer that reading gives, which is that of a record that never was.
        const read = nsid.replace('.sync.', '.repo.')
        const { did, ...rest } = paramsOf(rkey)
        const answer = await readers.exact(name, nsid, { params: { did, ...rest } })
        expect(answer).toBe(await readers.exact(name, read, { params: { repo: did, ...rest } }))
        const other = 'x'.repeat(rkey.length)
        const never = await readers.exact(name, nsid, { params: { did, ...rest, rkey: other } })
        expect(answer).toBe(never.replaceAll(other, rkey))
      }
    }
  })

  test('the rev of the repo is told to its owner alone', async () => {
    const { rev } = await latestCommit()
    for (const name of ['alice', 'all', 'admin', 'bob']) {
      const { headers } = await respond(name, names[0], 'in-a')
      expect([name, headers.get('atproto-repo-rev')]).toEqual([name, name === 'alice' ? rev : null])
    }
  })

  test('HEAD is answered as GET, without the bytes', async () => {
    for (const rkey of ['in-a', 'in-b'] as const) {
      const url = new URL(`/xrpc/${names[0]}`, readers.stratos.url)
      for (const [key, value] of Object.entries(paramsOf(rkey))) url.searchParams.set(key, value)
      const [head, get] = await Promise.all(
        ['HEAD', 'GET'].map(async (method) => {
          const authorization = await readers.token('bob', names[0])
          return await fetch(url, { method, headers: { authorization } })
        }),
      )
      expect(head?.status).toBe(rkey === 'in-a' ? 200 : 404)
      expect(head?.status).toBe(get?.status ?? 0)
      expect(await head?.text()).toBe('')
      const [ofHead, ofGet] = [head, get].map((one) => {
        const headers = new Headers(one?.headers)
        for (const name of ['date', 'x-request-id']) headers.delete(name)
        return Array.from(headers)
      })
      expect(ofHead).toEqual(ofGet ?? [])
      expect(head?.headers.get('cache-control')).toBe('no-store')
    }
  })

  test.each([
    ['without a key', { rkey: undefined }, 'rkey'],
    ['of a handle', { did: 'alice.test' }, 'did'],
    ['of a collection that is none', { collection: 'posts' }, 'collection'],
    ['of a key that is none', { rkey: 'in/a' }, 'rkey'],
  ])('%s it is a bad request', async (_, over, named) => {
    const entries = Object.entries({ ...paramsOf('in-a'), ...over })
    const params = Object.fromEntries(
      entries.flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])),
    )
    const answer = await readers.ask('alice', names[0], { params })
    expectRefusal(answer, [400, 'InvalidRequest'])
    expect(textOf(answer.body, 'message')).toContain(named)
  })
})

describe('beside a record that has no stub', () => {
  // In the tree `in-lost` stands beside `in-both`, and `in-a` elsewhere.
  const hidden = ['in-both', 'in-lost']
  beforeAll(async () => {
    await readers.restart({}, () => {
      const { did } = readers.person('alice')
      using database = new Database(actorDatabasePath(readers.stratos.dataFolder, did))
      const sql = "delete from stratos_outbox where rkey = 'in-lost'"
      expect(database.run(sql).changes).toBe(1)
    })
  })

  test.each(Object.entries(others))('%s gets none', async (name, row) => {
    for (const rkey of rkeys) {
      const outcome = hidden.includes(rkey) ? missing : (row[rkey] ?? missing)
      if (outcome === proven) await expectProven(name, rkey)
      else await expectRefused(name, rkey, outcome)
    }
  })

  test.each(Object.entries(wholeReaders))('%s gets all', async (name, row) => {
    for (const rkey of all) {
      if (row[rkey] === proven) await expectProven(name, rkey)
    }
  })
})

describe('without stubs', () => {
  beforeAll(async () => {
    await readers.restart({ STRATOS_STUBS: 'off' })
  })

  test.each(Object.keys(others))('%s is refused alike, whatever is there', async (name) => {
    const refusal: Refusal = name === 'anonymous' ? [401, 'AuthMissing'] : [403, 'Forbidden']
    for (const nsid of names) {
      const answers = new Set<string>()
      for (const rkey of all) {
        // Of the own repo everybody learns that there is none.
        if (name === 'stranger' && rkey === 'of-nobody') continue
        const params = paramsOf(rkey)
        expectRefusal(await readers.ask(name, nsid, { params }), refusal)
        answers.add(await readers.exact(name, nsid, { params }))
      }
      expect(answers.size).toBe(1)
    }
  })

  test.each(Object.entries(wholeReaders))('%s sees what they saw before', async (name, row) => {
    for (const rkey of all) {
      const expected = row[rkey] ?? missing
      // Of other people's repos alice is told what everybody is.
      const isOthers = name === 'alice' && ofOthers.some((one) => one === rkey)
      if (expected === proven) await expectProven(name, rkey)
      else await expectRefused(name, rkey, isOthers ? [403, 'Forbidden'] : expected)
    }
  })

  test.each(Object.keys(owners))('%s sees the own repo', async (name) => {
    const rkey = name === 'tom' ? 'of-tom' : 'of-ivy'
    const expected = owners[name]?.[rkey] ?? missing
    if (expected === proven) await expectProven(name, rkey)
    else await expectRefused(name, rkey, expected)
    await expectRefused(name, 'in-a', [403, 'Forbidden'])
  })
})

async function expectProven(name: string, rkey: Rkey): Promise<void> {
  for (const nsid of names) {
    const response = await respond(name, nsid, rkey)
    expect([name, rkey, response.status]).toEqual([name, rkey, 200])
    expect(response.headers.get('content-type')).toBe('application/vnd.ipld.car')
    expect(response.headers.get('cache-control')).toBe('no-store')
    const { did } = paramsOf(rkey)
    const status = await readers.stratos.call('zone.stratos.enrollment.status', { params: { did } })
    const cid = rkey === 'absent' ? null : readers.ref(rkey).cid
    const claim = { did, collection: postCollection, rkey, cid }
    const key = textOf(status.body, 'signingKey')
    const { record } = await readProof(await response.bytes(), claim, key)
    if (cid === null) expect(record).toBeUndefined()
    else expect(record).toMatchObject({ text: `the post ${rkey}` })
  }
}

async function expectRefused(name: string, rkey: Rkey, refusal: Refusal): Promise<void> {
  for (const nsid of names) {
    const answer = await readers.ask(name, nsid, { params: paramsOf(rkey) })
    expect([name, rkey, answer.status]).toEqual([name, rkey, refusal[0]])
    expectRefusal(answer, refusal)
  }
}

async function respond(name: string, nsid: string, rkey: Rkey): Promise<Response> {
  const authorization = await readers.credential(name, nsid)
  return await xrpcResponse(readers.stratos.url, nsid, { params: paramsOf(rkey), authorization })
}

function paramsOf(rkey: Rkey) {
  const isOthers = ofOthers.some((one) => one === rkey)
  const did = isOthers ? addressOf(readers.ref(rkey).uri).repo : readers.person('alice').did
  return { did, collection: postCollection, rkey }
}

async function latestCommit() {
  const params = { did: readers.person('alice').did }
  const { body } = await readers.ask('alice', 'zone.stratos.sync.getLatestCommit', { params })
  return { rev: textOf(body, 'rev') }
}
