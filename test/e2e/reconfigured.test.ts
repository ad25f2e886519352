import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { enrolled } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { addressOf, enrollmentCollection, postCollection, privatePost } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, listOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(120_000)

let network: Network
let stratos: Stratos
let alice: Account
let bob: Account

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering', 'design'] })
  alice = await network.createAccount('alice')
  bob = await network.createAccount('bob')
  for (const account of [alice, bob]) await enrolled(stratos, account)
})

afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

test('stubs that are switched off go, and come back for all records when switched on', async () => {
  const first = await post('one', 'engineering')
  await stubs(1)
  await restart({ STRATOS_STUBS: 'off' })
  await stubs(0)
  const second = await post('two', 'engineering')
  expect(await read(bob, second)).toBe(200)

  await restart({})
  await stubs(2)
  for (const uri of [first, second]) {
    const stub = await network.getRecord(addressOf(uri))
    expect(fieldsOf(fieldsOf(stub?.value ?? {}, 'source'), 'subject')['uri']).toBe(uri)
  }
})

test('boundaries that are no longer published leave the public record, and return to it', async () => {
  await published(['design', 'engineering'])
  await restart({ STRATOS_PUBLISH_BOUNDARIES: 'false' })
  await published(undefined)
  await restart({})
  await published(['design', 'engineering'])
})

test('a boundary that vanishes hides its records, says so, and brings them back', async () => {
  const hidden = await post('of design', 'design')
  expect(await read(bob, hidden)).toBe(200)
  await restart({ STRATOS_ALLOWED_DOMAINS: 'engineering' })
  expect(stratos.log).toContain('boundary.missing')
  expect(await read(bob, hidden)).toBe(404)
  expect(await read(alice, hidden)).toBe(200)
  await published(['engineering'])
  await restart({})
  expect(await read(bob, hidden)).toBe(200)
  await published(['design', 'engineering'])
})

async function restart(env: Readonly<Record<string, string>>): Promise<void> {
  await stratos.terminate()
  await stratos.run(env)
}

async function post(text: string, boundary: string): Promise<string> {
  const record = privatePost(text, [stratos.boundary(boundary)])
  const input = { repo: alice.did, collection: postCollection, record }
  const { body } = await stratos.callAs(alice, 'zone.stratos.repo.createRecord', { input })
  return textOf(body, 'uri')
}

async function read(account: Account, uri: string): Promise<number> {
  const params = addressOf(uri)
  return (await stratos.callAs(account, 'zone.stratos.repo.getRecord', { params })).status
}

async function stubs(count: number): Promise<void> {
  const look = async () => (await network.listRecords(alice.did, postCollection)).length
  await eventually(`${count} stubs`, async () => ((await look()) === count ? true : undefined))
}

/** Until the public record names these; nothing at all where they are undefined. */
async function published(names: readonly string[] | undefined): Promise<void> {
  const wanted = names?.map((name) => stratos.boundary(name))
  await eventually(`record with ${names?.join()}`, async () => {
    const [record] = await network.listRecords(alice.did, enrollmentCollection)
    if (record === undefined) return undefined
    const { value } = record
    const found = 'boundaries' in value ? listOf(value, 'boundaries') : undefined
    return Bun.deepEquals(
      found?.map((one) => one['value']),
      wanted,
    )
      ? true
      : undefined
  })
}
