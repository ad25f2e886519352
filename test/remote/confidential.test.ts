import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Did } from '../../src/atproto/syntax.ts'
import { type ClientKey, ClientKeys, generateClientKey } from '../../src/remote/client-keys.ts'
import { OAuthUnavailable, SessionLost } from '../../src/remote/oauth-errors.ts'
import { failureOf } from '../kit/wait.ts'
import type { AuthorizationServer } from './authorization-server.ts'
import { loopbackFetch } from './directory.ts'
import { accessTokenOf, Visitor } from './visitor.ts'

let first: ClientKey
let second: ClientKey
let live: { current: ClientKeys }
let visitor: Visitor
let server: AuthorizationServer
let sessions: Map<Did, string>
let alice: Did

beforeEach(async () => {
  first = await generateClientKey()
  second = await generateClientKey()
  live = { current: await ClientKeys.import([first, second]) }
  visitor = new Visitor(live)
  ;({ server, sessions, did: alice } = visitor)
  server.clientKeys = live.current.published
})

afterEach(async () => {
  await visitor[Symbol.asyncDispose]()
})

/** New sign-ins use the second key from now on. */
async function rotate(): Promise<void> {
  live.current = await ClientKeys.import([second, await generateClientKey(), first])
}

function kid(): string {
  return String(JSON.parse(sessions.get(alice) ?? '').authMethod.kid)
}

test('a client with keys proves itself at every step, and never shows a private key', async () => {
  await visitor.kept()
  visitor.expire()
  await visitor.use()
  await visitor.oauth.revoke(alice)
  expect(server.tokenCalls).toHaveLength(2)
  expect(server.revoked).toHaveLength(1)
  const sent = server.tokenCalls.map((call) => call.toString()).join()
  expect(sent).not.toContain(String(JSON.parse(first.jwk).d))
})

test('a client whose keys the server does not know gets no session', async () => {
  const stranger = await generateClientKey()
  server.clientKeys = (await ClientKeys.import([stranger])).published
  expect(await failureOf(visitor.signIn())).toBeInstanceOf(OAuthUnavailable)
  expect(sessions.size).toBe(0)
})

describe('after a rotation', () => {
  test('a session goes on with the key that it began with, also after a start', async () => {
    await visitor.kept()
    await rotate()
    for (const restarted of [false, true]) {
      if (restarted) visitor.oauth = visitor.fresh(loopbackFetch)
      visitor.expire()
      await visitor.use()
      expect(kid()).toBe(first.kid)
      expect(accessTokenOf(sessions.get(alice))).not.toBe('EXPIRED')
    }
  })

  test('a sign-in uses the new key, which a server with an older copy knows already', async () => {
    await rotate()
    await visitor.kept()
    expect(kid()).toBe(second.kid)
    visitor.expire()
    await visitor.use()
    expect(kid()).toBe(second.kid)
  })

  test('a sign-in that began before it comes to its end', async () => {
    const state = await visitor.begin()
    await rotate()
    const pending = await visitor.oauth.callback(server.approve(state), visitor.take)
    await visitor.keep(pending)
    expect(kid()).toBe(first.kid)
    visitor.expire()
    await visitor.use()
  })

  test('a replaced session of the former key is revoked', async () => {
    const before = await visitor.kept()
    await rotate()
    await visitor.kept()
    expect(server.revoked).toEqual([accessTokenOf(before.saved)])
  })
})

describe('a session is lost and forgotten', () => {
  test('when its key is gone', async () => {
    await visitor.kept()
    live.current = await ClientKeys.import([second])
    visitor.expire()
    expect(await failureOf(visitor.use())).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('when it is of a time without keys, or with them', async () => {
    await using other = new Visitor()
    const earlier = { ...JSON.parse((await other.kept()).saved) }
    earlier.tokenSet = { ...earlier.tokenSet, iss: server.url, aud: `${server.url}/`, sub: alice }
    sessions.set(alice, JSON.stringify(earlier))
    expect(await failureOf(visitor.use())).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)

    const later = JSON.parse((await visitor.signIn()).saved)
    later.tokenSet = { ...later.tokenSet, sub: other.did, iss: other.server.url }
    other.sessions.set(other.did, JSON.stringify(later))
    expect(await failureOf(other.use())).toBeInstanceOf(SessionLost)
    expect(other.sessions.size).toBe(0)
  })
})

test('while a server does not see our keys its sessions are kept', async () => {
  await visitor.kept()
  visitor.expire()
  server.clientKeys = { keys: [] }
  expect(await failureOf(visitor.use())).toBeInstanceOf(OAuthUnavailable)
  expect(sessions.size).toBe(1)
  server.clientKeys = live.current.published
  await visitor.use()
})
