import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { verifyRepoCar } from '@atproto/repo'
import { join } from 'node:path'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { pathOf } from '../bulk/foreign-posts.ts'
import { readActorFile } from '../crash/actor-file.ts'
import { StubTaker } from '../crash/stub-taker.ts'
import { postCollection } from '../kit/post.ts'
import { signIn } from '../kit/sign-in.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { type Call, listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'
import { quoteOf, reference } from '../service/posts.ts'
import { Importers } from './importers.ts'

setDefaultTimeout(60_000)

const createRecord = 'zone.stratos.repo.createRecord'
const deleteRecord = 'zone.stratos.repo.deleteRecord'
const hydrateRecords = 'zone.stratos.repo.hydrateRecords'
const listRecords = 'zone.stratos.repo.listRecords'
const viewers = ['alice', 'bob', 'carol', 'dave', 'stranger'] as const
/** Keys of what alice writes, with the boundaries of each. */
const written = {
  'in-a': ['a'],
  'in-b': ['b'],
  'in-both': ['a', 'b'],
  'reply-in-a': ['a'],
  'quote-in-b': ['b'],
} as const
const rkeys = Object.keys(written)

let pds: StubTaker
let importers: Importers

// Bob and carol are each in one boundary, dave in none.
beforeAll(async () => {
  pds = new StubTaker()
  importers = await Importers.start({
    people: { bob: ['a'], carol: ['b'], dave: [] },
    strangers: ['alice', 'ann', 'mona'],
    env: {
      STRATOS_ENROLLMENT_MODE: 'open',
      STRATOS_AUTO_ENROLL_DOMAINS: 'a,b',
      STRATOS_OUTBOX_POINTS_PER_HOUR: '1000000',
    },
  })
})
afterAll(async () => {
  await importers?.[Symbol.asyncDispose]()
  await pds?.[Symbol.asyncDispose]()
})

describe('a repo that is exported, left, and imported after another sign-in', () => {
  let before: Awaited<ReturnType<typeof present>>
  let after: Awaited<ReturnType<typeof present>>

  beforeAll(async () => {
    await enroll('alice')
    for (const [rkey, names] of Object.entries(written)) {
      const over = rkey === 'reply-in-a' ? { reply: thread('in-both') } : {}
      const embed = rkey === 'quote-in-b' ? { embed: quoteOf(uriOf('alice', 'in-b')) } : {}
      await write('alice', rkey, { ...values(names), ...over, ...embed })
    }
    await eventually('stubs', () => (pds.stubsOf(did('alice')).length === 5 ? true : undefined))
    before = await present()
    await importers.stratos.callAs('alice', 'zone.stratos.enrollment.unenroll', { verb: 'POST' })
    await eventually('departure', () =>
      importers.stratos.log.includes('departure.finished') ? true : undefined,
    )
    await enroll('alice')
    const answer = await importers.send('alice', before.car)
    expect(answer).toMatchObject({ status: 200, body: { imported: 5, rewritten: 0 } })
    after = await present()
  })

  test('has the same records, byte for byte, under another signature', async () => {
    expect(after.signingKey).not.toBe(before.signingKey)
    for (const { car, signingKey } of [before, after]) {
      const { creates } = await verifyRepoCar(car, did('alice'), signingKey)
      expect(creates.map(({ rkey }) => rkey).toSorted()).toEqual(rkeys.toSorted())
    }
    expect(await failureOf(verifyRepoCar(after.car, did('alice'), before.signingKey))).toBeDefined()
    expect(after.records).toEqual(before.records)
    expect(after.boundaries).toEqual(before.boundaries)
  })

  test('goes on above the numbers that it had', () => {
    expect(after.head.seq).toBeGreaterThan(before.head.seq)
    expect(after.head.rev > before.head.rev).toBeTrue()
    const isAbove = after.events.map(
      ({ rev, seq }) => rev > before.head.rev && seq > before.head.seq,
    )
    // The empty commit, and what was imported.
    expect(isAbove).toEqual([true, true])
    expect(after.events.at(-1)).toMatchObject({ rev: after.head.rev, seq: after.head.seq })
  })

  test('is seen by those of its boundaries as before, and by nobody else', () => {
    const seen = new Map(after.seen.map(([name, { listed }]) => [name, keysOf(listed)]))
    expect(seen.get('alice')).toEqual(rkeys.toSorted())
    expect(seen.get('bob')).toEqual(['in-a', 'in-both', 'reply-in-a'])
    expect(seen.get('carol')).toEqual(['in-b', 'in-both', 'quote-in-b'])
    expect(seen.get('dave')).toEqual([])
    expect(seen.get('stranger')).toEqual([])
    expect(after.seen).toEqual(before.seen)
  })

  test('has no stubs that nobody asked for', async () => {
    await eventually('empty outbox', async () => {
      const health = await (await fetch(`${importers.stratos.url}/health`)).json()
      return JSON.stringify(health).includes('"waiting":0') ? true : undefined
    })
    expect(pds.stubsOf(did('alice'))).toEqual([])
    expect(after.outbox).toEqual([])
  })

  test('is written, answered and deleted from, and imported no second time', async () => {
    expect(await importers.send('alice', after.car)).toMatchObject({ status: 409 })
    const reply = thread('in-a')
    const answer = await write('bob', 'reply-of-bob', { ...values(['a']), reply })
    expect(answer).toMatchObject({ status: 200 })
    for (const rkey of ['in-a', 'reply-in-a']) {
      const input = { repo: did('alice'), collection: postCollection, rkey }
      expect(await importers.stratos.callAs('alice', deleteRecord, { input })).toMatchObject({
        status: 200,
        body: { commit: {} },
      })
    }
    const { seen } = await present()
    expect(keysOf(seen.find(([name]) => name === 'bob')?.[1].listed)).toEqual(['in-both'])
  })
})

