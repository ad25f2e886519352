import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid, parseHandle } from '../../src/atproto/syntax.ts'
import type { Fetch } from '../../src/remote/fetch.ts'
import { DidNotResolved, Identities, PdsEndpointNotFound } from '../../src/remote/identity.ts'
import { OAuth, type PendingSession, type SessionStore } from '../../src/remote/oauth.ts'
import {
  HandleNotResolved,
  OAuthCallbackRejected,
  OAuthDenied,
  OAuthUnavailable,
  SessionLost,
} from '../../src/remote/oauth-errors.ts'
import { AuthorizationServer } from './authorization-server.ts'
import { Clock, Directory, loopbackFetch } from './directory.ts'

const scope = 'atproto repo:zone.stratos.actor.enrollment'

let server: AuthorizationServer
let directory: Directory
let alice: Did
let oauth: OAuth
let sessions: Map<Did, string>
let states: Map<string, string>
let store: SessionStore
let clock: Clock

beforeEach(() => {
  server = new AuthorizationServer()
  directory = new Directory()
  alice = directory.add({ pds: server.url, handle: 'alice.test' })
  server.subject = alice
  server.grantedScope = scope
  sessions = new Map()
  states = new Map()
  clock = new Clock()
  store = {
    get: async (did) => sessions.get(did),
    set: async (did, saved) => void sessions.set(did, saved),
    delete: async (did) => void sessions.delete(did),
  }
  oauth = oauthWith(loopbackFetch)
})

afterEach(async () => {
  await server[Symbol.asyncDispose]()
  await directory[Symbol.asyncDispose]()
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
    const params = server.approve(await begin())
    change(params)
    expect(await errorOf(oauth.callback(params, take))).toBeInstanceOf(OAuthCallbackRejected)
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('when it comes a second time', async () => {
    const params = server.approve(await begin())
    await oauth.callback(params, take)
    expect(await errorOf(oauth.callback(params, take))).toBeInstanceOf(OAuthCallbackRejected)
    expect(server.tokenCalls).toHaveLength(1)
  })
})

describe('a callback', () => {
  test('of a person who said no is denied', async () => {
    const params = new URLSearchParams({
      iss: server.url,
      state: await begin(),
      error: 'access_denied',
    })
    expect(await errorOf(oauth.callback(params, take))).toBeInstanceOf(OAuthDenied)
  })

  test('with a code that the server does not know is rejected', async () => {
    const params = server.approve(await begin())
    params.set('code', 'other-SECRET')
    expect(await errorOf(oauth.callback(params, take))).toBeInstanceOf(OAuthCallbackRejected)
  })

  test('for an account of another PDS is rejected, and its tokens are revoked', async () => {
    await using other = new AuthorizationServer()
    server.subject = directory.add({ pds: other.url })
    expect(await callbackError()).toBeInstanceOf(OAuthCallbackRejected)
    expect(server.revoked).toEqual([expect.stringContaining('access')])
  })

  test('while the server fails is no fault of the person', async () => {
    server.broken = { status: 500, error: 'server_error' }
    expect(await callbackError()).toBeInstanceOf(OAuthUnavailable)
    server.broken = { status: 429, error: 'slow_down' }
    expect(await callbackError()).toBeInstanceOf(OAuthUnavailable)
    const params = server.approve(await begin())
    await server[Symbol.asyncDispose]()
    expect(await errorOf(oauth.callback(params, take))).toBeInstanceOf(OAuthUnavailable)
  })

  test('that fails shows no secret in its error', async () => {
    const errors: unknown[] = []
    const saved: string[] = []
    for (const code of ['code-SECRET', undefined]) {
      const state = await begin()
      saved.push(state, String(JSON.parse(states.get(state) ?? '{}').verifier))
      const params = server.approve(state)
      if (code !== undefined) params.set('code', code)
      else server.broken = { status: 400, error: 'code-SECRET and more' }
      errors.push(await errorOf(oauth.callback(params, take)))
    }
    const shown = errors.map((error) => `${Bun.inspect(error)} ${JSON.stringify(error)}`).join()
    expect(shown).not.toContain('SECRET-')
    expect(shown).not.toContain('code-SECRET')
    for (const secret of saved) expect(shown).not.toContain(secret)
  })

  test('that succeeds tells who, where and what was granted, and stores nothing', async () => {
    const pending = await signIn()
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
    const first = await kept()
    const second = await signIn()
    await second.discard()
    expect(sessions.get(alice)).toBe(first.saved)
    expect(server.revoked).toEqual([accessTokenOf(second.saved)])
  })

  test('that is kept replaces the older one, which is revoked', async () => {
    const first = await kept()
    const second = await kept()
    expect(sessions.get(alice)).toBe(second.saved)
    expect(server.revoked).toEqual([accessTokenOf(first.saved)])
  })

  test('whose keeping fails leaves the older one alone', async () => {
    const first = await kept()
    const second = await signIn()
    const full = new Error('disk full')
    expect(await errorOf(second.keep(() => Promise.reject(full)))).toBe(full)
    expect(sessions.get(alice)).toBe(first.saved)
    expect(server.revoked).toEqual([])
  })

  test('is kept after a refresh of the older one that is under way', async () => {
    await kept()
    const second = await signIn()
    expire()
    const { promise, resolve } = Promise.withResolvers<void>()
    server.gate = promise
    const using = oauth.session(alice)
    await until(() => server.tokenCalls.length === 3)
    const keeping = second.keep(async () => void sessions.set(alice, second.saved))
    await Bun.sleep(5)
    expect(sessions.get(alice)).not.toBe(second.saved)
    resolve()
    await Promise.all([using, keeping])
    expect(sessions.get(alice)).toBe(second.saved)
  })
})

