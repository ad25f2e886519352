import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { openSqlite } from '../../src/store/sqlite.ts'
import { exactAnswer } from '../kit/exact.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { type Call, listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const one = 'zone.stratos.repo.hydrateRecord'
const many = 'zone.stratos.repo.hydrateRecords'
const otherCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

let stratos: SeededStratos
/** URIs by what stands there. */
const at: Record<string, string> = {}

// After they wrote, erin is inactive, frank's repo taken down and grace takes back leave for stubs.
beforeAll(async () => {
  const all = ['a', 'b', 'c']
  const ofA = { bob: ['a'], erin: ['a'], frank: ['a'] }
  const people = { alice: all, ...ofA, carol: ['b'], dave: [], grace: ['c'] }
  stratos = await SeededStratos.start({ people })
  const { did } = stratos.person('alice')
  const place = (repo: string, rkey: string) => `at://${repo}/${postCollection}/${rkey}`
  at['of a'] = (await write('alice', 'in-a', ['a'])).uri
  at['of b'] = (await write('alice', 'in-b', ['b'])).uri
  at['of c'] = (await write('alice', 'in-c', ['c'])).uri
  const taken = await write('alice', 'tken', ['a'])
  at['taken down'] = taken.uri
  await setTakedown(stratos, recordSubject(taken), { applied: true })
  at['of somebody inactive'] = (await write('erin', 'in-a', ['a'])).uri
  at['of a repo taken down'] = (await write('frank', 'in-a', ['a'])).uri
  await setTakedown(stratos, repoSubject(stratos.person('frank').did), { applied: true })
  at['of somebody without stubs'] = (await write('grace', 'in-c', ['c'])).uri
  at['missing'] = place(did, 'none')
  at['of a public collection'] = `at://${did}/app.bsky.feed.post/in-a`
  at['of somebody not enrolled'] = place(stratos.person('stranger').did, 'in-a')
  at['of another service'] = place('did:web:somewhere.example.com', 'in-a')
  at['by a handle'] = place('alice.test', 'in-a')
  at['no record'] = `at://${did}`
  at['a collection'] = `at://${did}/${postCollection}`
  await stratos.terminate()
  await change('erin', 'active = 0')
  await change('grace', "scope = 'atproto'")
  await stratos.run()
})
afterAll(async () => {
  await stratos?.stop()
})

type Credential = (nsid: string) => Promise<string | undefined> | string | undefined
const developer = (name: string) => () => stratos.person(name).bearer
const token = (name: string) => (lxm: string) =>
  serviceToken(stratos.person(name), { aud: stratos.did, lxm }).then((text) => `Bearer ${text}`)

const ofAlice = ['of a', 'of b', 'of c']
const ofOthers = ['of somebody inactive', 'of a repo taken down', 'of somebody without stubs']
interface Who {
  readonly credential: Credential
  readonly sees?: readonly string[]
  /** Whether a record that is hidden is called blocked while there are stubs. */
  readonly isTold?: true
  /** What one record is refused as, where that is not RecordNotFound. */
  readonly refused?: Readonly<Record<string, Refusal>>
}
const takendown: Refusal = [403, 'RecordTakendown']
const repoTakendown: Refusal = [403, 'RepoTakendown']
const callers: Record<string, Who> = {
  'nobody in particular': { credential: () => undefined },
  'a stranger': { credential: developer('stranger') },
  'a stranger with a token': { credential: token('stranger') },
  'a member of the boundary': { credential: developer('bob'), sees: ['of a'], isTold: true },
  'a member with a token': { credential: token('bob'), sees: ['of a'], isTold: true },
  'a member of another boundary': { credential: developer('carol'), sees: ['of b'], isTold: true },
  'somebody of no boundary': { credential: developer('dave'), isTold: true },
  'somebody inactive': { credential: developer('erin'), sees: ['of somebody inactive'] },
  'the owner of a repo taken down': {
    credential: developer('frank'),
    sees: ['of a'],
    isTold: true,
    refused: { 'of a repo taken down': repoTakendown },
  },
  'the owner': {
    credential: developer('alice'),
    sees: [...ofAlice, 'of somebody without stubs'],
    isTold: true,
    refused: { 'taken down': takendown },
  },
  'the operator': {
    credential: () => stratos.adminBasic,
    sees: [...ofAlice, 'taken down', ...ofOthers],
  },
}

