import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { readCarWithRoot } from '@atproto/repo'

import { decodeCommit } from '../../src/atproto/commit.ts'

import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { xrpcResponse } from '../kit/xrpc.ts'
import { Readers } from './readers.ts'

setDefaultTimeout(60_000)

const unnamed: Refusal = [401, 'AuthMissing']
const forbidden: Refusal = [403, 'Forbidden']
const notFound: Refusal = [404, 'RepoNotFound']
const takendown: Refusal = [403, 'RepoTakendown']

/** Whose repo: alice's is active, tom's taken down, ivy's inactive, and the stranger has none. */
const repos = ['alice', 'tom', 'ivy', 'stranger'] as const
type Repo = (typeof repos)[number]
type Outcomes<Other extends string> = Readonly<Record<Repo, Other | Refusal>>

interface Row {
  readonly status: Outcomes<'active' | 'takendown' | 'deactivated'>
  /** Of the newest commit, and of a whole repo. */
  readonly commit: Outcomes<'told'>
}

const none: Row = { status: everywhere(forbidden), commit: everywhere(forbidden) }
const callers: Record<string, Row> = {
  anonymous: { status: everywhere(unnamed), commit: everywhere(unnamed) },
  // Of the own repo even a stranger learns that there is none.
  stranger: {
    status: { ...none.status, stranger: notFound },
    commit: { ...none.commit, stranger: notFound },
  },
  bob: none,
  carol: none,
  dave: none,
  'of-a': none,
  'of-each': none,
  moderator: none,
  erin: none,
  alice: {
    status: { ...none.status, alice: 'active' },
    commit: { ...none.commit, alice: 'told' },
  },
  tom: {
    status: { ...none.status, tom: 'takendown' },
    commit: { ...none.commit, tom: takendown },
  },
  ivy: {
    status: { ...none.status, ivy: 'deactivated' },
    commit: { ...none.commit, ivy: 'told' },
  },
  all: {
    status: { alice: 'active', tom: 'takendown', ivy: notFound, stranger: notFound },
    commit: { alice: 'told', tom: notFound, ivy: notFound, stranger: notFound },
  },
  admin: {
    status: { alice: 'active', tom: 'takendown', ivy: 'deactivated', stranger: notFound },
    commit: { alice: 'told', tom: 'told', ivy: 'told', stranger: notFound },
  },
}

let readers: Readers
beforeAll(async () => {
  readers = await Readers.start()
})
afterAll(async () => {
  await readers?.stratos.stop()
})

describe.each(['zone.stratos.sync', 'com.atproto.sync'])('%s', (prefix) => {
  const statusNsid = `${prefix}.getRepoStatus`
  const commitNsid = `${prefix}.getLatestCommit`
  const repoNsid = `${prefix}.getRepo`

  test.each(Object.entries(callers))('%s learns how repos are', async (name, row) => {
    for (const repo of repos) {
      const { did } = readers.person(repo)
      const answer = await readers.ask(name, statusNsid, { params: { did } })
      const expected = row.status[repo]
      if (typeof expected !== 'string') expectRefusal(answer, expected)
      else if (expected === 'active') {
        const { rev } = await headOf(repo)
        expect(answer).toMatchObject({ status: 200, body: { did, active: true, rev } })
        expect(Object.keys(answer.body)).toHaveLength(3)
      } else {
        expect(answer).toMatchObject({ status: 200 })
        expect(answer.body).toEqual({ did, active: false, status: expected })
      }
    }
  })

  test.each(Object.entries(callers))('%s learns how far repos are', async (name, row) => {
    for (const repo of repos) {
      const { did } = readers.person(repo)
      const answer = await readers.ask(name, commitNsid, { params: { did } })
      const expected = row.commit[repo]
      if (typeof expected !== 'string') expectRefusal(answer, expected)
      else expect(answer).toMatchObject({ status: 200, body: await headOf(repo) })
    }
  })

  test.each(Object.entries(callers))('%s gets whole repos', async (name, row) => {
    for (const repo of repos) {
      const params = { did: readers.person(repo).did }
      const expected = row.commit[repo]
      if (typeof expected !== 'string') {
        expectRefusal(await readers.ask(name, repoNsid, { params }), expected)
        continue
      }
      const authorization = await readers.credential(name, repoNsid)
      const response = await xrpcResponse(readers.stratos.url, repoNsid, { params, authorization })
      const { root } = await readCarWithRoot(await response.bytes())
      expect(root.toString()).toBe((await headOf(repo)).cid)
    }
  })

  test('a refusal is the same of every repo that the caller does not see whole', async () => {
    for (const name of ['anonymous', 'bob', 'of-a', 'moderator']) {
      for (const nsid of [statusNsid, commitNsid, repoNsid]) {
        const answers = repos.map(async (repo) => {
          return await readers.exact(name, nsid, { params: { did: readers.person(repo).did } })
        })
        expect(new Set(await Promise.all(answers)).size).toBe(1)
      }
    }
  })

  test('a write moves what both tell', async () => {
    const params = { did: readers.person('alice').did }
    const before = await readers.ask('alice', commitNsid, { params })
    await readers.write('alice', `moved-${prefix}`, ['a'])
    const after = await readers.ask('alice', commitNsid, { params })
    expect(String(after.body['rev']) > String(before.body['rev'])).toBeTrue()
    expect(after.body['cid']).not.toBe(before.body['cid'])
    const status = await readers.ask('alice', statusNsid, { params })
    expect(status.body['rev']).toBe(after.body['rev'])
  })

  test('an account by its handle is a bad request', async () => {
    for (const nsid of [statusNsid, commitNsid]) {
      const answer = await readers.ask('alice', nsid, { params: { did: 'alice.test' } })
      expectRefusal(answer, [400, 'InvalidRequest'])
    }
  })
})

/** The newest commit as the export of the operator has it. */
async function headOf(repo: Repo) {
  const params = { did: readers.person(repo).did }
  const call = { params, authorization: readers.stratos.adminBasic }
  const response = await xrpcResponse(readers.stratos.url, 'zone.stratos.sync.getRepo', call)
  const { root, blocks } = await readCarWithRoot(await response.bytes())
  const commit = blocks.get(root)
  if (commit === undefined) throw new Error('an export begins with its commit')
  const { rev } = decodeCommit(commit)
  return { cid: root.toString(), rev }
}

function everywhere(refusal: Refusal) {
  return { alice: refusal, tom: refusal, ivy: refusal, stranger: refusal }
}
