import {
  NodeOAuthClient,
  type NodeOAuthClientOptions,
  type NodeSavedSession,
  type NodeSavedState,
  type OAuthSession,
  isAtprotoDid,
} from '@atproto/oauth-client-node'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import { type Did, type Handle, isDid, isHandle } from '../atproto/syntax.ts'
import type { Fetch } from './fetch.ts'
import type { Identities } from './identity.ts'
import type { ClientKeys } from './client-keys.ts'
import { type ClientDescription, type ClientMetadata, clientMetadataOf } from './oauth-client.ts'
import {
  HandleNotResolved,
  OAuthCallbackRejected,
  OAuthDenied,
  OAuthUnavailable,
  SessionLost,
  StoreFailed,
  authorizeFailure,
  callbackFailure,
  sessionFailure,
} from './oauth-errors.ts'
import { parseSession, parseState, Slot } from './oauth-saved.ts'
import { bounded } from './session-bounds.ts'
import { type SessionStore, Sessions } from './sessions.ts'

/** A sign-in that succeeded at the PDS and does not count here yet. */
export interface PendingSession {
  readonly did: Did
  readonly grantedScope: string
  /** Origin of the PDS that the session is for. */
  readonly pdsEndpoint: string
  /** What `SessionStore` is to hold from now on. */
  readonly saved: string
  /**
   * Makes it count: runs `persist`, which must put `saved` into the store, while no use of the
   * account's session is under way, and then revokes the session that it replaced.
   * @throws whatever `persist` and the store throw, and nothing else
   */
  keep(persist: () => Promise<void>): Promise<void>
  /** Revokes the new tokens at the PDS, as far as it can be reached. */
  discard(): Promise<void>
}

export interface OAuthOptions extends ClientDescription {
  readonly fetch: Fetch
  readonly identities: Identities
  /** Admits authorization servers on plain http. */
  readonly allowHttp: boolean
  readonly sessions: SessionStore
  /** The keys of this moment, for a service with an https URL. */
  readonly keys?: { readonly current: ClientKeys } | undefined
  readonly log?: Log
}

/**
 * Sessions at the PDSes of people, through which their records there are written.
 *
 * - A sign-in that came back is held apart until `keep`: before that, nothing in the store changes
 *   and an older session stays as it is.
 * - The session of one DID is used by one task at a time, and replaced between two of them: a
 *   refresh token works once, and a token works only with the key of its own session.
 * - No error from here carries a token, a code, a verifier or a key.
 */
export class OAuth {
  /** What `GET /client-metadata.json` answers. */
  readonly clientMetadata: ClientMetadata
  readonly #options: OAuthOptions
  /** Whole uses, by DID. */
  readonly #uses = new Turns<Did>()
  readonly #running = new Set<Promise<unknown>>()
  /** The library's own locks, which it takes within a use. */
  readonly #locks = new Turns<string>()
  readonly #sessions: Sessions
  #kept: Kept | undefined

  /** @throws Error for a public URL that no PDS would take */
  constructor(options: OAuthOptions) {
    this.#options = options
    this.#sessions = new Sessions(options.sessions, options.log)
    this.clientMetadata = clientMetadataOf(options)
    // What no PDS would take is refused here, at the start, and not at the first sign-in.
    this.#keptClient()
  }

