import { AccessTokens } from '../api/access-token.ts'
import { Account } from '../api/account.ts'
import { AnonymousTraffic } from '../api/anonymous.ts'
import { AppViews } from '../api/appviews.ts'
import { boundKeyMethods } from '../api/bound-keys.ts'
import { Browsers, ownOrigins } from '../api/browser.ts'
import { Credentials } from '../api/credentials.ts'
import { publicDocuments } from '../api/documents.ts'
import { Dpop } from '../api/dpop.ts'
import { DpopNonces } from '../api/dpop-nonce.ts'
import { DpopProofs } from '../api/dpop-proof.ts'
import { hydrateMethods } from '../api/hydrate.ts'
import { membershipMethods } from '../api/membership.ts'
import { oauthKeyMethods } from '../api/oauth-key.ts'
import { SignIn } from '../api/oauth.ts'
import { operatorMethods } from '../api/operator.ts'
import { repoMethods } from '../api/repo.ts'
import { Scopes } from '../api/scope.ts'
import { Server } from '../api/server.ts'
import { ServiceAuth } from '../api/service-auth.ts'
import { sessionMethods } from '../api/session.ts'
import { SessionTokens } from '../api/session-token.ts'
import { syncMethods } from '../api/sync.ts'
import { takedownMethods } from '../api/takedown.ts'
import { methodTable, Xrpc } from '../api/xrpc.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { scopeFor } from '../remote/oauth-client.ts'
import { publicCollections } from '../service/collections.ts'
import { WriteRate } from '../service/write-rate.ts'
import type { Base, People } from './people.ts'

/** Everything that may be asked for from outside. */
export function doors(
  parts: Base & People,
  { log, version }: { readonly log: Log; readonly version: string },
): Server {
  const { config, rules, schemas, identities, oauth, used, tokenSessions } = parts
  const { serviceDid } = rules
  const serviceAuth = new ServiceAuth({ ...config, serviceDid, identities, used, now: Date.now })
  const sessions = new SessionTokens({
    ...parts,
    serviceDid,
    sessions: tokenSessions,
    now: Date.now,
  })
  const browsers = new Browsers({ ...parts, log })
  const proofs = dpopProofs(parts)
  const tokens = new AccessTokens({ ...parts, serviceDid, now: Date.now })
  const dpop = new Dpop({ ...parts, proofs, tokens, now: Date.now })
  const credentials = new Credentials({
    serviceAuth,
    sessions,
    browsers,
    dpop,
    adminPassword: config.adminPassword,
    modServiceDid: config.modServiceDid,
    appViews: new AppViews(config.appViews, { enrollments: parts.enrollments, log }),
    devMode: config.devMode,
    failuresPerMinute: config.authFailuresPerMinute,
    now: Date.now,
  })
  const methods = methodTable(schemas, {
    ...repoMethods({ ...parts, wantsStubs: config.stubs === 'full', writes: writeRate(config) }),
    ...hydrateMethods(parts),
    ...membershipMethods({ ...parts, boundaries: config.boundaries }),
    ...operatorMethods({ ...parts, boundaries: config.boundaries }),
    ...syncMethods(parts),
    ...oauthKeyMethods(parts),
    ...takedownMethods({ ...parts, log }),
    ...sessionMethods({ ...parts, tokens: sessions, now: Date.now, log }),
    ...boundKeyMethods({ ...parts, proofs, dpop }),
  })
  const anonymous = new AnonymousTraffic({
    requestsPerMinute: config.anonymousRequestsPerMinute,
    now: Date.now,
  })
  const { devMode: checkOutput } = config
  const scopes = new Scopes(rules)
  const xrpc = new Xrpc({ methods, schemas, credentials, scopes, anonymous, log, checkOutput })
  const scope = scopeFor(publicCollections(parts.collections))
  const signIn = new SignIn({ ...parts, browsers, scope, log })
  const leave = (did: Did, requestId: string) => parts.enrollments.unenroll(did, requestId)
  const account = new Account({ ...parts, browsers, credentials, scopes, scope, leave, log })
  const clientKeys = () => parts.keys?.current.published ?? { keys: [] }
  const { clientMetadata } = oauth
  const documents = publicDocuments({ ...parts, clientMetadata, clientKeys })
  const components = () => ({ outbox: parts.outbox.counts(), stubs: parts.stubs.progress() })
  return new Server({
    config,
    version,
    xrpc,
    signIn,
    account,
    documents,
    components,
    dpopNonce: () => proofs.nonce,
    log,
  })
}

function dpopProofs({ config, nonceSecret: secret }: Base): DpopProofs {
  const nonces = new DpopNonces({ secret, now: Date.now })
  const { dpopRequireNonce: requireNonce } = config
  return new DpopProofs({ origins: ownOrigins(config), nonces, requireNonce, now: Date.now })
}

function writeRate(config: Config): WriteRate {
  const rules = {
    limit: config.writeRateMax,
    unit: config.writeRatePoints ? 'points' : 'writes',
    windowMs: config.writeRateWindowMs,
    cooldownMs: config.writeRateCooldownMs,
  } as const
  return new WriteRate(rules, { now: () => performance.now(), random: Math.random })
}
