import {
  NodeOAuthClient,
  type NodeSavedSession,
  type NodeSavedState,
  type OAuthSession,
} from '@atproto/oauth-client-node'

import { Turns } from '../../src/lib/turns.ts'
import { Browser } from './browser.ts'
import { decide } from './consent.ts'
import type { Account, Network } from './network.ts'

/** An app of somebody else: a public client on loopback, as developers begin with. */
export class OauthApp {
  readonly #client: NodeOAuthClient
  readonly sessions = new Map<string, NodeSavedSession>()

  /** @param scope beside `atproto` */
  constructor({ plcUrl, pdsUrl }: Network, scope: string) {
    const states = new Map<string, NodeSavedState>()
    const turns = new Turns<string>()
    const all = `atproto ${scope}`
    const redirect_uri = 'http://127.0.0.1/callback'
    const query = new URLSearchParams({ redirect_uri, scope: all })
    this.#client = new NodeOAuthClient({
      clientMetadata: {
        client_id: `http://localhost?${query.toString()}`,
        redirect_uris: [redirect_uri],
        scope: all,
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        dpop_bound_access_tokens: true,
      },
      stateStore: {
        get: async (key) => states.get(key),
        set: async (key, value) => void states.set(key, value),
        del: async (key) => void states.delete(key),
      },
      sessionStore: {
        get: async (did) => this.sessions.get(did),
        set: async (did, session) => void this.sessions.set(did, session),
        del: async (did) => void this.sessions.delete(did),
      },
      requestLock: (name, task) => turns.run(name, async () => task()),
      plcDirectoryUrl: plcUrl,
      handleResolver: pdsUrl,
      allowHttp: true,
      fetch: Object.assign(fetch.bind(undefined), { preconnect: () => undefined }),
    })
  }

  /** Walks a person through the sign-in at their PDS. */
  async signIn(account: Account): Promise<OAuthSession> {
    const url = await this.#client.authorize(account.did)
    const callback = await decide(new Browser(), url, { account, decision: 'approve' })
    return (await this.#client.callback(callback.searchParams)).session
  }
}
