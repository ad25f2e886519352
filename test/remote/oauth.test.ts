import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid, parseHandle } from '../../src/atproto/syntax.ts'
import { DidNotResolved, PdsEndpointNotFound } from '../../src/remote/identity.ts'
import type { OAuth } from '../../src/remote/oauth.ts'
import {
  HandleNotResolved,
  OAuthCallbackRejected,
  OAuthDenied,
  OAuthUnavailable,
  SessionLost,
} from '../../src/remote/oauth-errors.ts'
import { Pds } from '../../src/remote/pds.ts'
import type { SessionStore } from '../../src/remote/sessions.ts'
import { failureOf as errorOf } from '../kit/wait.ts'
import { AuthorizationServer } from './authorization-server.ts'
import { type Clock, type Directory, loopbackFetch } from './directory.ts'
import { accessTokenOf, scope, Visitor } from './visitor.ts'

let visitor: Visitor
let server: AuthorizationServer
let directory: Directory
let alice: Did
let oauth: OAuth
let sessions: Map<Did, string>
let store: SessionStore
let clock: Clock

beforeEach(() => {
  visitor = new Visitor()
  ;({ server, directory, did: alice, oauth, sessions, store, clock } = visitor)
})

afterEach(async () => {
  await visitor[Symbol.asyncDispose]()
})

