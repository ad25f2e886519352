import { Agent, AtpAgent } from '@atproto/api'
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { parseLexiconDoc } from '@atproto/lexicon'

import { enrolled } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { projectFolder } from '../kit/seeded.ts'
import { Stratos } from '../kit/stratos.ts'
import { failureOf } from '../kit/wait.ts'

setDefaultTimeout(120_000)

const create = 'com.atproto.repo.applyWrites#create'
let network: Network
let stratos: Stratos
let alice: Account

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering'] })
  alice = await network.createAccount('alice')
  await enrolled(stratos, alice)
})

afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

test('@atproto/api as it is works with a token of the PDS for each call', async () => {
  // All that is new to the client: where calls go, and what proves who makes them.
  const agent = new Agent(async (path, init) => {
    const lxm = path.replace(/^\/xrpc\//, '').replace(/\?.*$/, '')
    const token = await network.serviceAuth(alice, { aud: stratos.did, lxm })
    const headers = new Headers(init.headers)
    headers.set('authorization', `Bearer ${token}`)
    return await fetch(new URL(path, stratos.url), { ...init, headers })
  })
  const { repo } = agent.com.atproto
  const at = { repo: alice.did, collection: postCollection }

  const created = await repo.createRecord({ ...at, record: post('one') })
  expect(created.data.validationStatus).toBe('valid')
  const { rkey } = addressOf(created.data.uri)
  const swapRecord = created.data.cid
  const put = await repo.putRecord({ ...at, rkey, swapRecord, record: post('two') })
  expect(put.data.uri).toBe(created.data.uri)
  const got = await repo.getRecord({ ...at, rkey })
  expect(got.data).toMatchObject({ cid: put.data.cid, value: { text: 'two' } })
  const applied = await repo.applyWrites({
    repo: alice.did,
    writes: [
      { $type: create, collection: postCollection, value: post('three') },
      { $type: 'com.atproto.repo.applyWrites#update', ...at, rkey, value: post('four') },
    ],
  })
  expect(applied.data.results?.map(({ $type }) => $type)).toEqual([
    'com.atproto.repo.applyWrites#createResult',
    'com.atproto.repo.applyWrites#updateResult',
  ])
  const { data } = await repo.listRecords({ ...at, reverse: true })
  expect(data.records.map(({ value }) => value['text'])).toEqual(['four', 'three'])
  await repo.deleteRecord({ ...at, rkey })
  const failure = await failureOf(repo.getRecord({ ...at, rkey }))
  expect(failure).toMatchObject({ error: 'RecordNotFound' })
  const described = await repo.describeRepo({ repo: alice.did })
  expect(described.data).toMatchObject({ did: alice.did, collections: [postCollection] })
})

test('through a real PDS, by atproto-proxy, it works under the names that a PDS passes on', async () => {
  const agent = new AtpAgent({ service: network.pdsUrl })
  await agent.login({ identifier: alice.handle, password: alice.password })
  const names = [
    'applyWrites',
    'createRecord',
    'deleteRecord',
    'getRecord',
    'listRecords',
    'putRecord',
  ]
  for (const name of names) agent.lex.add(lexiconOf(`zone/stratos/repo/${name}`))
  agent.lex.add(lexiconOf('zone/stratos/boundary/defs'))
  const call = async (name: string, input: object, isQuery = false) => {
    const headers = { 'atproto-proxy': `${stratos.did}#atproto_pns` }
    const nsid = `zone.stratos.repo.${name}`
    const { data } = isQuery
      ? await agent.call(nsid, { ...input }, undefined, { headers })
      : await agent.call(nsid, {}, input, { headers, encoding: 'application/json' })
    return data
  }
  const at = { repo: alice.did, collection: postCollection }
  const created = await call('createRecord', { ...at, record: post('one') })
  const { rkey } = addressOf(created.uri)
  await call('putRecord', { ...at, rkey, record: post('two') })
  expect(await call('getRecord', { ...at, rkey }, true)).toMatchObject({ value: { text: 'two' } })
  const own = 'zone.stratos.repo.applyWrites'
  const applied = await call('applyWrites', {
    repo: alice.did,
    writes: [
      { $type: `${own}#create`, collection: postCollection, value: post('three') },
      { $type: `${own}#delete`, collection: postCollection, rkey },
    ],
  })
  expect(applied.results.map(({ $type }: { $type: string }) => $type)).toEqual([
    `${own}#createResult`,
    `${own}#deleteResult`,
  ])
  const listed = await call('listRecords', { ...at }, true)
  expect(JSON.stringify(listed)).toContain('three')
  expect(JSON.stringify(listed)).not.toContain('two')
  // And nothing of it went into the public repo but stubs.
  const shown = JSON.stringify(await network.listRecords(alice.did, postCollection))
  expect(shown).not.toContain('three')
})

function post(text: string) {
  return privatePost(text, [stratos.boundary('engineering')])
}

function lexiconOf(path: string) {
  return parseLexiconDoc(JSON.parse(readFileSync(`${projectFolder}lexicons/${path}.json`, 'utf8')))
}
