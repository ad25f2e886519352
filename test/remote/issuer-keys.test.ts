import { afterAll, beforeEach, expect, test } from 'bun:test'

import { IssuerKeys, IssuerUnavailable } from '../../src/remote/issuer-keys.ts'
import { failureOf } from '../kit/wait.ts'
import { Clock, loopbackFetch } from './directory.ts'
import { Issuer } from './issuer.ts'

const resource = '/.well-known/oauth-protected-resource'
const metadata = '/.well-known/oauth-authorization-server'
const jwks = '/oauth/jwks'

const server = await Issuer.open()
const { url } = server
let clock: Clock
let keys: IssuerKeys

beforeEach(async () => {
  server.answers.clear()
  server.asked.length = 0
  server.issuer = url
  await server.rotate('first')
  clock = new Clock()
  keys = new IssuerKeys({ fetch: loopbackFetch, now: clock.now })
})
afterAll(() => server[Symbol.asyncDispose]())

test.each<[string, unknown]>([
  ['another resource', { resource: 'https://other.test', authorization_servers: [url] }],
  ['no resource', { authorization_servers: [url] }],
  ['no server', { resource: url }],
  ['no server in the list', { resource: url, authorization_servers: [] }],
  ['two servers', { resource: url, authorization_servers: [url, 'https://other.test'] }],
  ['a server with a path', { resource: url, authorization_servers: [`${url}/a`] }],
  ['a server with a slash', { resource: url, authorization_servers: [`${url}/`] }],
  ['a server of another scheme', { resource: url, authorization_servers: ['file:///etc'] }],
  ['a server that is no text', { resource: url, authorization_servers: [{}] }],
  ['a list', [url]],
  ['nothing', null],
])('a PDS that names %s has no issuer', async (_, answer) => {
  server.answers.set(resource, () => Response.json(answer))
  expect(await failureOf(keys.issuerOf(url))).toBeInstanceOf(IssuerUnavailable)
})

test.each<[string, unknown]>([
  ['of another name', { issuer: 'https://other.test', jwks_uri: `${url}${jwks}` }],
  ['of no name', { jwks_uri: `${url}${jwks}` }],
  ['with its keys at another place', { issuer: url, jwks_uri: 'http://127.0.0.1:1/jwks' }],
  ['with its keys in itself', { issuer: url, jwks_uri: 'data:application/json,{"keys":[]}' }],
  ['with keys at no URL', { issuer: url, jwks_uri: 5 }],
])('an authorization server %s has no keys', async (_, answer) => {
  server.answers.set(metadata, () => Response.json(answer))
  expect(await failureOf(keys.keysOf(url))).toBeInstanceOf(IssuerUnavailable)
  expect(server.asked).not.toContain(jwks)
})

test.each<[string, () => Response]>([
  ['an error', () => new Response(null, { status: 500 })],
  ['a redirect', () => Response.redirect(`${url}/elsewhere`)],
  ['text', () => new Response('{"keys": [')],
  ['no list', () => Response.json({ keys: {} })],
  ['too many keys', () => Response.json({ keys: Array(11).fill(server.published('a')) })],
  ['too much', () => new Response(' '.repeat(70_000))],
])('keys that arrive as %s are none, for a minute', async (_, answer) => {
  server.answers.set(jwks, answer)
  expect(await failureOf(keys.keysOf(url))).toBeInstanceOf(IssuerUnavailable)
  server.answers.clear()
  server.asked.length = 0
  clock.ms += 59_999
  expect(await failureOf(keys.keysOf(url))).toBeInstanceOf(IssuerUnavailable)
  expect(server.asked).toEqual([])
  clock.ms += 1
  expect(await keys.keysOf(url)).toHaveLength(1)
})

test('keys that cannot verify here are left out', async () => {
  const { kty, crv, x } = server.published('first')
  const others = [
    { kty: 'RSA', n: 'AAAA', e: 'AQAB' },
    { kty: 'oct', k: 'AAAA' },
    { kty, crv, x, y: x },
    { ...server.published('first'), d: 'AAAA' },
    { ...server.published('first'), use: 'enc' },
    null,
    'key',
  ]
  server.answers.set(jwks, () => Response.json({ keys: [...others, server.published('good')] }))
  expect((await keys.keysOf(url)).map(({ kid }) => kid)).toEqual(['good'])
})

test('a server without keys signs by a secret, as most do', async () => {
  server.answers.set(metadata, () => Response.json({ issuer: url }))
  expect(await keys.keysOf(url)).toEqual([])
})

test('an answer counts for five minutes, also for many who ask at once', async () => {
  const asking = Array.from({ length: 20 }, () => keys.keysOf(url))
  for (const answer of await Promise.all(asking)) expect(answer).toHaveLength(1)
  expect(await keys.issuerOf(url)).toBe(url)
  expect(server.asked).toEqual([metadata, jwks, resource])
  clock.ms += 5 * 60_000 - 1
  await keys.keysOf(url)
  expect(server.asked).toHaveLength(3)
  clock.ms += 1
  await keys.keysOf(url)
  expect(server.asked).toHaveLength(5)
})

test('what must be fresh is asked for once a minute, however it ends', async () => {
  await keys.keysOf(url)
  await server.rotate('second')
  const kids = async () => (await keys.keysOf(url, { fresh: true })).map(({ kid }) => kid)
  expect(await kids()).toEqual(['second'])
  await server.rotate('third')
  clock.ms += 59_999
  expect(await kids()).toEqual(['second'])
  clock.ms += 1
  server.answers.set(jwks, () => new Response(null, { status: 500 }))
  // Strangers may cause such look-ups: one that fails takes nothing away.
  expect(await kids()).toEqual(['second'])
  server.answers.clear()
  expect(await kids()).toEqual(['second'])
  clock.ms += 60_000
  expect(await kids()).toEqual(['third'])
})

test('only so many servers are asked at a time', async () => {
  const gate = Promise.withResolvers<Response>()
  const asked: string[] = []
  const fetch = (input: string | URL | Request) => {
    asked.push(input instanceof Request ? input.url : String(input))
    return gate.promise
  }
  const slow = new IssuerKeys({ fetch, now: clock.now })
  const asking = Array.from({ length: 40 }, (_, index) =>
    failureOf(slow.issuerOf(`https://pds-${index}.test`)),
  )
  const refused = await Promise.race(asking)
  expect(refused).toBeInstanceOf(IssuerUnavailable)
  gate.resolve(new Response(null, { status: 500 }))
  await Promise.all(asking)
  expect(asked).toHaveLength(32)
})
