import type { Nsid } from '../atproto/syntax.ts'
import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { createGuardedFetch, type Fetch } from '../remote/fetch.ts'
import { checkHostedMetadata } from '../remote/hosted-client.ts'
import { Identities, type IdentitiesOptions } from '../remote/identity.ts'
import { IssuerKeys } from '../remote/issuer-keys.ts'
import { listBytesMax } from '../remote/list.ts'
import { scopeFor } from '../remote/oauth-client.ts'
import { OAuth } from '../remote/oauth.ts'
import { digestOf, SharedList } from '../remote/shared-list.ts'
import { publicCollections } from '../service/collections.ts'
import type { Eligibility } from '../service/eligibility.ts'
import { ExternalList } from '../service/external-list.ts'
import { ListSource } from '../service/list-source.ts'
import { followMoves } from '../service/moves.ts'
import type { OauthKeys } from '../service/oauth-keys.ts'
import { AllowList } from '../store/allow-list.ts'
import type { ServiceStore } from '../store/service.ts'
import type { Sql } from '../store/sql.ts'

export type Outside = ReturnType<typeof outside>

/** What speaks to other people's servers, all of it through the one guarded fetch. */
export function outside(
  made: {
    readonly config: Config
    readonly collections: readonly Nsid[]
    readonly store: ServiceStore
    readonly keys: OauthKeys | undefined
    readonly eligibility: Eligibility
  },
  log: Log,
) {
  const { config, collections, store, keys, eligibility } = made
  const { privateNetwork, publicUrl, clientName } = config
  const fetch = guardedFetch(config, log)
  const onResolved = followMoves({ store, moved: (did) => eligibility.enforce(did), log })
  const identities = identitiesBy(config, { fetch, onResolved })
  const oauth = new OAuth({
    publicUrl,
    clientName,
    clientId: config.clientId,
    logoUri: config.clientLogoUri,
    tosUri: config.clientTosUri,
    policyUri: config.clientPolicyUri,
    scope: scopeFor(publicCollections(collections)),
    keys,
    fetch,
    identities,
    allowHttp: privateNetwork,
    sessions: {
      get: (did) => store.oauthSession(did),
      set: (did, saved) => store.saveOauthSession(did, saved),
      delete: (did) => store.dropOauthSession(did),
    },
    log,
  })
  if (config.clientId !== '') void checkHostedMetadata(oauth.clientMetadata, { fetch, log })
  const issuerKeys = new IssuerKeys({ fetch, now: Date.now })
  return { identities, oauth, issuerKeys }
}

/** The one way to other people's servers. */
export function guardedFetch({ privateNetwork: allowPrivateNetwork }: Config, log: Log): Fetch {
  return createGuardedFetch({
    allowPrivateNetwork,
    timeoutMs: remoteTimeoutMs,
    responseBytesMax: remoteBytesMax,
    log,
  })
}

/** For whole repos, which take as long as they are large. */
export function wholeRepoFetch(
  { privateNetwork: allowPrivateNetwork }: Pick<Config, 'privateNetwork'>,
  log: Log,
): Fetch {
  return createGuardedFetch({
    allowPrivateNetwork,
    timeoutMs: repoTimeoutMs,
    responseBytesMax: repoBytesMax,
    log,
  })
}

/** Who people are. */
export function identitiesBy(
  { plcUrl, handleResolverUrl }: Config,
  asking: Pick<IdentitiesOptions, 'fetch' | 'onResolved'>,
): Identities {
  const resolver = handleResolverUrl === '' ? {} : { handleResolverUrl }
  return new Identities({ ...asking, ...resolver, plcUrl, now: Date.now })
}

/** The list at somebody else's place, where one is configured and counts. */
export function externalList(config: Config, { sql, log }: { sql: Sql; log: Log }) {
  const { allowListUri: uri, valkeyUrl, enrollmentMode, privateNetwork } = config
  if (uri === '' || enrollmentMode === 'open') return {}
  const fetch = createGuardedFetch({
    allowPrivateNetwork: privateNetwork,
    timeoutMs: listTimeoutMs,
    responseBytesMax: listBytesMax,
  })
  const listId = digestOf(Buffer.from(uri))
  const shared = valkeyUrl === '' ? {} : { shared: new SharedList({ url: valkeyUrl, listId, log }) }
  const source = new ListSource({ uri, fetch, now: Date.now, ...shared })
  const store = new AllowList(sql, listId)
  return { list: new ExternalList({ source, store, log, now: Date.now }) }
}

const remoteTimeoutMs = 10_000
const repoTimeoutMs = 30 * 60_000
const repoBytesMax = 1024 ** 3
/** The largest list, over a line of 10 Mbit/s. */
const listTimeoutMs = 30_000
/** No document, token or record that we ask for comes near. */
const remoteBytesMax = 2 * 1024 * 1024
