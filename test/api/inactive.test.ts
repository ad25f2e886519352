import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'

import { importRepo, withCar } from '../kit/import.ts'
import { ListServer } from '../kit/list-server.ts'
import { addressOf, postCollection, privatePost, textsOf } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Call, textOf, xrpcResponse } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createNsid = 'zone.stratos.repo.createRecord'
const readNsid = 'zone.stratos.repo.getRecord'
const listNsid = 'zone.stratos.repo.listRecords'
const exportNsid = 'zone.stratos.sync.getRepo'
const statusNsid = 'zone.stratos.enrollment.status'
const notEnrolled: Refusal = [403, 'NotEnrolled']

let stratos: SeededStratos
let server: ListServer
let alicesPost: string
let bobsPost: string

// Alice is taken from the list after she wrote; bob and carol stay on it.
beforeAll(async () => {
  server = new ListServer()
  stratos = await SeededStratos.start({
    people: { alice: ['a', 'b'], bob: ['a'], carol: ['a'] },
    env: {
      STRATOS_ENROLLMENT_MODE: 'open',
      STRATOS_ALLOW_LIST_URI: server.uri,
      STRATOS_ALLOWLIST_ENFORCE: 'continuous',
    },
  })
  alicesPost = await write('alice', 'by alice')
  bobsPost = await write('bob', 'by bob')
  await relist('bob', 'carol')
})
afterAll(async () => {
  await stratos?.stop()
  await server?.[Symbol.asyncDispose]()
})

describe('somebody inactive', () => {
  test('cannot write, and is told that the enrollment is inactive', async () => {
    const { did } = stratos.person('alice')
    const { rkey } = addressOf(alicesPost)
    const calls: [string, Record<string, unknown>][] = [
      [createNsid, { record: privatePost('another', [stratos.boundary('a')]) }],
      ['zone.stratos.repo.deleteRecord', { rkey }],
      ['com.atproto.repo.deleteRecord', { rkey }],
    ]
    for (const [nsid, more] of calls) {
      const input = { repo: did, collection: postCollection, ...more }
      for (const authorization of [stratos.person('alice').bearer, await token('alice', nsid)]) {
        const ask = () => stratos.call(nsid, { input, authorization })
        const answer = await expectNoChange(stratos, notEnrolled, ask)
        expect(textOf(answer.body, 'message')).toContain('inactive')
      }
    }
  })

  test('brings no repo here, and is told the same', async () => {
    const ask = () => stratos.callAs('alice', importRepo, withCar(new Uint8Array(9)))
    const answer = await expectNoChange(stratos, notEnrolled, ask)
    expect(textOf(answer.body, 'message')).toContain('inactive')
  })

  test('sees nothing of others, by any credential, as if never enrolled', async () => {
    const repo = stratos.person('bob').did
    const asks: [string, Call][] = [
      [readNsid, { params: addressOf(bobsPost) }],
      [listNsid, { params: { repo, collection: postCollection } }],
      [exportNsid, { params: { did: repo } }],
    ]
    for (const [nsid, call] of asks) {
      const stranger = await exact('stranger', nsid, call)
      expect(await exact('alice', nsid, call)).toBe(stranger)
      const bearer = { ...call, authorization: await token('alice', nsid) }
      expect(await exactly(nsid, bearer)).toBe(stranger)
    }
  })

  test('still reads and exports their own records', async () => {
    const params = addressOf(alicesPost)
    expect(await stratos.callAs('alice', readNsid, { params })).toMatchObject({ status: 200 })
    const list = await stratos.callAs('alice', listNsid, {
      params: { repo: params.repo, collection: postCollection },
    })
    expect(textsOf(list.body)).toEqual(['by alice'])
    const call = { params: { did: params.repo }, authorization: stratos.person('alice').bearer }
    const whole = await xrpcResponse(stratos.url, exportNsid, call)
    expect(whole.status).toBe(200)
    expect((await whole.bytes()).length).toBeGreaterThan(100)
  })

  test('is shown to nobody else but the operator: as if they had never enrolled', async () => {
    const { did } = stratos.person('alice')
    const absentee = `did:plc:${'b'.repeat(24)}`
    const { rkey } = addressOf(alicesPost)
    const asks: [string, (repo: string) => Call][] = [
      [readNsid, (repo) => ({ params: { repo, collection: postCollection, rkey } })],
      [listNsid, (repo) => ({ params: { repo, collection: postCollection } })],
      [exportNsid, (repo) => ({ params: { did: repo } })],
    ]
    for (const [nsid, call] of asks) {
      for (const name of ['bob', 'stranger', undefined]) {
        const hidden = await exact(name, nsid, call(did))
        const absent = await exact(name, nsid, call(absentee))
        expect(hidden.replaceAll(did, absentee)).toBe(absent)
      }
      const asOperator = { ...call(did), authorization: stratos.adminBasic }
      expect(await exactly(nsid, asOperator)).toStartWith('HTTP 200')
    }
  })

  test('is no target of replies and quotes', async () => {
    const reference = { uri: alicesPost, cid: await cidOf(alicesPost) }
    const record = privatePost('reply', [stratos.boundary('a')])
    const input = {
      repo: stratos.person('bob').did,
      collection: postCollection,
      record: { ...record, reply: { root: reference, parent: reference } },
    }
    const ask = () => stratos.callAs('bob', createNsid, { input })
    await expectNoChange(stratos, [400, 'CrossNamespaceReply'], ask)
    const embed = { $type: 'app.bsky.embed.record', record: reference }
    const quote = { ...input, record: { ...record, embed } }
    const asQuote = () => stratos.callAs('bob', createNsid, { input: quote })
    await expectNoChange(stratos, [400, 'CrossNamespaceEmbed'], asQuote)
  })

  test('is shown with boundaries to themselves and the operator only, attested to nobody', async () => {
    const { did, bearer } = stratos.person('alice')
    const own = boundariesOf('a', 'b')
    const facts = {
      did,
      enrolled: true,
      active: false,
      enrolledAt: expect.any(String),
      signingKey: expect.stringMatching(/^did:key:/),
      enrollmentRkey: stratos.did.replaceAll('%3A', ':'),
    }
    for (const authorization of [bearer, stratos.adminBasic, await token('alice', statusNsid)]) {
      const { body } = await stratos.call(statusNsid, { params: { did }, authorization })
      expect(body).toEqual({ ...facts, boundaries: own })
    }
    const others = [undefined, stratos.person('bob').bearer, stratos.person('stranger').bearer]
    for (const authorization of others) {
      const { body } = await stratos.call(statusNsid, { params: { did }, authorization })
      expect(body).toEqual(facts)
    }
  })

  test('shares no boundary with the active ones', async () => {
    const { did } = stratos.person('bob')
    const ofAlice = await stratos.callAs('alice', statusNsid, { params: { did } })
    expect(ofAlice.body).toMatchObject({ enrolled: true, active: true })
    expect(Object.keys(ofAlice.body)).not.toContain('boundaries')
    const ofCarol = await stratos.callAs('carol', statusNsid, { params: { did } })
    expect(ofCarol.body).toMatchObject({ boundaries: boundariesOf('a') })
  })

  test('can be given boundaries by the operator, which they see themselves', async () => {
    const { did } = stratos.person('alice')
    await stratos.setBoundaries('alice', ['b'])
    const status = await stratos.callAs('alice', statusNsid, { params: { did } })
    expect(status.body).toMatchObject({ active: false, boundaries: boundariesOf('b') })
    await stratos.setBoundaries('alice', ['a', 'b'])
  })
})

