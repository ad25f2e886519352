import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import fc from 'fast-check'
import { encode } from '../../src/atproto/cbor.ts'
import { backfill } from '../../src/indexer/backfill.ts'
import { openIndex } from '../../src/indexer/database.ts'
import { repoPages } from '../../src/indexer/repo-source.ts'
import { RepoNotFound, ServiceRefused } from '../../src/indexer/service-calls.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { foreignPosts, pathOf } from '../bulk/foreign-posts.ts'
import { ForeignRepo } from '../bulk/foreign-repo.ts'
import { importRepo, withCar } from '../kit/import.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { failureOf } from '../kit/wait.ts'
import { isFields, listOf, textOf } from '../kit/xrpc.ts'
import { accessTo } from './service-double.ts'

setDefaultTimeout(60_000)

const createRecord = 'zone.stratos.repo.createRecord'
const deleteRecord = 'zone.stratos.repo.deleteRecord'
let stratos: SeededStratos

beforeAll(async () => {
  const both = ['a', 'b']
  const people = { alice: both, bob: both, carol: both, dave: both, erin: both, tom: both }
  stratos = await SeededStratos.start({ people, strangers: ['whole', 'partial', 'nobody'] })
  await stratos.terminate()
  const [whole, partial] = [did('whole'), did('partial')]
  await stratos.run({ STRATOS_ALLOWED_APPVIEWS: `${whole},${partial}=a` })
})
afterAll(async () => {
  await stratos?.stop()
})

function did(name: string): Did {
  return stratos.person(name).did
}

function accessOf(appView: string) {
  const authorization = async (lxm: string) => {
    const claims = { jti: crypto.randomUUID() }
    const door = { aud: stratos.did, lxm }
    return `Bearer ${await serviceToken(stratos.person(appView), door, { claims })}`
  }
  return accessTo(stratos.url, { authorization })
}

/** What the source gives of somebody, in its order: CIDs and records by their paths. */
async function given(appView: string, name: string) {
  const records = new Map<string, { cid: string; record: unknown }>()
  const pages: number[] = []
  for await (const page of repoPages(did(name), accessOf(appView))) {
    pages.push(page.records.length)
    for (const { collection, rkey, cid, content, record } of page.records) {
      expect(encode(record)).toEqual(new Uint8Array(content))
      records.set(`${collection}/${rkey}`, { cid, record })
    }
  }
  return { records, pages }
}

/** The same as the service lists it to the AppView. */
async function listed(appView: string, name: string) {
  const records = new Map<string, { cid: string; record: unknown }>()
  const nsid = 'zone.stratos.repo.listRecords'
  for (let cursor: string | undefined; ;) {
    const more = cursor === undefined ? {} : { cursor }
    const params = { repo: did(name), collection: postCollection, limit: 100, reverse: true }
    const authorization = await accessOf(appView).authorization(nsid)
    const { body } = await stratos.call(nsid, { params: { ...params, ...more }, authorization })
    for (const one of listOf(body, 'records')) {
      const path = textOf(one, 'uri').replace(`at://${did(name)}/`, '')
      records.set(path, { cid: textOf(one, 'cid'), record: one['value'] })
    }
    if (body['cursor'] === undefined) return records
    cursor = textOf(body, 'cursor')
  }
}

async function write(name: string, rkey: string, bare: readonly string[]) {
  const boundaries = bare.map((one) => stratos.boundary(one))
  const record = privatePost(`the post ${rkey}`, boundaries)
  const input = { repo: did(name), collection: postCollection, rkey, record }
  const { status, body } = await stratos.callAs(name, createRecord, { input })
  expect(status).toBe(200)
  return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
}

async function expectListed(appView: string, name: string): Promise<number> {
  const { records } = await given(appView, name)
  const expected = await listed(appView, name)
  expect([...records.keys()]).toEqual([...expected.keys()].toSorted())
  expect(records).toEqual(expected)
  return records.size
}

describe('of nobody that there is', () => {
  test.each(['whole', 'partial'])('the AppView %s learns so', async (appView) => {
    expect(await failureOf(given(appView, 'nobody'))).toBeInstanceOf(RepoNotFound)
    await setTakedown(stratos, repoSubject(did('tom')), { applied: true })
    expect(await failureOf(given(appView, 'tom'))).toBeInstanceOf(RepoNotFound)
  })

  test('an AppView that is none is refused', async () => {
    expect(await failureOf(given('nobody', 'alice'))).toBeInstanceOf(ServiceRefused)
  })
})

