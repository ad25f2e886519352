import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { readExport } from '../kit/export.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { getStatus, repoSubject, updateStatus } from '../kit/takedown.ts'
import { type Call, listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'
import { appViews, Readers } from './readers.ts'

setDefaultTimeout(60_000)

const reads = ['zone.stratos.repo.getRecord', 'com.atproto.repo.getRecord'] as const
const lists = ['zone.stratos.repo.listRecords', 'com.atproto.repo.listRecords'] as const
const createRecord = 'zone.stratos.repo.createRecord'
const deleteRecord = 'zone.stratos.repo.deleteRecord'
const describeRepo = 'zone.stratos.repo.describeRepo'
const getRepo = 'zone.stratos.sync.getRepo'
const status = 'zone.stratos.enrollment.status'
const resolveEnrollments = 'zone.stratos.identity.resolveEnrollments'
const forbidden: Refusal = [403, 'Forbidden']

/** Nobody finds these but their owners and the operator. */
const hidden = ['in-lost', 'taken', 'of-ivy', 'of-tom', 'of-nobody'] as const
const everyAppView = appViews.map((one) => [one.name, one] as const)
const partial = everyAppView.filter(([name]) => name !== 'all')

let readers: Readers

beforeAll(async () => {
  readers = await Readers.start()
})
afterAll(async () => {
  await readers?.stratos.stop()
})

describe.each(everyAppView)('the AppView %s', (_, { name, finds }) => {
  test('cannot write, leave, administer or, unless it moderates, moderate', async () => {
    const { did } = readers.person('alice')
    const record = privatePost('a post', [readers.stratos.boundary('a')])
    const place = { repo: did, collection: postCollection }
    const subject = repoSubject(did)
    const calls: [string, Call][] = [
      [createRecord, { input: { ...place, record } }],
      [createRecord, { input: { ...place, repo: readers.person(name).did, record } }],
      ['com.atproto.repo.createRecord', { input: { ...place, record } }],
      [deleteRecord, { input: { ...place, rkey: 'in-a' } }],
      ['com.atproto.repo.deleteRecord', { input: { ...place, rkey: 'in-a' } }],
      ['zone.stratos.enrollment.unenroll', { verb: 'POST' }],
      ['zone.stratos.admin.setBoundaries', { input: { did, boundaries: [] } }],
      ['zone.stratos.admin.unenroll', { input: { did } }],
      ['zone.stratos.admin.listMembers', {}],
      ['zone.stratos.admin.listBoundaries', {}],
      ['zone.stratos.admin.listOutbox', {}],
    ]
    const moderation: [string, Call][] = [
      [updateStatus, { input: { subject, takedown: { applied: true } } }],
      [getStatus, { params: { did } }],
    ]
    const before = await readers.stratos.snapshot()
    for (const [nsid, call] of name === 'moderator' ? calls : [...calls, ...moderation]) {
      expectRefusal(await readers.ask(name, nsid, call), forbidden)
    }
    expect(await readers.stratos.snapshot()).toBe(before)
    const params = { did: readers.person('erin').did }
    expect((await readers.ask('all', status, { params })).body).toMatchObject({ enrolled: true })
  })

  test.each(hidden)('does not find the record %s', async (rkey) => {
    const { uri, cid } = readers.ref(rkey)
    for (const nsid of reads) {
      for (const more of [{}, { cid }]) {
        await readers.expectMissing(name, nsid, { ...addressOf(uri), ...more })
      }
    }
  })

  test('finds the records within its grant, and others like missing ones', async () => {
    for (const rkey of ['in-a', 'in-b', 'in-both']) {
      for (const nsid of reads) {
        const { uri, cid } = readers.ref(rkey)
        const params = addressOf(uri)
        if (!finds.some((one) => one === rkey)) {
          await readers.expectMissing(name, nsid, params)
          continue
        }
        const answer = await readers.ask(name, nsid, { params })
        expect(answer).toMatchObject({ status: 200, body: { uri, cid } })
        expect(answer.headers.get('atproto-repo-rev')).toBeNull()
      }
    }
  })

  test('lists the records within its grant, and knows of no other repo', async () => {
    for (const nsid of lists) {
      const list = (repo: string): Call => {
        return { params: { repo, collection: postCollection, reverse: true } }
      }
      const { body } = await readers.ask(name, nsid, list(readers.person('alice').did))
      const rkeys = listOf(body, 'records').map((one) => addressOf(textOf(one, 'uri')).rkey)
      expect<readonly string[]>(rkeys).toEqual(finds)
      await readers.expectLikeNobody(name, nsid, list)
    }
  })

  test('is described a repo in which it finds something', async () => {
    const describes = (repo: string): Call => ({ params: { repo } })
    const { did } = readers.person('alice')
    const answer = await readers.ask(name, describeRepo, describes(did))
    if (finds.length === 0) expectRefusal(answer, [404, 'RepoNotFound'])
    else expect(answer).toMatchObject({ status: 200, body: { collections: [postCollection] } })
    await readers.expectLikeNobody(name, describeRepo, describes)
  })
})

describe.each(partial)('the AppView %s', (_, { name, grant }) => {
  test('is given no whole repo, whoever’s it is', async () => {
    for (const who of ['alice', 'bob', 'ivy', 'tom', 'erin', 'stranger']) {
      const call = { params: { did: readers.person(who).did } }
      expectRefusal(await readers.ask(name, getRepo, call), forbidden)
    }
  })

  test('is told what others write elsewhere by no answer at all', async () => {
    const outside = ['a', 'b', 'c'].filter((bare) => !grant.slice(1).split('|').includes(bare))
    const { did: repo } = readers.person('alice')
    const calls: [string, Call][] = [
      [lists[0], { params: { repo, collection: postCollection } }],
      [lists[0], { params: { repo, collection: postCollection, limit: 1 } }],
      [describeRepo, { params: { repo } }],
      [reads[0], { params: { repo, collection: postCollection, rkey: 'fresh' } }],
      [resolveEnrollments, { params: { did: repo } }],
      [getRepo, { params: { did: repo } }],
    ]
    const look = () => Promise.all(calls.map(([nsid, call]) => readers.exact(name, nsid, call)))
    const before = await look()
    for (const bare of outside.filter((one) => one !== 'c')) {
      await readers.write('alice', 'fresh', [bare])
      expect(await look()).toEqual(before)
      const input = { repo, collection: postCollection, rkey: 'fresh' }
      await readers.stratos.callAs('alice', deleteRecord, { input })
    }
  })

  test('is told of boundaries elsewhere by no answer, beside that a set is not whole', async () => {
    // The set of one who may read c changes before its eyes.
    if (grant.includes('c')) return
    const look = async () => {
      const params = { did: readers.person('alice').did }
      const nsids = [status, resolveEnrollments]
      return await Promise.all(nsids.map((nsid) => readers.exact(name, nsid, { params })))
    }
    const before = await look()
    expect(before.join()).not.toContain('attestation')
    await readers.stratos.setBoundaries('alice', ['a', 'b', 'c'])
    expect(await look()).toEqual(before)
    await readers.stratos.setBoundaries('alice', ['a', 'b'])
  })
})

describe('a whole repo is given to the AppView of all boundaries', () => {
  test('unless its owner is inactive, taken down or not here: then there is none', async () => {
    const call = (did: string): Call => ({ params: { did } })
    await readers.expectLikeNobody('all', getRepo, call)
    const ofIvy = await readers.ask('all', getRepo, call(readers.person('ivy').did))
    expectRefusal(ofIvy, [404, 'RepoNotFound'])
  })

  test('without the content that it may not read', async () => {
    const { did } = readers.person('alice')
    const authorization = await readers.token('all', getRepo)
    const response = await xrpcResponse(readers.stratos.url, getRepo, {
      params: { did },
      authorization,
    })
    expect(response.status).toBe(200)
    const { body } = await readers.ask('all', status, { params: { did } })
    const { cids, withContent } = await readExport(
      await response.bytes(),
      textOf(body, 'signingKey'),
    )
    const rkeys = (paths: Iterable<string>) => [...paths].map((path) => path.split('/')[1] ?? '')
    expect(rkeys(cids.keys())).toEqual(['in-a', 'in-b', 'in-both', 'in-lost', 'taken'])
    expect(rkeys(withContent)).toEqual(['in-a', 'in-b', 'in-both'])
  })
})
