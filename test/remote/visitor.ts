import type { Did } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import type { ClientKeys } from '../../src/remote/client-keys.ts'
import type { Fetch } from '../../src/remote/fetch.ts'
import { Identities } from '../../src/remote/identity.ts'
import { OAuth, type PendingSession } from '../../src/remote/oauth.ts'
import type { SessionStore } from '../../src/remote/sessions.ts'
import { AuthorizationServer } from './authorization-server.ts'
import { Clock, Directory, loopbackFetch } from './directory.ts'

export const scope = 'atproto repo:zone.stratos.actor.enrollment'

/** Somebody with a PDS of their own, who signs in here. */
export class Visitor implements AsyncDisposable {
  readonly server = new AuthorizationServer()
  readonly directory = new Directory()
  readonly clock = new Clock()
  readonly did: Did
  readonly states = new Map<string, string>()
  readonly sessions = new Map<Did, string>()
  /** Nothing can be stored while it is. */
  diskFull = false
  readonly store: SessionStore = {
    get: async (did) => this.sessions.get(did),
    set: async (did, saved) => {
      if (this.diskFull) throw new Error('disk full')
      this.sessions.set(did, saved)
    },
    delete: async (did) => void this.sessions.delete(did),
  }
  readonly log: string[] = []
  readonly keys: { readonly current: ClientKeys } | undefined
  /** Those of `oauth`. */
  identities: Identities
  oauth: OAuth

  /** @param keys of a client that has some, and an https URL with that */
  constructor(keys?: { readonly current: ClientKeys }) {
    this.keys = keys
    this.did = this.directory.add({ pds: this.server.url, handle: 'alice.test' })
    this.server.subject = this.did
    this.server.grantedScope = scope
    this.identities = this.#identities(loopbackFetch)
    this.oauth = this.fresh(loopbackFetch)
  }

  /** As after a start of the process, without any memory. */
  fresh(fetch: Fetch): OAuth {
    this.identities = this.#identities(fetch)
    return new OAuth({
      publicUrl: this.keys === undefined ? 'http://127.0.0.1:3100' : 'https://stratos.test',
      keys: this.keys,
      clientName: 'Stratos',
      scope,
      fetch,
      identities: this.identities,
      allowHttp: true,
      sessions: {
        get: (did) => this.store.get(did),
        set: (did, saved) => this.store.set(did, saved),
        delete: (did) => this.store.delete(did),
      },
      log: createLog('info', (line) => void this.log.push(line)),
    })
  }

  #identities(fetch: Fetch): Identities {
    return new Identities({
      plcUrl: this.directory.url,
      fetch,
      now: this.clock.now,
      resolveTxt: async (name) => (name === '_atproto.alice.test' ? [[`did=${this.did}`]] : []),
    })
  }

  /** Sends the person off, and gives the state that they come back with. */
  async begin(): Promise<string> {
    let given = ''
    await this.oauth.authorize(this.did, async (state, saved) => {
      given = state
      this.states.set(state, saved)
    })
    return given
  }

  readonly take = async (state: string): Promise<string | undefined> => {
    const saved = this.states.get(state)
    this.states.delete(state)
    return saved
  }

  async signIn(): Promise<PendingSession> {
    return this.oauth.callback(this.server.approve(await this.begin()), this.take)
  }

  async keep(pending: PendingSession): Promise<void> {
    await pending.keep(async () => void this.sessions.set(pending.did, pending.saved))
  }

  async kept(): Promise<PendingSession> {
    const pending = await this.signIn()
    await this.keep(pending)
    return pending
  }

  /** Whether there is a session to use, refreshed if it has to be. */
  async use(): Promise<void> {
    await this.oauth.use(this.did, async () => undefined)
  }

  /** Makes the next use refresh what is stored. */
  expire(): void {
    const session = JSON.parse(this.sessions.get(this.did) ?? '')
    session.tokenSet.expires_at = new Date(0).toISOString()
    session.tokenSet.access_token = 'EXPIRED'
    this.sessions.set(this.did, JSON.stringify(session))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.oauth.stop()
    await this.server[Symbol.asyncDispose]()
    await this.directory[Symbol.asyncDispose]()
  }
}

export function accessTokenOf(saved: string | undefined): string {
  return String(JSON.parse(saved ?? '').tokenSet.access_token)
}
