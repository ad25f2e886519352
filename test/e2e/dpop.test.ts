import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import type { OAuthSession } from '@atproto/oauth-client-node'

import { bindSessionKey } from '../kit/bind-key.ts'
import { enrolled } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { OauthApp } from '../kit/oauth-app.ts'
import { postCollection, privatePost, textsOf } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { failureOf } from '../kit/wait.ts'
import { fieldsOf, textOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const scope = 'rpc:zone.stratos.server.bindKey?aud=*'
let network: Network
let stratos: Stratos
let alice: Account
let app: OauthApp
let session: OAuthSession

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering'] })
  alice = await network.createAccount('alice')
  app = new OauthApp(network, scope)
  session = await app.signIn(alice)
})
afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

test('a token of a real PDS proves nothing by itself, and the app keeps its session', async () => {
  const response = await create('unbound')
  expect(response.status).toBe(401)
  expect(textOf(await json(response), 'message')).toContain('zone.stratos.server.bindKey')
  // The library takes some refusals for the end of the session, and forgets it.
  expect(app.sessions.has(alice.did)).toBeTrue()
  expect((await session.getTokenInfo(false)).sub).toBe(session.did)
})

test('who is not enrolled binds no key', async () => {
  expect(String(await failureOf(bindSessionKey(session, stratos)))).toContain('NotEnrolled')
})

test('an app that bound its key writes and reads as by plain OAuth', async () => {
  await enrolled(stratos, alice)
  const expiresAt = await bindSessionKey(session, stratos)
  expect(Date.parse(expiresAt)).toBeGreaterThan(Date.now())
  const created = await create('by the key of an app')
  expect(created.status).toBe(200)
  expect(textOf(await json(created), 'uri')).toStartWith(`at://${alice.did}/`)
  const params = new URLSearchParams({ repo: alice.did, collection: postCollection })
  const url = `${stratos.url}/xrpc/zone.stratos.repo.listRecords?${params.toString()}`
  const listed = await session.fetchHandler(url)
  expect(textsOf(await json(listed))).toEqual(['by the key of an app'])
})

test('a refreshed token is as good: it has the same key', async () => {
  await session.getTokenInfo(true)
  expect((await create('after a refresh')).status).toBe(200)
})

test('the session of another app of the same person has another key', async () => {
  const other = await new OauthApp(network, scope).signIn(alice)
  expect((await create('by another app', other)).status).toBe(401)
})

test('the key of an app acts for nobody else', async () => {
  const bob = await network.createAccount('bob')
  await enrolled(stratos, bob)
  const theirs = await new OauthApp(network, scope).signIn(bob)
  await bindSessionKey(theirs, stratos)
  expect((await create('for another', theirs)).status).toBe(403)
})

test('keys are listed, and an app gives up its own', async () => {
  const jkts = async () => {
    const { body } = await stratos.callAs(alice, 'zone.stratos.server.listKeys')
    const { keys } = body
    return Array.isArray(keys)
      ? keys.map((key: unknown) => textOf(fieldsOf({ key }, 'key'), 'jkt'))
      : []
  }
  const [jkt = '', ...others] = await jkts()
  expect(others).toEqual([])
  const response = await session.fetchHandler(`${stratos.url}/xrpc/zone.stratos.server.unbindKey`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jkt }),
  })
  expect(response.status).toBe(200)
  expect(await jkts()).toEqual([])
  expect((await create('afterwards')).status).toBe(401)
})

function create(text: string, by = session): Promise<Response> {
  const record = privatePost(text, [stratos.boundary('engineering')])
  return by.fetchHandler(`${stratos.url}/xrpc/zone.stratos.repo.createRecord`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ repo: alice.did, collection: postCollection, record }),
  })
}

async function json(response: Response): Promise<Record<string, unknown>> {
  return fieldsOf({ body: await response.json() }, 'body')
}
