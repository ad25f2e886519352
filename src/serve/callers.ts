import { AccessTokens } from '../api/access-token.ts'
import { AppViews } from '../api/appviews.ts'
import { AuthFailures } from '../api/auth-failures.ts'
import { Browsers, ownOrigins } from '../api/browser.ts'
import { Credentials } from '../api/credentials.ts'
import { Dpop } from '../api/dpop.ts'
import { DpopNonces } from '../api/dpop-nonce.ts'
import { DpopProofs } from '../api/dpop-proof.ts'
import { ServiceAuth } from '../api/service-auth.ts'
import { SessionTokens } from '../api/session-token.ts'
import { StreamCredentials } from '../api/stream-credential.ts'
import type { K256Verifier } from '../atproto/k256.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import type { Base, People } from './people.ts'

export interface Verifiers {
  readonly k256: K256Verifier
}

/**
 * Everything by which a caller proves who they are.
 * @param around.isFollowingItself the index of this process reads as an AppView of the service's DID
 */
export function callersOf(
  parts: Base & People & Verifiers,
  { log, isFollowingItself }: { readonly log: Log; readonly isFollowingItself: boolean },
) {
  const { config, rules, identities, used, tokenSessions } = parts
  const { serviceDid } = rules
  const own = isFollowingItself ? { did: serviceDid, key: parts.key.did } : undefined
  const grants = isFollowingItself
    ? new Map([...config.appViews, [serviceDid, 'all'] as const])
    : config.appViews
  const isKnown = async (did: Did) =>
    grants.has(did) ||
    did === config.modServiceDid ||
    (await parts.enrollments.member(did)) !== undefined
  const authParts = { serviceDid, identities, used, k256: parts.k256, isKnown, now: Date.now }
  const serviceAuth = new ServiceAuth({ ...config, ...authParts, own })
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
  const appViews = new AppViews(grants, { enrollments: parts.enrollments, log })
  const credentials = new Credentials({
    serviceAuth,
    sessions,
    browsers,
    dpop,
    stream: new StreamCredentials({ ...config, serviceAuth, appViews, serviceDid }),
    adminPassword: config.adminPassword,
    modServiceDid: config.modServiceDid,
    appViews,
    devMode: config.devMode,
    failures: authFailures(config),
    now: Date.now,
  })
  return { browsers, credentials, sessions, proofs, dpop, appViews }
}

/** Of one process: all of its doors count together. */
export function authFailures({ authFailuresPerMinute: failuresPerMinute }: Config): AuthFailures {
  return new AuthFailures({ failuresPerMinute, now: Date.now })
}

function dpopProofs({ config, nonceSecret: secret }: Base): DpopProofs {
  const nonces = new DpopNonces({ secret, now: Date.now })
  const { dpopRequireNonce: requireNonce } = config
  return new DpopProofs({ origins: ownOrigins(config), nonces, requireNonce, now: Date.now })
}
