import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import type { Call } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

// Tests of this file run one after the other on what the ones before used up.
const limit = 5
const listDomains = 'zone.stratos.server.listDomains'
const tooMany: Refusal = [429, 'RateLimitExceeded']

let stratos: SeededStratos

beforeAll(async () => {
  const env = { STRATOS_ANONYMOUS_REQUESTS_PER_MINUTE: String(limit) }
  stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
})
afterAll(async () => {
  await stratos?.stop()
})

test('pages, documents, health and preflights are not counted, nor who shows a credential', async () => {
  for (let count = 0; count < limit * 2; count++) await expectFree()
})

test('an address without credentials is answered so many requests a minute', async () => {
  for (let count = 0; count < limit; count++) {
    const { status, headers } = await stratos.call(listDomains)
    expect(status).toBe(200)
    expect(headers.get('ratelimit-limit')).toBeNull()
  }
})

test('and beyond them refused before anything is looked at, and told until when', async () => {
  const calls: [string, Call][] = [
    [listDomains, {}],
    ['zone.stratos.server.noSuchMethod', {}],
    ['no method', {}],
    [listDomains, { verb: 'POST' }],
    ['zone.stratos.repo.getRecord', { params: { repo: 'alice.test' } }],
    ['zone.stratos.repo.createRecord', { input: {}, headers: { 'content-type': 'text/plain' } }],
    ['zone.stratos.admin.listMembers', {}],
    [listDomains, { headers: { 'x-forwarded-for': '192.0.2.1', forwarded: 'for=192.0.2.1' } }],
    [listDomains, { headers: { cookie: 'session=1', 'x-real-ip': '192.0.2.1' } }],
  ]
  for (const [nsid, call] of calls) {
    const answer = await stratos.call(nsid, call)
    expectRefusal(answer, tooMany)
    const { headers } = answer
    expect(Number(headers.get('retry-after'))).toBeWithin(1, 61)
    expect(headers.get('ratelimit-limit')).toBe(String(limit))
    expect(headers.get('ratelimit-remaining')).toBe('0')
    expect(headers.get('ratelimit-policy')).toBe(`${limit};w=60`)
    expect(Number(headers.get('ratelimit-reset')) - Date.now() / 1000).toBeWithin(0, 62)
    expect(headers.get('access-control-allow-origin')).toBe('*')
  }
  expect(stratos.directory.asked).toEqual([])
})

test('and still answered what is not counted', async () => {
  await expectFree()
  const { did } = stratos.person('alice')
  const params = { did }
  const lxm = 'zone.stratos.enrollment.status'
  const token = await serviceToken(stratos.person('alice'), { aud: stratos.did, lxm })
  for (const authorization of [`Bearer ${token}`, stratos.adminBasic]) {
    expect(await stratos.call(lxm, { params, authorization })).toMatchObject({ status: 200 })
  }
  expectRefusal(await stratos.call(lxm, { params, authorization: '' }), [401, 'InvalidToken'])
  expectRefusal(await stratos.call(lxm, { params, authorization: 'Bearer x' }), [
    401,
    'InvalidToken',
  ])
})

test('behind a trusted proxy each client has a number of its own', async () => {
  await stratos.terminate()
  await stratos.run({ STRATOS_TRUSTED_PROXIES: '127.0.0.0/8,::1/128' })
  const ask = (address: string) =>
    stratos.call(listDomains, { headers: { 'x-forwarded-for': address } })
  for (const address of ['192.0.2.1', '192.0.2.2', '2001:db8::1']) {
    for (let count = 0; count < limit; count++) {
      expect(await ask(address)).toMatchObject({ status: 200 })
    }
    expectRefusal(await ask(address), tooMany)
  }
  // A person has a whole network of IPv6, and writes what they like before their own address.
  for (const same of ['2001:db8::2', '2001:db8::ffff:1', '198.51.100.1, 192.0.2.1']) {
    expectRefusal(await ask(same), tooMany)
  }
})

async function expectFree(): Promise<void> {
  const paths = ['/xrpc/_health', '/.well-known/did.json', '/client-metadata.json', '/health', '/']
  for (const path of paths) {
    const response = await fetch(`${stratos.url}${path}`)
    await response.body?.cancel()
    expect(response.status).toBe(200)
  }
  const preflight = await fetch(`${stratos.url}/xrpc/${listDomains}`, { method: 'OPTIONS' })
  expect(preflight.status).toBe(204)
  expect(await stratos.callAs('alice', listDomains)).toMatchObject({ status: 200 })
}
