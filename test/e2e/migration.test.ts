import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { enrolled } from '../kit/enroll.ts'
import { migrate } from '../kit/migrate.ts'
import { type Account, Network } from '../kit/network.ts'
import { addressOf, enrollmentCollection, postCollection, privatePost } from '../kit/post.ts'
import { SavedSessions } from '../kit/session.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, isFields, textOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting two PDSes takes seconds.
setDefaultTimeout(180_000)

let here: Network
let there: Network
let stratos: Stratos
/** As they were before they moved. */
let alice: Account
let bob: Account

beforeAll(async () => {
  here = await Network.start()
  there = await here.another()
  stratos = await Stratos.start({ network: here, domains: ['engineering'] })
  alice = await here.createAccount('alice')
  bob = await here.createAccount('bob')
  for (const account of [alice, bob]) {
    await enrolled(stratos, account)
    await stubOf(here, await post(account, 'before'))
  }
  // Documents that were read a moment ago would not be read again.
  await stratos.terminate()
  await stratos.run()
})
afterAll(async () => {
  await stratos?.stop()
  await there?.stop()
  await here?.stop()
})

test('who moves to another PDS reads and writes on, and its stubs wait for a sign-in there', async () => {
  const before = await post(alice, 'just before')
  await stubOf(here, before)
  const moved = await migrate(alice, { from: here, to: there })

  const uri = await post(moved, 'after')
  for (const [read, text] of [
    [before, 'just before'],
    [uri, 'after'],
  ] as const) {
    const params = addressOf(read)
    const answer = await stratos.callAs(moved, 'zone.stratos.repo.getRecord', { params })
    expect(answer).toMatchObject({ status: 200, body: { value: { text } } })
  }
  await parked(1)
  await expectMoved(alice)
  await parked(1)
  expect(await there.getRecord(addressOf(uri))).toBeUndefined()

  await enrolled(stratos, moved)
  await stubOf(there, uri)
  await parked(0)
  expect(await there.listRecords(alice.did, postCollection)).toHaveLength(3)
  const [record, ...more] = await there.listRecords(alice.did, enrollmentCollection)
  expect(more).toEqual([])
  expect(record?.value).toMatchObject({ service: stratos.url })
})

test('who moves and does not call is found by what their old PDS refuses', async () => {
  const moved = await migrate(bob, { from: here, to: there })
  await stratos.setBoundaries(bob.did, [])
  await parked(1)
  await expectMoved(bob)

  await enrolled(stratos, moved)
  await eventually('enrollment record without boundaries', async () => {
    const [record] = await there.listRecords(bob.did, enrollmentCollection)
    const boundaries = record?.value['boundaries']
    return Array.isArray(boundaries) && boundaries.length === 0 ? true : undefined
  })
})

/** The session at the old PDS is gone, and the enrollment is at the new one. */
async function expectMoved({ did }: Account): Promise<void> {
  expect(stratos.log).toContain('enrollment.moved')
  await stratos.terminate()
  {
    using sessions = new SavedSessions(stratos.dataFolder)
    expect(sessions.has(did)).toBeFalse()
    expect(sessions.pdsEndpoint(did)).toBe(there.pdsUrl)
  }
  await stratos.run()
}

/** So many people wait for a sign-in. */
async function parked(count: number): Promise<void> {
  await eventually(`outbox with ${count} parked`, async () => {
    const health: unknown = await (await fetch(`${stratos.url}/health`)).json()
    const actors = isFields(health) ? fieldsOf(fieldsOf(health, 'outbox'), 'actors') : {}
    return actors['parked'] === count ? true : undefined
  })
}

async function post(account: Account, text: string): Promise<string> {
  const record = privatePost(text, [stratos.boundary('engineering')])
  const input = { repo: account.did, collection: postCollection, record }
  const answer = await stratos.callAs(account, 'zone.stratos.repo.createRecord', { input })
  expect(answer).toMatchObject({ status: 200 })
  return textOf(answer.body, 'uri')
}

async function stubOf(network: Network, uri: string): Promise<void> {
  await eventually(`stub of ${uri}`, () => network.getRecord(addressOf(uri)))
}