test('back on the list they read and write as before, and others see them again', async () => {
  await relist('alice', 'bob', 'carol')
  const { did } = stratos.person('alice')
  const status = await stratos.callAs('alice', statusNsid, { params: { did } })
  expect(status.body).toMatchObject({ active: true, boundaries: boundariesOf('a', 'b') })
  expect(Object.keys(status.body)).toContain('attestation')
  const seen = (name: string, uri: string) =>
    stratos.callAs(name, readNsid, { params: addressOf(uri) })
  expect(await seen('bob', alicesPost)).toMatchObject({ status: 200 })
  expect(await seen('alice', bobsPost)).toMatchObject({ status: 200 })
  expect(await seen('bob', await write('alice', 'back again'))).toMatchObject({ status: 200 })
})

test('each change was told once, and nothing else', async () => {
  await stratos.terminate()
  using database = new Database(join(stratos.dataFolder, 'service.sqlite'), { readonly: true })
  const query = 'select did, action from service_event order by seq'
  const events = database.query<{ did: string; action: string }, []>(query).all()
  const { did } = stratos.person('alice')
  const ofAlice = events.filter((event) => event.did === did).map(({ action }) => action)
  // The first is of her joining, as for all the others.
  expect(ofAlice).toEqual(['enroll', 'unenroll', 'enroll'])
  const others = events.filter((event) => event.did !== did)
  expect(others).toEqual(others.map((event) => ({ ...event, action: 'enroll' })))
  expect(new Set(others.map((event) => event.did)).size).toBe(others.length)
})

/** Starts the service anew with these on the list, and waits until that counts. */
async function relist(...names: readonly string[]): Promise<void> {
  await stratos.terminate()
  server.set(...names.map((name) => stratos.person(name).did))
  await stratos.run({ STRATOS_ENROLLMENT_MODE: 'allowlist' })
  const { did } = stratos.person('alice')
  await eventually('new state', async () => {
    const { body } = await stratos.call(statusNsid, { params: { did } })
    return body['active'] === names.includes('alice') ? true : undefined
  })
}

async function write(name: string, text: string): Promise<string> {
  const record = privatePost(text, [stratos.boundary('a')])
  const input = { repo: stratos.person(name).did, collection: postCollection, record }
  const { status, body } = await stratos.callAs(name, createNsid, { input })
  expect({ status, body }).toMatchObject({ status: 200 })
  return textOf(body, 'uri')
}

async function cidOf(uri: string): Promise<string> {
  const call = { params: addressOf(uri), authorization: stratos.adminBasic }
  return textOf((await stratos.call(readNsid, call)).body, 'cid')
}

/** Status, headers and body of an answer, but for what differs from call to call. */
async function exactly(nsid: string, call: Call): Promise<string> {
  const response = await xrpcResponse(stratos.url, nsid, call)
  const headers = [...response.headers]
    .filter(([name]) => name !== 'x-request-id' && name !== 'date')
    .map(([name, value]) => `${name}: ${value}`)
  return [`HTTP ${response.status}`, ...headers, '', await response.text()].join('\n')
}

function exact(name: string | undefined, nsid: string, call: Call): Promise<string> {
  const authorization = name === undefined ? undefined : stratos.person(name).bearer
  return exactly(nsid, { ...call, authorization })
}

function boundariesOf(...bare: readonly string[]) {
  return bare.map((one) => ({ value: stratos.boundary(one) }))
}

async function token(name: string, lxm: string): Promise<string> {
  return `Bearer ${await serviceToken(stratos.person(name), { aud: stratos.did, lxm })}`
}