describe('a callback is rejected, before its code is used,', () => {
  const changes: [string, (params: URLSearchParams) => void][] = [
    ['without a state', (params) => params.delete('state')],
    ['with a state that nobody was given', (params) => params.set('state', 'forged')],
    ['without an issuer', (params) => params.delete('iss')],
    ['of another issuer', (params) => params.set('iss', 'https://evil.example.com')],
    ['without a code', (params) => params.delete('code')],
    ['with an encrypted response', (params) => params.set('response', 'a.b.c')],
    ['with an error', (params) => params.set('error', 'server_error')],
    [
      'of another issuer with an error',
      (params) => {
        params.set('iss', 'https://evil.example.com')
        params.set('error', 'access_denied')
      },
    ],
  ]
  test.each(changes)('%s', async (_, change) => {
    const params = server.approve(await visitor.begin())
    change(params)
    expect(await errorOf(oauth.callback(params, visitor.take))).toBeInstanceOf(
      OAuthCallbackRejected,
    )
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('when it comes a second time', async () => {
    const params = server.approve(await visitor.begin())
    await oauth.callback(params, visitor.take)
    expect(await errorOf(oauth.callback(params, visitor.take))).toBeInstanceOf(
      OAuthCallbackRejected,
    )
    expect(server.tokenCalls).toHaveLength(1)
  })
})

describe('a callback', () => {
  test('of a person who said no is denied', async () => {
    const params = new URLSearchParams({
      iss: server.url,
      state: await visitor.begin(),
      error: 'access_denied',
    })
    expect(await errorOf(oauth.callback(params, visitor.take))).toBeInstanceOf(OAuthDenied)
  })

  test('with a code that the server does not know is rejected', async () => {
    const params = server.approve(await visitor.begin())
    params.set('code', 'other-SECRET')
    expect(await errorOf(oauth.callback(params, visitor.take))).toBeInstanceOf(
      OAuthCallbackRejected,
    )
  })

  test('for an account of another PDS is rejected, and its tokens are revoked', async () => {
    await using other = new AuthorizationServer()
    server.subject = directory.add({ pds: other.url })
    expect(await errorOf(visitor.signIn())).toBeInstanceOf(OAuthCallbackRejected)
    expect(server.revoked).toEqual([expect.stringContaining('access')])
  })

  test.each([
    ['scope', () => (server.grantedScope = `${scope}${' repo'.repeat(1000)}`)],
    ['session', () => (server.padding = 'x'.repeat(40_000))],
  ])('with a %s of any length is rejected, and its tokens are revoked', async (_, swell) => {
    swell()
    expect(await errorOf(visitor.signIn())).toBeInstanceOf(OAuthCallbackRejected)
    expect(server.revoked.length).toBeGreaterThan(0)
  })

  test('while the server fails is no fault of the person', async () => {
    server.broken = { status: 500, error: 'server_error' }
    expect(await errorOf(visitor.signIn())).toBeInstanceOf(OAuthUnavailable)
    server.broken = { status: 429, error: 'slow_down' }
    expect(await errorOf(visitor.signIn())).toBeInstanceOf(OAuthUnavailable)
    const params = server.approve(await visitor.begin())
    await server[Symbol.asyncDispose]()
    expect(await errorOf(oauth.callback(params, visitor.take))).toBeInstanceOf(OAuthUnavailable)
  })

  test('that fails shows no secret in its error', async () => {
    const errors: unknown[] = []
    const saved: string[] = []
    for (const code of ['code-SECRET', undefined]) {
      const state = await visitor.begin()
      saved.push(state, String(JSON.parse(visitor.states.get(state) ?? '{}').verifier))
      const params = server.approve(state)
      if (code !== undefined) params.set('code', code)
      else server.broken = { status: 400, error: 'code-SECRET and more' }
      errors.push(await errorOf(oauth.callback(params, visitor.take)))
    }
    const shown = errors.map((error) => `${Bun.inspect(error)} ${JSON.stringify(error)}`).join()
    expect(shown).not.toContain('SECRET-')
    expect(shown).not.toContain('code-SECRET')
    for (const secret of saved) expect(shown).not.toContain(secret)
  })

  test('that succeeds tells who, where and what was granted, and stores nothing', async () => {
    const pending = await visitor.signIn()
    expect(pending).toMatchObject({
      did: alice,
      grantedScope: scope,
      pdsEndpoint: server.url,
    })
    expect(sessions.size).toBe(0)
  })
})

describe('a sign-in does not begin', () => {
  test('for what leads to no PDS', async () => {
    const failures: [Parameters<OAuth['authorize']>[0], new (...args: never[]) => Error][] = [
      [parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa'), DidNotResolved],
      [directory.add({}), PdsEndpointNotFound],
      [parseHandle('nobody.test'), HandleNotResolved],
      [directory.add({ pds: 'http://127.0.0.1:1' }), OAuthUnavailable],
      [directory.add({ pds: directory.url }), OAuthUnavailable],
    ]
    for (const [identifier, kind] of failures) {
      const error = await errorOf(oauth.authorize(identifier, async () => undefined))
      expect(error).toBeInstanceOf(kind)
    }
  })

  test('for which there would be too much to store', async () => {
    server.issuer = `${server.url}/${'x'.repeat(20_000)}`
    let length = 0
    const save = async (_: string, saved: string) => void (length = saved.length)
    expect(await errorOf(oauth.authorize(alice, save))).toBeInstanceOf(OAuthUnavailable)
    expect(length).toBe(0)
  })

  test('when its state cannot be stored, and the error is that of the store', async () => {
    const full = new Error('disk full')
    const begun = oauth.authorize(alice, () => Promise.reject(full))
    expect(await errorOf(begun)).toBe(full)
  })
})

test('a sign-in begins at the page of the account, by handle or DID', async () => {
  for (const identifier of [alice, parseHandle('alice.test')]) {
    const url = await oauth.authorize(identifier, async () => undefined)
    expect(`${url.origin}${url.pathname}`).toBe(`${server.url}/authorize`)
    expect(url.searchParams.get('request_uri')).toStartWith('urn:')
  }
})

describe('a new session', () => {
  test('that is discarded is revoked and leaves the older one alone', async () => {
    const first = await visitor.kept()
    const second = await visitor.signIn()
    await second.discard()
    expect(sessions.get(alice)).toBe(first.saved)
    expect(server.revoked).toEqual([accessTokenOf(second.saved)])
  })

  test('that is kept replaces the older one, which is revoked', async () => {
    const first = await visitor.kept()
    const second = await visitor.kept()
    expect(sessions.get(alice)).toBe(second.saved)
    expect(server.revoked).toEqual([accessTokenOf(first.saved)])
  })

  test('whose keeping fails leaves the older one alone', async () => {
    const first = await visitor.kept()
    const second = await visitor.signIn()
    const full = new Error('disk full')
    expect(await errorOf(second.keep(() => Promise.reject(full)))).toBe(full)
    expect(sessions.get(alice)).toBe(first.saved)
    expect(server.revoked).toEqual([])
  })

  test('is kept after a refresh of the older one that is under way', async () => {
    await visitor.kept()
    const second = await visitor.signIn()
    visitor.expire()
    const { promise, resolve } = Promise.withResolvers<void>()
    server.gate = promise
    const using = visitor.use()
    await until(() => server.tokenCalls.length === 3)
    const keeping = visitor.keep(second)
    await Bun.sleep(5)
    expect(sessions.get(alice)).not.toBe(second.saved)
    resolve()
    await Promise.all([using, keeping])
    expect(sessions.get(alice)).toBe(second.saved)
  })
})

describe('a sign-in', () => {
  test('waits for the end of a call that is under way, and its session is kept', async () => {
    server.xrpc = (request) => {
      if (server.accepts(request)) return Response.json({ cid: 'bafy', value: {} })
      const headers = { 'www-authenticate': 'DPoP error="invalid_token"' }
      return Response.json({ error: 'invalid_token' }, { status: 401, headers })
    }
    await visitor.kept()
    const second = await visitor.signIn()
    let keeping: Promise<void> | undefined
    const pds = new Pds({
      did: alice,
      now: clock.now,
      use: (task) =>
        oauth.use(alice, async (session) => {
          keeping ??= visitor.keep(second)
          await Bun.sleep(5)
          return await task(session)
        }),
    })
    const place = { repo: alice, collection: 'zone.stratos.feed.post', rkey: 'a' }
    expect(await pds.getRecord(place)).toEqual({ cid: 'bafy', value: {} })
    await keeping
    expect(sessions.get(alice)).toBe(second.saved)
    expect(await pds.getRecord(place)).toEqual({ cid: 'bafy', value: {} })
  })

  test('waits for the end of the session before it, and is not ended with it', async () => {
    const first = await visitor.kept()
    const second = await visitor.signIn()
    let keeping: Promise<void> | undefined
    await oauth.ending(alice, async (revoke) => {
      keeping = visitor.keep(second)
      await Bun.sleep(5)
      await revoke()
    })
    await keeping
    expect(sessions.get(alice)).toBe(second.saved)
    expect(server.revoked).toEqual([accessTokenOf(first.saved)])
  })

  const broken = ['{"SECRET', '{}', '{"dpopJwk": {}, "tokenSet": {"sub": "SECRET"}}', '']
  test.each(broken)(
    'succeeds over the broken session %p, whose text no log shows',
    async (text) => {
      sessions.set(alice, text)
      const pending = await visitor.kept()
      expect(sessions.get(alice)).toBe(pending.saved)
      expect(visitor.log.join()).not.toContain('SECRET')
    },
  )

  test('succeeds while the session that it replaces cannot be revoked, and a log says so', async () => {
    await visitor.kept()
    const second = await visitor.signIn()
    await server[Symbol.asyncDispose]()
    await visitor.keep(second)
    expect(sessions.get(alice)).toBe(second.saved)
    expect(visitor.log.join()).toContain('replaced session not revoked')
  })
})

describe('a session', () => {
  test('that is not there is lost', async () => {
    expect(await errorOf(visitor.use())).toBeInstanceOf(SessionLost)
  })

  test('whose refresh the server refuses is lost and forgotten', async () => {
    await visitor.kept()
    visitor.expire()
    server.broken = { status: 400, error: 'invalid_grant' }
    expect(await errorOf(visitor.use())).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
  })

  test('of an account that moved to another PDS is lost', async () => {
    await visitor.kept()
    visitor.expire()
    await using other = new AuthorizationServer()
    directory.accounts.set(alice, { pds: other.url })
    clock.ms += 60_000
    expect(await errorOf(visitor.use())).toBeInstanceOf(SessionLost)
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('that has grown without bound by a refresh is not stored, and revoked', async () => {
    await visitor.kept()
    visitor.expire()
    server.padding = 'x'.repeat(40_000)
    expect(await errorOf(visitor.use())).toBeInstanceOf(OAuthUnavailable)
    expect(sessions.get(alice) ?? '').not.toContain(server.padding)
    expect(server.revoked.length).toBeGreaterThan(0)
  })

  test('that cannot be refreshed now is kept', async () => {
    await visitor.kept()
    visitor.expire()
    const before = sessions.get(alice)
    server.broken = { status: 502, error: 'bad_gateway' }
    expect(await errorOf(visitor.use())).toBeInstanceOf(OAuthUnavailable)
    await server[Symbol.asyncDispose]()
    expect(await errorOf(visitor.use())).toBeInstanceOf(OAuthUnavailable)
    expect(sessions.get(alice)).toBe(before)
  })

  test('is not lost because our own store fails', async () => {
    await visitor.kept()
    const broken = new TypeError('no database')
    store.get = () => Promise.reject(broken)
    const error = await errorOf(visitor.use())
    expect(error).not.toBeInstanceOf(SessionLost)
    expect(error).toHaveProperty('cause', broken)
  })

  test('of which the server says nonsense is kept, and the nonsense is not repeated', async () => {
    await visitor.kept()
    visitor.expire()
    const before = sessions.get(alice)
    server.broken = { status: 200, error: 'SECRET' }
    const error = await errorOf(visitor.use())
    expect(error).toBeInstanceOf(OAuthUnavailable)
    expect(Bun.inspect(error)).not.toContain('SECRET')
    expect(sessions.get(alice)).toBe(before)
  })

  test('used by many at once is refreshed once, and stored', async () => {
    await visitor.kept()
    visitor.expire()
    await Promise.all(Array.from({ length: 10 }, () => visitor.use()))
    expect(server.tokenCalls.map((call) => call.get('grant_type'))).toEqual([
      'authorization_code',
      'refresh_token',
    ])
    expect(accessTokenOf(sessions.get(alice))).not.toContain('EXPIRED')
    await visitor.use()
    expect(server.tokenCalls).toHaveLength(2)
  })

  test('that is revoked is forgotten here and there', async () => {
    const { saved } = await visitor.kept()
    await oauth.revoke(alice)
    expect(sessions.size).toBe(0)
    expect(server.revoked).toEqual([accessTokenOf(saved)])
    await oauth.revoke(alice)
  })

  test('that is revoked while the server is down is forgotten here', async () => {
    await visitor.kept()
    oauth = visitor.fresh(loopbackFetch)
    await server[Symbol.asyncDispose]()
    expect(await errorOf(oauth.revoke(alice))).toBeInstanceOf(OAuthUnavailable)
    expect(sessions.size).toBe(0)
  })
})

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(1)
}