describe.each(['full', 'off'] as const)('while stubs are %s', (stubs) => {
  beforeAll(async () => {
    await stratos.terminate()
    await stratos.run({ STRATOS_STUBS: stubs })
  })

  describe.each(Object.entries(callers))('%s', (_, { credential, sees = [], isTold, refused }) => {
    const isBlocked = (what: string) =>
      stubs === 'full' && isTold === true && ofAlice.includes(what) && !sees.includes(what)

    test('is given one record or refused it by the right name', async () => {
      const authorization = await credential(one)
      for (const [what, uri] of Object.entries(at)) {
        const answer = await stratos.call(one, { params: { uri }, authorization })
        if (sees.includes(what)) {
          expect(answer).toMatchObject({ status: 200, body: { uri, value: { text: uri } } })
          expect(Object.keys(answer.body)).toEqual(['uri', 'cid', 'value'])
        } else if (isBlocked(what)) expectRefusal(answer, [403, 'RecordBlocked'])
        else expectRefusal(answer, refused?.[what] ?? [404, 'RecordNotFound'])
      }
    })

    test('is given all of them at once, sorted alike, in the order asked for', async () => {
      const authorization = await credential(many)
      for (const order of [Object.entries(at), Object.entries(at).toReversed()]) {
        const input = { uris: order.map(([, uri]) => uri) }
        const { status, body } = await stratos.call(many, { input, authorization })
        const rest = order.filter(([what]) => !sees.includes(what))
        expect([status, Object.keys(body)]).toEqual([200, ['records', 'notFound', 'blocked']])
        expect(listOf(body, 'records').map(({ uri, value }) => [uri, value])).toEqual(
          order
            .filter(([what]) => sees.includes(what))
            .map(([, uri]) => [uri, expect.objectContaining({ text: uri })]),
        )
        const uris = (all: [string, string][]) => all.map(([, uri]) => uri)
        expect(body['blocked']).toEqual(uris(rest.filter(([what]) => isBlocked(what))))
        expect(body['notFound']).toEqual(uris(rest.filter(([what]) => !isBlocked(what))))
      }
    })

    test('is answered of what is not to be known as of what is not there', async () => {
      const missing = at['missing'] ?? ''
      const authorization = await credential(one)
      const absent = await exactAnswer(stratos.url, one, { params: { uri: missing } })
      const manyAbsent = await batch([missing], credential)
      const known = [...sees, ...Object.keys(refused ?? {})]
      const unknown = Object.entries(at).filter(
        ([what]) => !known.includes(what) && !isBlocked(what),
      )
      for (const [, uri] of unknown) {
        for (const more of [{}, { cid: otherCid }]) {
          const params = { uri, ...more }
          expect(await exactAnswer(stratos.url, one, { params, authorization })).toBe(absent)
        }
        const answer = await batch([uri], credential)
        const unsized = (text: string) => text.replace(/^content-length: .*\n/m, '')
        expect(unsized(answer.replace(uri, missing))).toBe(unsized(manyAbsent))
        if (uri.length === missing.length) expect(answer.replace(uri, missing)).toBe(manyAbsent)
      }
    })
  })

  test('blocked says nothing of the version', async () => {
    const blocked = { params: { uri: at['of c'] ?? '' }, authorization: developer('bob')() }
    const answer = await exactAnswer(stratos.url, one, blocked)
    const params = { ...blocked.params, cid: otherCid }
    expect(await exactAnswer(stratos.url, one, { ...blocked, params })).toBe(answer)
    expect(answer).toContain(stubs === 'full' ? '"RecordBlocked"' : '"RecordNotFound"')
  })
})

describe('hydrateRecord', () => {
  test('gives what getRecord gives', async () => {
    const uri = at['of a'] ?? ''
    for (const name of ['alice', 'bob']) {
      const read = { params: addressOf(uri), authorization: stratos.person(name).bearer }
      const { body } = await stratos.call('zone.stratos.repo.getRecord', read)
      const cid = textOf(body, 'cid')
      for (const params of [{ uri }, { uri, cid }]) {
        expect((await stratos.callAs(name, one, { params })).body).toEqual(body)
      }
      expect((await stratos.callAs(name, many, { input: { uris: [uri] } })).body).toEqual({
        records: [body],
        notFound: [],
        blocked: [],
      })
    }
  })

  test('is written like every other answer', async () => {
    const uri = at['of a'] ?? ''
    const { repo, collection } = addressOf(uri)
    const calls: [string, Call][] = [
      [one, { params: { uri } }],
      [many, { input: { uris: [uri, at['of c'] ?? '', at['missing'] ?? ''] } }],
      ['zone.stratos.repo.getRecord', { params: addressOf(uri) }],
      ['zone.stratos.repo.listRecords', { params: { repo, collection } }],
    ]
    for (const [nsid, call] of calls) {
      const authorization = stratos.person('bob').bearer
      const response = await xrpcResponse(stratos.url, nsid, { ...call, authorization })
      const text = await response.text()
      expect(response.headers.get('content-type')).toBe('application/json')
      expect(text).toBe(JSON.stringify(JSON.parse(text)))
      expect(text).toContain(uri)
    }
  })

  test('by another CID than the present one is missing, to the owner too', async () => {
    for (const what of ['of a', 'taken down']) {
      for (const name of ['alice', 'bob']) {
        const params = { uri: at[what] ?? '', cid: otherCid }
        expectRefusal(await stratos.callAs(name, one, { params }), [404, 'RecordNotFound'])
      }
    }
  })

  test.each([{}, { uri: 'in-a' }, { uri: 'https://example.com' }, { uri: '' }])(
    'refuses %j',
    async (params) => {
      expectRefusal(await stratos.callAs('alice', one, { params }), [400, 'InvalidRequest'])
    },
  )
})