  /**
   * Where to send the browser.
   * @param saveState keeps what `callback` will ask for by `takeState`, bound to this browser
   * @throws DidNotResolved, PdsEndpointNotFound, HandleNotResolved, OAuthUnavailable
   */
  async authorize(
    identifier: Did | Handle,
    saveState: (state: string, saved: string) => Promise<void>,
  ): Promise<URL> {
    const states: NodeOAuthClientOptions['stateStore'] = {
      get: async () => undefined,
      set: async (state, value) => {
        const saved = JSON.stringify(value)
        if (saved.length > stateCharsMax) throw new OAuthUnavailable('its name is too long')
        await guarded(() => saveState(state, saved))
      },
      del: async () => undefined,
    }
    const client = this.#client({ states, sessions: new Slot() })
    try {
      const url = await client.authorize(identifier)
      if (url.protocol === 'https:' || this.#options.allowHttp) return url
    } catch (error) {
      throw error instanceof StoreFailed ? error.cause : authorizeFailure(error)
    }
    throw new OAuthUnavailable('its sign-in page is not https')
  }

  /**
   * Turns the parameters that the browser came back with into a session.
   * @param takeState gives what `saveState` kept and forgets it, in one step; nothing for a state
   *   that is unknown, used, too old, or of another browser
   * @throws OAuthDenied, OAuthCallbackRejected, OAuthUnavailable
   */
  async callback(
    params: URLSearchParams,
    takeState: (state: string) => Promise<string | undefined>,
  ): Promise<PendingSession> {
    const state = params.get('state')
    if (state === null) throw new OAuthCallbackRejected('it has no state')
    const taken = await takeState(state)
    if (taken === undefined) throw new OAuthCallbackRejected('its state is unknown or was used')
    const saved = parseState(taken)
    // Of errors too: a server that the person was not sent to has no say.
    if (params.get('iss') !== saved.iss) throw new OAuthCallbackRejected('it is of another issuer')
    if (params.get('error') === 'access_denied') throw new OAuthDenied()

    const states = new Slot<NodeSavedState>(saved)
    const sessions = new Slot<NodeSavedSession>()
    const client = this.#client({ states, sessions })
    try {
      await client.callback(params)
    } catch (error) {
      throw callbackFailure(error)
    }
    assert(sessions.value !== undefined, 'a callback that succeeds leaves a session')
    return this.#pending(sessions.value, client)
  }

  /**
   * Runs a task with the session of an account, refreshed when it is due, or when the account has
   * moved. No other use of it runs meanwhile; the session is not to be used after the task.
   * @throws SessionLost, OAuthUnavailable, and whatever the task throws
   */
  async use<Result>(did: Did, task: (session: OAuthSession) => Promise<Result>): Promise<Result> {
    return await this.#inTurn(did, async () => {
      const session = await this.#unlessLost(did, async (client) =>
        client.restore(did, await this.#when(did, client)),
      )
      return await task(session)
    })
  }

  /**
   * Refreshes a session that may not be due, so that its refresh token lives on.
   * @throws SessionLost, OAuthUnavailable
   */
  async refresh(did: Did): Promise<void> {
    await this.#inTurn(did, () =>
      this.#unlessLost(did, async (client) => {
        await this.#when(did, client)
        await client.restore(did, true)
      }),
    )
  }

  async #inTurn<Result>(did: Did, task: () => Promise<Result>): Promise<Result> {
    const running = this.#uses.run(did, task)
    this.#running.add(running)
    try {
      return await running
    } finally {
      this.#running.delete(running)
    }
  }

  /**
   * Ends the session here, and at the PDS as far as that can be reached.
   * @throws OAuthUnavailable when only the first was done
   */
  async revoke(did: Did): Promise<void> {
    await this.ending(did, (revoke) => revoke())
  }

  /**
   * Runs a task that may end the session, by what it is given, which does as `revoke`. Meanwhile the
   * session is not used, and no sign-in puts another in its place.
   */
  async ending<Result>(
    did: Did,
    task: (revoke: () => Promise<void>) => Promise<Result>,
  ): Promise<Result> {
    const revoke = () => mapped(did, () => this.#keptClient().revoke(did))
    return await this.#uses.run(did, () => task(revoke))
  }

  /**
   * To be called when no further use begins, and before the store closes. A refresh under way is
   * waited for: the token that it spends works once.
   */
  async stop(): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, stopMsMax)
    await Promise.race([Promise.allSettled(this.#running), late])
    clearTimeout(timer)
    await this.#sessions.stop()
  }

  #pending(session: NodeSavedSession, client: NodeOAuthClient): PendingSession {
    const { sub: did, aud, scope } = session.tokenSet
    const saved = JSON.stringify(session)
    assert(isDid(did), 'a session is of a DID')
    return {
      did,
      grantedScope: scope,
      pdsEndpoint: new URL(aud).origin,
      saved,
      keep: async (persist) => {
        const replaced = await this.#uses.run(did, () => this.#sessions.replace(did, persist))
        if (replaced !== undefined && replaced !== saved) await this.#revokeReplaced(did, replaced)
      },
      discard: () => mapped(did, () => client.revoke(did)),
    }
  }

  /** The new session counts by now, so that a failure here is no failure of `keep`. */
  async #revokeReplaced(did: Did, replaced: string): Promise<void> {
    try {
      const sessions = new Slot(parseSession(replaced))
      const client = this.#client({ states: new Slot(), sessions })
      await mapped(did, () => client.revoke(did))
    } catch (error) {
      this.#options.log?.warn('replaced session not revoked', { did, error })
    }
  }

  /** Whose session is lost has none in the store: who is enrolled and has none has lost it. */
  async #unlessLost<T>(did: Did, use: (client: NodeOAuthClient) => Promise<T>): Promise<T> {
    try {
      return await mapped(did, () => use(this.#keptClient()))
    } catch (error) {
      if (error instanceof SessionLost) await guarded(() => this.#sessions.delete(did))
      throw error
    }
  }

  /**
   * Whether a session has to be refreshed for a reason that the library does not look at: it is for
   * another PDS than the account's, as far as we know that. The library notices only when the token
   * expires, and never when the old PDS is gone.
   * @throws SessionLost when a refresh cannot help
   */
  async #when(did: Did, client: NodeOAuthClient): Promise<true | 'auto'> {
    const session = await this.#saved(did)
    if (session === undefined) return 'auto'
    const { tokenSet, authMethod } = session
    // Of a time when this service had another kind of client, and another client id.
    const { token_endpoint_auth_method: method } = this.clientMetadata
    if (authMethod.method !== method) return await this.#giveUp(did, client)
    const pdsEndpoint = this.#options.identities.remembered(did)
    if (pdsEndpoint === undefined || pdsEndpoint === URL.parse(tokenSet.aud)?.origin) return 'auto'
    const { metadata } = await client.oauthResolver.resolveFromIdentity(did, { noCache: true })
    return metadata.issuer === tokenSet.iss ? true : await this.#giveUp(did, client)
  }

  async #giveUp(did: Did, client: NodeOAuthClient): Promise<never> {
    try {
      await mapped(did, () => client.revoke(did))
    } catch (error) {
      this.#options.log?.warn('lost session not revoked', { did, error })
    }
    throw new SessionLost(did)
  }

  /** The client of kept sessions, another one once the keys have changed. */
  #keptClient(): NodeOAuthClient {
    const keys = this.#options.keys?.current
    if (this.#kept === undefined || this.#kept.keys !== keys) {
      const client = this.#client({ states: new Slot(), sessions: this.#durable() })
      this.#kept = { keys, client }
    }
    return this.#kept.client
  }

  #client(stores: {
    readonly states: NodeOAuthClientOptions['stateStore']
    readonly sessions: NodeOAuthClientOptions['sessionStore']
  }): NodeOAuthClient {
    const { fetch, identities, allowHttp, keys } = this.#options
    return new NodeOAuthClient({
      clientMetadata: this.clientMetadata,
      ...(keys === undefined ? {} : { keyset: keys.current.keyset }),
      stateStore: stores.states,
      sessionStore: bounded(stores.sessions),
      requestLock: (name, task) => this.#locks.run(name, async () => task()),
      // Both resolvers of the library would go past our memory, limits and checks.
      identityResolver: {
        resolve: (identifier, options) => identify(identities, identifier, options?.noCache),
      },
      handleResolver: { resolve: async () => null },
      allowHttp,
      // Bun's type of `fetch` has a second function, which nobody calls here.
      fetch: Object.assign(fetch.bind(undefined), { preconnect: () => undefined }),
    })
  }

  #saved(did: Did): Promise<NodeSavedSession | undefined> {
    return guarded(async () => {
      const saved = await this.#sessions.get(did)
      return saved === undefined ? undefined : parseSession(saved)
    })
  }

  #durable(): NodeOAuthClientOptions['sessionStore'] {
    return {
      get: (did) => this.#saved(checkedDid(did)),
      set: (did, session) => this.#sessions.set(checkedDid(did), JSON.stringify(session)),
      del: (did) => guarded(() => this.#sessions.delete(checkedDid(did))),
    }
  }
}

