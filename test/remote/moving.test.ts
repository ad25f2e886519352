import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Did } from '../../src/atproto/syntax.ts'
import type { Identities } from '../../src/remote/identity.ts'
import { OAuthUnavailable, SessionLost } from '../../src/remote/oauth-errors.ts'
import { failureOf } from '../kit/wait.ts'
import { AuthorizationServer } from './authorization-server.ts'
import { loopbackFetch } from './directory.ts'
import { accessTokenOf, Visitor } from './visitor.ts'

let visitor: Visitor
let other: AuthorizationServer
let sessions: Map<Did, string>
let alice: Did

beforeEach(async () => {
  visitor = new Visitor()
  other = new AuthorizationServer()
  ;({ sessions, did: alice } = visitor)
  other.subject = alice
  other.grantedScope = visitor.server.grantedScope
  await visitor.kept()
})

afterEach(async () => {
  await visitor[Symbol.asyncDispose]()
  await other[Symbol.asyncDispose]()
})

/** The account is at the other PDS from now on. */
function move(): void {
  visitor.directory.accounts.set(alice, { pds: other.url, handle: 'alice.test' })
  visitor.clock.ms += 60_000
}

/** Somebody looked the account up. */
async function seen(identities: Identities = visitor.identities): Promise<void> {
  await identities.pdsEndpoint(alice, { fresh: true })
}

function audience(): string {
  return new URL(JSON.parse(sessions.get(alice) ?? '').tokenSet.aud).origin
}

describe('of an account that moved to a PDS with another authorization server', () => {
  test('the session is lost at the next use, though its token would still do', async () => {
    move()
    await seen()
    expect(await failureOf(visitor.use())).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
    expect(visitor.server.revoked).toHaveLength(1)
    expect(visitor.server.tokenCalls).toHaveLength(1)
  })

  test('the session is lost though the old PDS is gone', async () => {
    move()
    await visitor.server[Symbol.asyncDispose]()
    visitor.expire()
    visitor.oauth = visitor.fresh(loopbackFetch)
    // Not known to have moved: the old PDS may come back.
    expect(await failureOf(visitor.use())).toBeInstanceOf(OAuthUnavailable)
    await seen()
    expect(await failureOf(visitor.use())).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
    expect(visitor.log.join()).not.toContain('SECRET')
  })

  test('the session is lost when it is refreshed only to be kept alive', async () => {
    move()
    await seen()
    expect(await failureOf(visitor.oauth.refresh(alice))).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
  })

  test('the session is kept while the new PDS cannot be asked', async () => {
    move()
    await seen()
    await other[Symbol.asyncDispose]()
    expect(await failureOf(visitor.use())).toBeInstanceOf(OAuthUnavailable)
    expect(sessions.size).toBe(1)
  })

  test('a sign-in at the new PDS counts', async () => {
    move()
    await seen()
    await failureOf(visitor.use())
    const pending = await visitor.oauth.callback(other.approve(await visitor.begin()), visitor.take)
    await visitor.keep(pending)
    expect(pending.pdsEndpoint).toBe(other.url)
    await visitor.use()
  })
})

test('with the same authorization server the session goes on at the new PDS', async () => {
  other.issuer = visitor.server.url
  move()
  await visitor.use()
  expect(audience()).toBe(visitor.server.url)
  await seen()
  const before = accessTokenOf(sessions.get(alice))
  await visitor.use()
  expect(audience()).toBe(other.url)
  expect(accessTokenOf(sessions.get(alice))).not.toBe(before)
  // Once is enough.
  await visitor.use()
  expect(visitor.server.tokenCalls).toHaveLength(2)
})

test('a refresh of a session that is not due makes new tokens', async () => {
  const before = accessTokenOf(sessions.get(alice))
  await visitor.oauth.refresh(alice)
  expect(accessTokenOf(sessions.get(alice))).not.toBe(before)
})

test('a refresh without a session says that it is lost', async () => {
  sessions.clear()
  expect(await failureOf(visitor.oauth.refresh(alice))).toBeInstanceOf(SessionLost)
})