test('with stubs=true each record gets one on the PDS, by its new CID', async () => {
  await enroll('ann')
  const repo = importers.repo('ann', {
    [pathOf('one')]: importers.post('one', { boundary: { values: [{ value: oldBoundary }] } }),
    [pathOf('two')]: importers.post('two'),
  })
  const boundaryMap = [`${oldBoundary}=${importers.stratos.boundary('b')}`]
  const answer = await importers.import('ann', repo, { params: { stubs: true, boundaryMap } })
  expect(answer).toMatchObject({ status: 200, body: { imported: 2, rewritten: 1 } })
  const { records } = readActorFile(databaseOf('ann'), did('ann'))
  const cids = records.map(({ rkey, cid }) => `${rkey} ${cid}`)
  expect(cids.filter((one) => one.endsWith(repo.cids.get('two') ?? 'none'))).toHaveLength(1)
  await eventually('stubs', () =>
    Bun.deepEquals(pds.stubsOf(did('ann')), cids) ? true : undefined,
  )
})

test('a repo of another service is read by those of the boundaries it came to', async () => {
  await enroll('mona')
  const repo = importers.repo('mona')
  const old = { boundary: { values: [{ value: oldBoundary }] } }
  const cid = repo.put(pathOf('root'), importers.post('root', old))
  const root = { uri: uriOf('mona', 'root'), cid }
  repo.put(pathOf('a-reply'), importers.post('reply', { ...old, reply: { root, parent: root } }))
  const boundaryMap = [`${oldBoundary}=${importers.stratos.boundary('a')}`]
  const answer = await importers.import('mona', repo, { params: { boundaryMap } })
  expect(answer).toMatchObject({ status: 200, body: { imported: 2, rewritten: 2 } })
  const params = { repo: did('mona'), collection: postCollection }
  const { body } = await importers.stratos.callAs('bob', listRecords, { params })
  expect(keysOf(body)).toEqual(['a-reply', 'root'])
  const found = Object.fromEntries(listOf(body, 'records').map((one) => [keyIn(one), one]))
  const now = { uri: root.uri, cid: textOf(found['root'] ?? {}, 'cid') }
  expect(now.cid).not.toBe(cid)
  expect(found['a-reply']).toMatchObject({ value: { reply: { root: now, parent: now } } })
  const carol = await importers.stratos.callAs('carol', listRecords, { params })
  expect(keysOf(carol.body)).toEqual([])
})

const oldBoundary = 'did:web:old.test/friends'

function did(name: string) {
  return importers.did(name)
}

async function enroll(name: string): Promise<void> {
  const response = await signIn(importers.stratos, name, { pds: pds.signIn })
  expect(await response.json()).toMatchObject({ success: true, enrolled: true })
}

function values(names: readonly string[]) {
  const boundary = { values: names.map((name) => ({ value: importers.stratos.boundary(name) })) }
  return { boundary }
}

function uriOf(name: string, rkey: string): string {
  return `at://${did(name)}/${pathOf(rkey)}`
}

function thread(rkey: string) {
  const ref = reference(uriOf('alice', rkey))
  return { root: ref, parent: ref }
}

function write(name: string, rkey: string, over: Readonly<Record<string, unknown>>) {
  const record = importers.post(rkey, over)
  const input = { repo: did(name), collection: postCollection, rkey, record }
  return importers.stratos.callAs(name, createRecord, { input })
}

function databaseOf(name: string): string {
  return join(actorFolder(importers.stratos.dataFolder, did(name)), 'stratos.sqlite')
}

/** All that there is of alice, as she, others and the rows have it. */
async function present() {
  const { stratos } = importers
  const owner = { authorization: stratos.person('alice').bearer }
  const call: Call = { ...owner, params: { did: did('alice') } }
  const exported = await xrpcResponse(stratos.url, 'zone.stratos.sync.getRepo', call)
  expect(exported.status).toBe(200)
  const car = await exported.bytes()
  const { body } = await stratos.call('zone.stratos.enrollment.status', call)
  const file = readActorFile(databaseOf('alice'), did('alice'))
  return {
    ...file,
    car,
    signingKey: textOf(body, 'signingKey'),
    records: file.records.map(({ rkey, cid }) => [rkey, cid]),
    seen: await Promise.all(viewers.map(async (name) => [name, await seenBy(name)] as const)),
  }
}

async function seenBy(name: string) {
  const params = { repo: did('alice'), collection: postCollection }
  const { body: listed } = await importers.stratos.callAs(name, listRecords, { params })
  const uris = rkeys.map((rkey) => uriOf('alice', rkey))
  const { body: hydrated } = await importers.stratos.callAs(name, hydrateRecords, {
    input: { uris },
  })
  return { listed, hydrated }
}

function keyIn(record: Readonly<Record<string, unknown>>): string {
  return textOf(record, 'uri').split('/').at(-1) ?? ''
}

function keysOf(body: Readonly<Record<string, unknown>> = { records: [] }): string[] {
  return listOf(body, 'records').map(keyIn).toSorted()
}