describe('a session', () => {
  test('that is not there is lost', async () => {
    expect(await errorOf(oauth.session(alice))).toBeInstanceOf(SessionLost)
  })

  test('whose refresh the server refuses is lost and forgotten', async () => {
    await kept()
    expire()
    server.broken = { status: 400, error: 'invalid_grant' }
    expect(await errorOf(oauth.session(alice))).toBeInstanceOf(SessionLost)
    expect(sessions.size).toBe(0)
  })

  test('of an account that moved to another PDS is lost', async () => {
    await kept()
    expire()
    await using other = new AuthorizationServer()
    directory.accounts.set(alice, { pds: other.url })
    clock.ms += 60_000
    expect(await errorOf(oauth.session(alice))).toBeInstanceOf(SessionLost)
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('that cannot be refreshed now is kept', async () => {
    await kept()
    expire()
    const before = sessions.get(alice)
    server.broken = { status: 502, error: 'bad_gateway' }
    expect(await errorOf(oauth.session(alice))).toBeInstanceOf(OAuthUnavailable)
    await server[Symbol.asyncDispose]()
    expect(await errorOf(oauth.session(alice))).toBeInstanceOf(OAuthUnavailable)
    expect(sessions.get(alice)).toBe(before)
  })

  test('is not lost because our own store fails', async () => {
    await kept()
    const broken = new TypeError('no database')
    store.get = () => Promise.reject(broken)
    const error = await errorOf(oauth.session(alice))
    expect(error).not.toBeInstanceOf(SessionLost)
    expect(error).toHaveProperty('cause', broken)
  })

  test('used by many at once is refreshed once, and stored', async () => {
    await kept()
    expire()
    await Promise.all(Array.from({ length: 10 }, () => oauth.session(alice)))
    expect(server.tokenCalls.map((call) => call.get('grant_type'))).toEqual([
      'authorization_code',
      'refresh_token',
    ])
    expect(accessTokenOf(sessions.get(alice))).not.toContain('EXPIRED')
    await oauth.session(alice)
    expect(server.tokenCalls).toHaveLength(2)
  })

  test('that is revoked is forgotten here and there', async () => {
    const { saved } = await kept()
    await oauth.revoke(alice)
    expect(sessions.size).toBe(0)
    expect(server.revoked).toEqual([accessTokenOf(saved)])
    await oauth.revoke(alice)
  })

  test('that is revoked while the server is down is forgotten here', async () => {
    await kept()
    oauth = oauthWith(loopbackFetch)
    await server[Symbol.asyncDispose]()
    expect(await errorOf(oauth.revoke(alice))).toBeInstanceOf(OAuthUnavailable)
    expect(sessions.size).toBe(0)
  })
})

function oauthWith(fetch: Fetch): OAuth {
  const identities = new Identities({
    plcUrl: directory.url,
    fetch,
    now: clock.now,
    resolveTxt: async (name) => (name === '_atproto.alice.test' ? [[`did=${alice}`]] : []),
  })
  return new OAuth({
    publicUrl: 'http://127.0.0.1:3100',
    clientName: 'Stratos',
    scope,
    fetch,
    identities,
    allowHttp: true,
    sessions: {
      get: (did) => store.get(did),
      set: (did, saved) => store.set(did, saved),
      delete: (did) => store.delete(did),
    },
  })
}

/** Sends a person off, and gives the state that they come back with. */
async function begin(): Promise<string> {
  let given = ''
  await oauth.authorize(alice, async (state, saved) => {
    given = state
    states.set(state, saved)
  })
  return given
}

async function take(state: string): Promise<string | undefined> {
  const saved = states.get(state)
  states.delete(state)
  return saved
}

async function signIn(): Promise<PendingSession> {
  return oauth.callback(server.approve(await begin()), take)
}

async function kept(): Promise<PendingSession> {
  const pending = await signIn()
  await pending.keep(async () => void sessions.set(pending.did, pending.saved))
  return pending
}

async function callbackError(): Promise<unknown> {
  return errorOf(signIn())
}

function expire(): void {
  const session = JSON.parse(sessions.get(alice) ?? '')
  session.tokenSet.expires_at = new Date(0).toISOString()
  session.tokenSet.access_token = 'EXPIRED'
  sessions.set(alice, JSON.stringify(session))
}

function accessTokenOf(saved: string | undefined): string {
  return String(JSON.parse(saved ?? '').tokenSet.access_token)
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(1)
}

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}