test('a repo without records is a page without any, with its place in the log', async () => {
  for (const appView of ['whole', 'partial']) {
    expect((await given(appView, 'alice')).pages).toEqual([0])
  }
})

test('what is taken down is left out, and nothing else', async () => {
  await write('bob', 'in-a', ['a'])
  await write('bob', 'in-b', ['b'])
  const taken = await write('bob', 'taken', ['a'])
  await setTakedown(stratos, recordSubject(taken), { applied: true })
  const { records } = await given('whole', 'bob')
  expect([...records.keys()]).toEqual([pathOf('in-a'), pathOf('in-b')])
  expect([...(await given('partial', 'bob')).records.keys()]).toEqual([pathOf('in-a')])
  await setTakedown(stratos, recordSubject(taken), { applied: false })
  expect((await given('whole', 'bob')).records.size).toBe(3)
})

test('a repo of many records comes in pages, those of one content under all their keys', async () => {
  const boundary = privatePost('', [stratos.boundary('a')]).boundary
  const salt = { $bytes: 'AAAAAAAAAAAAAAAAAAAAAA' }
  const records = foreignPosts(1_203, { boundary, salt, createdAt: '2026-01-01T00:00:00Z' })
  const keys = Object.keys(records)
  const repo = new ForeignRepo(did('carol'), records)
  const same = records[keys[0] ?? '']
  for (const key of keys.slice(1_100)) repo.put(key, same)
  const imported = await stratos.callAs('carol', importRepo, withCar(repo.car().slice()))
  expect(imported.status).toBe(200)
  expect((await given('whole', 'carol')).pages).toEqual([500, 500, 203])
  const { records: partly } = await given('partial', 'carol')
  expect(partly.size).toBe(1_203)
  expect(await expectListed('whole', 'carol')).toBe(1_203)
})

test('whatever was done, what the source gives is what the service lists', async () => {
  const keys = ['one', 'two', 'three', 'four', 'five', 'six'] as const
  const steps = fc.array(
    fc.record({
      what: fc.constantFrom('write', 'delete', 'take', 'let'),
      rkey: fc.constantFrom(...keys),
      bare: fc.subarray(['a', 'b'], { minLength: 1 }),
    }),
    { minLength: 3, maxLength: 10 },
  )
  const refs = new Map<string, { uri: string; cid: string }>()
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      for (const { what, rkey, bare } of all) {
        const ref = refs.get(rkey)
        if (what === 'write' && ref === undefined) refs.set(rkey, await write('dave', rkey, bare))
        if (ref === undefined || what === 'write') continue
        if (what !== 'delete') {
          await setTakedown(stratos, recordSubject(ref), { applied: what === 'take' })
          continue
        }
        await setTakedown(stratos, recordSubject(ref), { applied: false })
        const input = { repo: did('dave'), collection: postCollection, rkey }
        expect((await stratos.callAs('dave', deleteRecord, { input })).status).toBe(200)
        refs.delete(rkey)
      }
      for (const appView of ['whole', 'partial']) await expectListed(appView, 'dave')
    }),
    { numRuns: 8 },
  )
})

test('a backfill from it fills the index with what is there', async () => {
  for (const rkey of ['first', 'second']) await write('erin', rkey, ['a'])
  await using server = await PostgresServer.start()
  const url = await server.database()
  const sql = await openIndex({ url })
  const service = parseDid(stratos.did)
  const actor = { service, did: did('erin') }
  {
    await using writer = new IndexWriter({ index: { url } })
    const boundaries = [stratos.boundary('a')]
    const facts = { serviceUrl: stratos.url, enrolledAt: new Date(), boundaries }
    await writer.setEnrollment({ ...actor, ...facts })
  }
  const pages = repoPages(actor.did, accessOf('whole'))
  expect(await backfill({ url }, pages, { actor })).toMatchObject({ kind: 'replaced', posts: 2 })
  const rows = await sql`select rkey, record from stratos_post order by rkey`
  expect(rows.map(({ rkey }) => rkey)).toEqual(['first', 'second'])
  const [cursor] = await sql<{ seq: number }[]>`select seq from stratos_sync_cursor`
  const params = { did: actor.did, limit: 1 }
  const call = { params, authorization: stratos.adminBasic }
  const { body } = await stratos.call('zone.stratos.sync.listRepoOps', call)
  expect(isFields(body) ? body['seq'] : undefined).toBe(cursor?.seq)
  await sql.end()
})
