import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { Secp256k1Keypair } from '@atproto/crypto'

import { Browser } from '../kit/browser.ts'
import { enrolled } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { addressOf, postCollection, privatePost, textsOf } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { type Call, textOf, xrpc } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const listRecords = 'zone.stratos.repo.listRecords'
const createRecord = 'zone.stratos.repo.createRecord'

let network: Network
let stratos: Stratos
let alice: Account
let bob: Account

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering'] })
  alice = await network.createAccount('alice')
  bob = await network.createAccount('bob')
  await enrolled(stratos, alice)
})

afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

describe('a token is refused', () => {
  test('for another audience', async () => {
    const aud = `did:web:localhost%3A${stratos.port + 1}`
    await expectRefused(await tokenOf(alice, { aud }), 'InvalidToken')
  })

  test('for another method, also for the same method under its other name', async () => {
    for (const lxm of [createRecord, 'com.atproto.repo.listRecords']) {
      await expectRefused(await tokenOf(alice, { lxm }), 'InvalidToken')
    }
  })

  test('when it names no method', async () => {
    const nsid = 'com.atproto.server.getServiceAuth'
    const { body } = await xrpc(network.pdsUrl, nsid, {
      params: { aud: stratos.did },
      authorization: `Bearer ${alice.accessJwt}`,
    })
    await expectRefused(textOf(body, 'token'), 'InvalidToken')
  })

  test('when it has expired', async () => {
    const exp = Math.floor(Date.now() / 1000) + 2
    const token = await tokenOf(alice, { exp })
    await Bun.sleep(exp * 1000 + 1000 - Date.now())
    await expectRefused(token, 'ExpiredToken')
  })

  test('when another account is written into it', async () => {
    const token = await tokenOf(bob)
    await expectRefused(withClaims(token, { iss: alice.did }), 'InvalidToken')
  })

  test('when its signature is missing, cut, of another token or by another key', async () => {
    const [header, payload, signature] = partsOf(await tokenOf(alice))
    const [, , another] = partsOf(await tokenOf(alice, { lxm: createRecord }))
    const none = partOf({ typ: 'JWT', alg: 'none' })
    const key = await Secp256k1Keypair.create()
    const signed = await key.sign(Buffer.from(`${header}.${payload}`))
    const forged = [
      `${header}.${payload}.`,
      `${none}.${payload}.`,
      `${none}.${payload}.${signature}`,
      `${header}.${payload}.${signature.slice(0, -4)}`,
      `${header}.${payload}.${another}`,
      `${header}.${payload}.${Buffer.from(signed).toString('base64url')}`,
    ]
    for (const token of forged) await expectRefused(token, 'InvalidToken')
  })

  test('when it is the session token of the PDS', async () => {
    await expectRefused(alice.accessJwt, 'InvalidToken')
  })

  test('when its issuer cannot be found', async () => {
    const unknown = { iss: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa' }
    await expectRefused(withClaims(await tokenOf(alice), unknown), 'InvalidToken')
  })

  test('when it is no token', async () => {
    for (const text of ['x', 'a.b.c', `did:plc:${'a'.repeat(24)}`, alice.did]) {
      await expectRefused(text, 'InvalidToken')
    }
  })
})

describe('a session', () => {
  const createSession = 'zone.stratos.server.createSession'

  test('begins by a token of the PDS, once, and then does without the PDS', async () => {
    const authorization = `Bearer ${await tokenOf(alice, { lxm: createSession })}`
    const begun = await stratos.call(createSession, { verb: 'POST', authorization })
    expect(begun).toMatchObject({ status: 200, body: { did: alice.did } })
    const again = await stratos.call(createSession, { verb: 'POST', authorization })
    expect(again).toMatchObject({ status: 401, body: { error: 'InvalidToken' } })
    const session = `Bearer ${textOf(begun.body, 'accessJwt')}`
    for (let count = 0; count < 2; count++) {
      const written = { input: postBy(alice), authorization: session }
      expect(await stratos.call(createRecord, written)).toMatchObject({ status: 200 })
    }
  })

  test('begins by the cookie that a sign-in leaves, on our own origin only', async () => {
    const browser = new Browser()
    await enrolled(stratos, alice, browser)
    const origin = `http://127.0.0.1:${stratos.port}`
    const begin = (from: string) =>
      browser.visit(`${origin}/xrpc/${createSession}`, { body: {}, headers: { origin: from } })
    const refused = await begin('https://app.example.com')
    expect(refused.status).toBe(403)
    expect(await refused.json()).toMatchObject({ error: 'Forbidden' })
    const begun = await begin(origin)
    expect(begun.status).toBe(200)
    expect(await begun.json()).toMatchObject({ did: alice.did, accessJwt: expect.any(String) })
  })
})

test('a call without a token may not write', async () => {
  const answer = await stratos.call(createRecord, { input: postBy(alice) })
  expect(answer).toMatchObject({ status: 401, body: { error: 'AuthMissing' } })
  expect(answer.headers.get('www-authenticate')).not.toBeNull()
})

test('who is not enrolled may not write', async () => {
  const answer = await stratos.callAs(bob, createRecord, { input: postBy(bob) })
  expect(answer).toMatchObject({ status: 403, body: { error: 'NotEnrolled' } })
})

test('nobody writes into the repo of another', async () => {
  const carol = await network.createAccount('carol')
  await enrolled(stratos, carol)
  const answer = await stratos.callAs(carol, createRecord, { input: postBy(alice) })
  expect(answer).toMatchObject({ status: 403, body: { error: 'Forbidden' } })
})

test('a token from the PDS writes and reads, and may be used again until it expires', async () => {
  const written = await stratos.callAs(alice, createRecord, { input: postBy(alice) })
  expect(written).toMatchObject({ status: 200 })
  const authorization = `Bearer ${await tokenOf(alice)}`
  for (let count = 0; count < 2; count++) {
    const answer = await stratos.call(listRecords, { params: listOfAlice(), authorization })
    expect(textsOf(answer.body)).toContain('by token')
  }
})

test('a token may name the service with its fragment', async () => {
  const aud = `${stratos.did}#atproto_pns`
  const token = await tokenOf(alice, { aud })
  const authorization = `Bearer ${token}`
  expect(await stratos.call(listRecords, { params: listOfAlice(), authorization })).toMatchObject({
    status: 200,
  })
})

test('through the PDS, by atproto-proxy, the twins write, read and delete privately', async () => {
  const written = await throughPds(createRecord, { input: postBy(alice) })
  expect(written).toMatchObject({ status: 200 })
  const uri = textOf(written.body, 'uri')
  const params = addressOf(uri)
  const read = await throughPds('zone.stratos.repo.getRecord', { params })
  expect(read).toMatchObject({ status: 200, body: { uri, value: { text: 'by token' } } })
  expect(await stratos.call('zone.stratos.repo.getRecord', { params })).toMatchObject({
    status: 404,
  })
  // What the public repo holds at that key is at most the stub.
  expect(JSON.stringify((await network.getRecord(params))?.value ?? {})).not.toContain('by token')
  const removed = await throughPds('zone.stratos.repo.deleteRecord', { input: params })
  expect(removed).toMatchObject({ status: 200 })
  expect(await throughPds('zone.stratos.repo.getRecord', { params })).toMatchObject({
    status: 404,
    body: { error: 'RecordNotFound' },
  })
})

async function expectRefused(token: string, error: string): Promise<void> {
  const authorization = `Bearer ${token}`
  const answer = await stratos.call(listRecords, { params: listOfAlice(), authorization })
  expect(answer).toMatchObject({ status: 401, body: { error } })
  expect(answer.headers.get('www-authenticate')).not.toBeNull()
  // What was wrong may be said, the credential itself never.
  expect(JSON.stringify(answer.body)).not.toContain(token)
}

function throughPds(nsid: string, call: Call) {
  return xrpc(network.pdsUrl, nsid, {
    ...call,
    authorization: `Bearer ${alice.accessJwt}`,
    headers: { 'atproto-proxy': `${stratos.did}#atproto_pns` },
  })
}

function tokenOf(account: Account, claims: { aud?: string; lxm?: string; exp?: number } = {}) {
  return network.serviceAuth(account, { aud: stratos.did, lxm: listRecords, ...claims })
}

function listOfAlice() {
  return { repo: alice.did, collection: postCollection }
}

function postBy(account: Account) {
  const record = privatePost('by token', [stratos.boundary('engineering')])
  return { repo: account.did, collection: postCollection, record }
}

/** The token with other claims and its old signature. */
function withClaims(token: string, claims: Record<string, unknown>): string {
  const [header, payload, signature] = partsOf(token)
  const old: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString())
  return `${header}.${partOf({ ...Object(old), ...claims })}.${signature}`
}

function partsOf(token: string): [string, string, string] {
  const [header = '', payload = '', signature = ''] = token.split('.')
  return [header, payload, signature]
}

function partOf(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
