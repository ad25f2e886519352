import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { Browser } from '../kit/browser.ts'
import { withdrawConsent } from '../kit/consent.ts'
import { enroll, enrolled } from '../kit/enroll.ts'
import { Front } from '../kit/front.ts'
import { type Account, Network } from '../kit/network.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { SavedSessions } from '../kit/session.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, isFields, textOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

let front: Front
let network: Network
let stratos: Stratos
let alice: Account

beforeAll(async () => {
  // Under a real top-level domain, as a PDS asks for, and in the homes of all.
  front = await Front.open('stratos.home.arpa')
  network = await Network.start(front.site)
  const env = { STRATOS_PUBLIC_URL: front.origin, STRATOS_SERVICE_DID: 'did:web:stratos.home.arpa' }
  stratos = await Stratos.start({ network, domains: ['engineering'], env })
  front.target = stratos.url
  alice = await network.createAccount('alice')
})
afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
  await front?.[Symbol.asyncDispose]()
})

test('an enrollment over https is that of a client with a key', async () => {
  const answer = await enroll(stratos, alice, { browser: new Browser(front) })
  expect(await answer.json()).toMatchObject({ did: alice.did, enrolled: true })
  await expectStub(await post(alice, 'with a key'))
  const [used] = await publishedKids()
  await whileStopped((sessions) => expect(sessions.kid(alice.did)).toBe(used))
})

test('after a restart the session is refreshed with its key', async () => {
  const before = await expired(alice)
  await expectStub(await post(alice, 'after a restart'))
  await whileStopped((sessions) => expect(sessions.accessToken(alice.did)).not.toBe(before))
})

test('after a rotation new sign-ins use the new key at once, and old sessions their own', async () => {
  const [used, next] = await publishedKids()
  const nsid = 'zone.stratos.admin.rotateOauthKey'
  const answer = await stratos.callAsAdmin(nsid, { verb: 'POST' })
  expect(answer).toMatchObject({ status: 200, body: { kid: next } })
  // The PDS still has its older copy of our keys, for ten minutes.
  const bob = await network.createAccount('bob')
  await enrolled(stratos, bob, new Browser(front))
  await expectStub(await post(bob, 'with the new key'))

  const before = await expired(alice)
  await expired(bob)
  await expectStub(await post(alice, 'with the old key'))
  await expectStub(await post(bob, 'with the new key, refreshed'))
  await whileStopped((sessions) => {
    expect(sessions.kid(bob.did)).toBe(next)
    expect(sessions.kid(alice.did)).toBe(used)
    expect(sessions.accessToken(alice.did)).not.toBe(before)
  })
  expect(await publishedKids()).toContain(String(used))
})

test('a session that its person ended at the PDS is lost, until they sign in again', async () => {
  await withdrawConsent(alice)
  const uri = await post(alice, 'without a session')
  await eventually('notice', () => stratos.log.includes('outbox.session.lost') || undefined)
  expect(await health()).toMatchObject({ outbox: { actors: { parked: 1 } } })
  expect(await network.getRecord(addressOf(uri))).toBeUndefined()
  await whileStopped((sessions) => expect(sessions.has(alice.did)).toBeFalse())

  await enrolled(stratos, alice, new Browser(front))
  await expectStub(uri)
})

test('no log shows a private key', async () => {
  const keys = await (await fetch(`${stratos.url}/.well-known/jwks.json`)).text()
  for (const text of [keys, stratos.log]) expect(text).not.toMatch(/"d\\?":/)
})

/** Stops the service, looks into its database, and starts it again. */
async function whileStopped(look: (sessions: SavedSessions) => void): Promise<void> {
  expect(await stratos.terminate()).toBe(0)
  {
    using sessions = new SavedSessions(stratos.dataFolder)
    look(sessions)
  }
  await stratos.run()
}

/** Lets somebody's access token expire, and gives it. */
async function expired({ did }: Account): Promise<unknown> {
  let token: unknown
  await whileStopped((sessions) => {
    token = sessions.accessToken(did)
    sessions.expire(did)
  })
  return token
}

async function publishedKids(): Promise<string[]> {
  const answer: unknown = await (await fetch(`${stratos.url}/.well-known/jwks.json`)).json()
  const keys = isFields(answer) ? answer['keys'] : undefined
  if (!Array.isArray(keys)) throw new Error(`no keys: ${JSON.stringify(answer)}`)
  return keys.map((key: unknown) => textOf(fieldsOf({ key }, 'key'), 'kid'))
}

async function health(): Promise<unknown> {
  return await (await fetch(`${stratos.url}/health`)).json()
}

async function post(account: Account, text: string): Promise<string> {
  const record = privatePost(text, [stratos.boundary('engineering')])
  const input = { repo: account.did, collection: postCollection, record }
  const answer = await stratos.callAs(account, 'zone.stratos.repo.createRecord', { input })
  expect(answer).toMatchObject({ status: 200 })
  return textOf(answer.body, 'uri')
}

async function expectStub(uri: string): Promise<void> {
  const { value } = await eventually(`stub of ${uri}`, () => network.getRecord(addressOf(uri)))
  expect(value).toHaveProperty('source.service', `${stratos.did}#atproto_pns`)
}
