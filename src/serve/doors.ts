import { Account } from '../api/account.ts'
import { AnonymousTraffic } from '../api/anonymous.ts'
import type { AppViews } from '../api/appviews.ts'
import { BlobContent } from '../api/blob-content.ts'
import { BlobLinks } from '../api/blob-links.ts'
import { blobMethods } from '../api/blobs.ts'
import { boundKeyMethods } from '../api/bound-keys.ts'
import { appViewEntry, publicDocuments } from '../api/documents.ts'
import { hydrateMethods } from '../api/hydrate.ts'
import { importMethods } from '../api/import.ts'
import { membershipMethods } from '../api/membership.ts'
import { oauthKeyMethods } from '../api/oauth-key.ts'
import { SignIn } from '../api/oauth.ts'
import { operatorMethods } from '../api/operator.ts'
import { documentPages, ownPages } from '../api/own-pages.ts'
import { proofMethods } from '../api/proof.ts'
import { repoOpsMethods } from '../api/repo-ops.ts'
import { repoStatusMethods } from '../api/repo-status.ts'
import { repoMethods } from '../api/repo.ts'
import { Scopes } from '../api/scope.ts'
import { Server } from '../api/server.ts'
import { sessionMethods } from '../api/session.ts'
import { streamMethods } from '../api/stream.ts'
import { syncMethods } from '../api/sync.ts'
import { takedownMethods } from '../api/takedown.ts'
import { methodTable, Xrpc } from '../api/xrpc.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { scopeFor } from '../remote/oauth-client.ts'
import { publicCollections } from '../service/collections.ts'
import { WriteRate } from '../service/write-rate.ts'
import { Following } from '../stream/following.ts'
import { Streams } from '../stream/streams.ts'
import type { Feeds } from './appview.ts'
import { callersOf, type Verifiers } from './callers.ts'
import type { Base, People } from './people.ts'

/** Everything that may be asked for from outside. */
export function doors(
  parts: Base & People & Verifiers,
  around: {
    readonly log: Log
    readonly version: string
    /** Undefined in a service without an index. */
    readonly feeds?: Feeds | undefined
  },
): Server {
  const { log, version, feeds } = around
  const { config, rules, schemas, oauth } = parts
  const isFollowingItself = feeds !== undefined
  const { browsers, credentials, ...callers } = callersOf(parts, { log, isFollowingItself })
  const wantsStubs = config.stubs === 'full'
  const writing = { ...parts, wantsStubs, writes: writeRate(config) }
  const following = new Following(parts.follow)
  const streams = streamsOver(parts, log)
  const content = new BlobContent({ ...parts, log })
  const links = blobLinks(parts, { content, appViews: callers.appViews })
  const methods = methodTable(schemas, {
    ...repoMethods(writing),
    ...importMethods({ ...writing, log }),
    ...blobMethods({ ...parts, content, links, log }),
    ...hydrateMethods(parts),
    ...membershipMethods({ ...parts, boundaries: config.boundaries }),
    ...operatorMethods({ ...parts, boundaries: config.boundaries }),
    ...syncMethods(parts),
    ...proofMethods({ ...parts, wantsStubs }),
    ...repoStatusMethods(parts),
    ...repoOpsMethods(parts),
    ...streamMethods({ ...parts, following, streams, log }),
    ...oauthKeyMethods(parts),
    ...takedownMethods({ ...parts, log }),
    ...sessionMethods({ ...parts, tokens: callers.sessions, now: Date.now, log }),
    ...boundKeyMethods({ ...parts, ...callers }),
    ...feeds?.methods,
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
  const services = feeds === undefined ? [] : [appViewEntry(config.publicUrl)]
  const documents = publicDocuments({ ...parts, clientMetadata, clientKeys, services })
  const components = () => ({
    outbox: parts.outbox.counts(),
    stubs: parts.stubs.progress(),
    streams: streams.counts(),
    ...(feeds === undefined ? {} : { index: feeds.state }),
  })
  return new Server({
    config,
    version,
    xrpc,
    pages: [...ownPages({ config, signIn, account, links, log }), ...documentPages(documents)],
    bodyBytesMax: Math.max(config.importBytesMax, config.blobBytesMax),
    components,
    endStreams: () => streams.stop(),
    dpopNonce: () => callers.proofs.nonce,
    log,
  })
}

function streamsOver({ store, takedowns, tokenSessions, boundKeys }: Base, log: Log): Streams {
  const changes = () => store.writes + takedowns.writes + tokenSessions.writes + boundKeys.writes
  return new Streams({ changes, log })
}

function blobLinks(
  { config, blobSecret: secret }: Base,
  made: { readonly content: BlobContent; readonly appViews: AppViews },
): BlobLinks {
  return new BlobLinks({ ...made, secret, publicUrl: config.publicUrl, now: Date.now })
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