interface Kept {
  readonly keys: ClientKeys | undefined
  readonly client: NodeOAuthClient
}

/** Some 500, and the name of the server. Of strangers' states there are many. */
const stateCharsMax = 8192
/** As long as one exchange with a PDS may take. */
const stopMsMax = 10_000

async function guarded<T>(use: () => Promise<T>): Promise<T> {
  try {
    return await use()
  } catch (error) {
    throw new StoreFailed(error)
  }
}

async function mapped<T>(did: Did, use: () => Promise<T>): Promise<T> {
  try {
    return await use()
  } catch (error) {
    throw sessionFailure(did, error)
  }
}

/** Just what the library needs to know about an account, from documents that we checked. */
async function identify(identities: Identities, identifier: string, fresh = false) {
  const did = isDid(identifier) ? identifier : await resolved(identities, identifier)
  const serviceEndpoint = await identities.pdsEndpoint(did, { fresh })
  assert(isAtprotoDid(did), 'only such DIDs have a document')
  const pds = { id: '#atproto_pds', type: 'AtprotoPersonalDataServer', serviceEndpoint } as const
  return {
    did,
    didDoc: { id: did, service: [pds] },
    // The library hints at the account by DID when it gets this.
    handle: identifier === did ? 'handle.invalid' : identifier,
  }
}

async function resolved(identities: Identities, handle: string): Promise<Did> {
  const did = isHandle(handle) ? await identities.resolveHandle(handle) : undefined
  if (did === undefined) throw new HandleNotResolved(handle)
  return did
}

function checkedDid(sub: string): Did {
  assert(isDid(sub), 'a session is of a DID')
  return sub
}
