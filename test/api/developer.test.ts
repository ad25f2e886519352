import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { postCollection, privatePost } from '../kit/post.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import type { Call } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const invalid: Refusal = [401, 'InvalidToken']
const createRecord = 'zone.stratos.repo.createRecord'
const listRecords = 'zone.stratos.repo.listRecords'

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

const badHeaders: Record<string, Record<string, string>> = {
  'for another host': { host: 'stratos.example.com' },
  'for a host whose name begins like loopback': { host: 'localhost.example.com' },
  'for a host whose name begins like an address': { host: '127.0.0.1.example.com' },
  'for another address': { host: '192.0.2.1' },
  'for any address': { host: '0.0.0.0' },
  'through a proxy that says Forwarded': { forwarded: 'for=192.0.2.1' },
  'through a proxy that says Forwarded, of nobody': { forwarded: '' },
  'through a proxy that says Via': { via: '1.1 proxy' },
  'through a proxy that says X-Forwarded-For': { 'x-forwarded-for': '127.0.0.1' },
  'through a proxy that says X-Forwarded-Host': { 'x-forwarded-host': 'localhost' },
  'through a proxy that says X-Forwarded-Proto': { 'x-forwarded-proto': 'http' },
  'through a proxy that says X-Real-IP': { 'x-real-ip': '127.0.0.1' },
  'from a page elsewhere': { origin: 'https://app.example.com' },
  'from a page without an origin': { origin: 'null' },
  'from a page whose host begins like loopback': { origin: 'http://localhost.example.com' },
  'from a page behind a user name': { origin: 'http://localhost@example.com' },
}

describe('the development bearer is refused', () => {
  test.each(Object.entries(badHeaders))('%s', async (_, headers) => {
    await expectNoChange(stratos, invalid, () => write({ headers }))
    expectRefusal(await list({ headers }), invalid)
  })

  test.each(['did:', 'did:plc', 'did:plc:', 'did:PLC:abc', 'did:plc:abc#atproto', 'did:plc:a b'])(
    'with %j for a DID',
    async (did) => {
      const call = { authorization: `Bearer ${did}` }
      await expectNoChange(stratos, invalid, () => write(call))
      expectRefusal(await list(call), invalid)
    },
  )

  const twice: Record<string, (bearer: string) => readonly string[]> = {
    'beside itself': (bearer) => [`Authorization: ${bearer}`],
    'beside another credential': () => ['Authorization: Bearer no-token'],
    'from two pages': () => ['Origin: http://localhost', 'Origin: https://app.example.com'],
  }
  test.each(Object.entries(twice))('%s', async (_, more) => {
    const { did, bearer } = stratos.person('alice')
    const query = new URLSearchParams({ repo: did, collection: postCollection })
    const given = ['Host: localhost', `Authorization: ${bearer}`, ...more(bearer)]
    for (const order of [given, given.toReversed()]) {
      const head = [`GET /xrpc/${listRecords}?${query.toString()} HTTP/1.1`, ...order]
      const answer = await sendRaw(
        stratos.port,
        [...head, 'Connection: close', '', ''].join('\r\n'),
      )
      expect(answer).toStartWith('HTTP/1.1 401 ')
      expect(answer).toContain('{"error":"InvalidToken",')
    }
  })
})

test.each([
  {},
  { host: 'localhost' },
  { host: '127.0.0.1:80' },
  { host: '[::1]:3100' },
  { origin: 'http://localhost:5173' },
  { origin: 'http://127.0.0.1:1' },
  { origin: 'http://[::1]:8080' },
])('the development bearer counts on loopback, with %j', async (headers) => {
  expect(await write({ headers })).toMatchObject({ status: 200 })
  expect((await list({ headers })).headers.get('atproto-repo-rev')).not.toBeNull()
})

test('only the development bearer minds the way it came', async () => {
  const { did } = stratos
  const token = await serviceToken(stratos.person('alice'), { aud: did, lxm: listRecords })
  for (const headers of Object.values(badHeaders)) {
    const answer = await list({ headers, authorization: `Bearer ${token}` })
    expect(answer).toMatchObject({ status: 200 })
  }
})

test('outside development mode a DID is nobody, and tokens count as before', async () => {
  expect(await stratos.terminate()).toBe(0)
  await stratos.run({ STRATOS_DEV_MODE: 'false' })
  await expectNoChange(stratos, invalid, () => write({}))
  expectRefusal(await list({}), invalid)
  const alice = stratos.person('alice')
  const token = await serviceToken(alice, { aud: stratos.did, lxm: createRecord })
  expect(await write({ authorization: `Bearer ${token}` })).toMatchObject({ status: 200 })
})

function write(call: Call) {
  const { did, bearer } = stratos.person('alice')
  const record = privatePost('written', [stratos.boundary('a')])
  return stratos.call(createRecord, {
    authorization: bearer,
    ...call,
    input: { repo: did, collection: postCollection, record },
  })
}

function list(call: Call) {
  const { did, bearer } = stratos.person('alice')
  return stratos.call(listRecords, {
    authorization: bearer,
    ...call,
    params: { repo: did, collection: postCollection },
  })
}