describe('hydrateRecords', () => {
  test.each([{}, { uris: 'at://did:plc:abc' }, { uris: ['in-a'] }, { uris: [1] }, { uris: null }])(
    'refuses %j',
    async (input) => {
      expectRefusal(await stratos.callAs('alice', many, { input }), [400, 'InvalidRequest'])
    },
  )

  test('takes a hundred URIs and not one more, repeated ones included', async () => {
    const uris = Array.from({ length: 100 }, (_, index) => `${at['missing']}${index}`)
    const full = await stratos.callAs('bob', many, { input: { uris } })
    expect(full.body).toEqual({ records: [], notFound: uris, blocked: [] })
    for (const over of [[...uris, at['of a'] ?? ''], Array<string>(101).fill('not even a URI')]) {
      const answer = await stratos.callAs('bob', many, { input: { uris: over } })
      expectRefusal(answer, [400, 'TooManyUris'])
    }
    expect((await stratos.callAs('bob', many, { input: { uris: [] } })).body).toEqual({
      records: [],
      notFound: [],
      blocked: [],
    })
  })

  test('answers a repeated URI once, at its first place', async () => {
    const [a = '', c = '', none = ''] = [at['of a'], at['of c'], at['missing']]
    const input = { uris: [none, c, a, a, none, c, a] }
    const { body } = await stratos.callAs('alice', many, { input })
    expect(listOf(body, 'records').map(({ uri }) => uri)).toEqual([c, a])
    expect(body).toMatchObject({ notFound: [none], blocked: [] })
  })

  test('fills an answer up to its limit and names what remains', async () => {
    const uris: string[] = []
    for (let index = 0; index < 12; index++) {
      const name = ['alice', 'bob', 'alice'][index % 3] ?? ''
      const x = 'x'.repeat(index % 4 === 0 ? 10 : 200_000)
      uris.push((await write(name, `large-${index}`, ['a'], { x })).uri)
    }
    const input = [...uris, ...Array.from({ length: 80 }, (_, index) => `${at['missing']}${index}`)]
    const seen: string[] = []
    let calls = 0
    for (let left = input; left.length > 0; calls++) {
      const { status, body } = await stratos.callAs('bob', many, { input: { uris: left } })
      const records = listOf(body, 'records').map((record) => textOf(record, 'uri'))
      const remaining = body['remaining'] ?? []
      expect(status).toBe(200)
      expect(records.length).toBeGreaterThan(0)
      expect(JSON.stringify(body).length).toBeLessThan(1_100_000)
      expect(records).toEqual(left.filter((uri) => records.includes(uri)))
      left = Array.isArray(remaining) ? remaining.map(String) : []
      seen.push(...records)
    }
    expect(calls).toBe(2)
    expect(seen.toSorted()).toEqual(uris.toSorted())
  })

  test('looks at the repos of a hundred people in one call', async () => {
    const dids = ['alice', 'bob', 'carol'].map((name) => stratos.person(name).did)
    const others = Array.from({ length: 97 }, (_, index) => `did:web:${index}.example.com`)
    const uris = [...others, ...dids].map((did) => `at://${did}/${postCollection}/in-a`)
    const { body } = await stratos.callAs('bob', many, { input: { uris } })
    expect(listOf(body, 'records').map(({ uri }) => uri)).toEqual([at['of a']])
    expect(body['notFound']).toHaveLength(99)
  })
})

function batch(uris: readonly string[], credential: Credential): Promise<string> {
  return Promise.resolve(credential(many)).then((authorization) =>
    exactAnswer(stratos.url, many, { input: { uris }, authorization }),
  )
}

/** A post whose text is its own URI. */
async function write(name: string, rkey: string, bare: readonly string[], more: object = {}) {
  const { did: repo } = stratos.person(name)
  const boundaries = bare.map((boundary) => stratos.boundary(boundary))
  const text = `at://${repo}/${postCollection}/${rkey}`
  const record = { ...privatePost(text, boundaries), ...more }
  const input = { repo, collection: postCollection, rkey, record }
  const { body } = await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
  return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
}

/** In the row of somebody's enrollment, while no process runs. */
async function change(name: string, to: string): Promise<void> {
  const path = join(stratos.dataFolder, 'service.sqlite')
  const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 1024, exclusive: true })
  const sql = `update enrollment set ${to} where did = $1`
  await sqlite.run([{ sql, args: [stratos.person(name).did], rows: 1 }])
  await sqlite.close()
}
