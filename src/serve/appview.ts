import { hkdfSync } from 'node:crypto'
import { AnonymousTraffic } from '../api/anonymous.ts'
import { appViewDocuments, appViewFragment } from '../api/documents.ts'
import { documentPages } from '../api/own-pages.ts'
import { Server } from '../api/server.ts'
import { ServiceAuth } from '../api/service-auth.ts'
import { Viewers } from '../api/viewers.ts'
import { type Method, methodTable, Xrpc } from '../api/xrpc.ts'
import { Authors } from '../appview/authors.ts'
import { FeedCursors } from '../appview/cursor.ts'
import { type FeedMethod, feedMethods } from '../appview/feed.ts'
import { IndexReads } from '../appview/index-reads.ts'
import { type IndexState, IndexWatch } from '../appview/index-watch.ts'
import { MemberQuestions } from '../appview/member.ts'
import { fastestK256 } from '../atproto/k256.ts'
import type { ServiceKey } from '../atproto/keys.ts'
import { Schemas } from '../atproto/lexicon.ts'
import { schemaDocs } from '../atproto/schemas.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import { type Config, ConfigError } from '../config.ts'
import { assert } from '../lib/assert.ts'
import { makeFolder } from '../lib/files.ts'
import type { Log } from '../lib/log.ts'
import type { Identities } from '../remote/identity.ts'
import { authFailures } from './callers.ts'
import { guardedFetch, identitiesBy } from './outside.ts'
import { ownKey } from './stores.ts'

/** Answers feeds from an index, under an identity of its own, until it is stopped. */
export async function serveAppView(
  config: Config,
  { log, version }: { readonly log: Log; readonly version: string },
): Promise<{ stop(): Promise<void> }> {
  checkConfig(config)
  for (const warning of config.warnings) log.warn('config', { warning })
  if (config.signingKeyHex === '') makeFolder(config.dataDir)
  const key = ownKey(config)
  const did = parseDid(config.serviceDid)
  const identities = identitiesBy(config, { fetch: guardedFetch(config, log) })
  const feeds = openFeeds({ config, identities, key, log })
  const schemas = new Schemas(schemaDocs)
  const xrpc = new Xrpc({
    methods: methodTable(schemas, feeds.methods),
    schemas,
    credentials: viewers(config, { did, identities, feeds }),
    anonymous: new AnonymousTraffic({
      requestsPerMinute: config.anonymousRequestsPerMinute,
      now: Date.now,
    }),
    log,
    checkOutput: config.devMode,
  })
  const { publicUrl } = config
  const server = new Server({
    config,
    version,
    xrpc,
    pages: documentPages(appViewDocuments({ did, publicUrl, key })),
    bodyBytesMax: 0,
    components: () => ({ index: feeds.state }),
    readiness: () => ({
      isReady: feeds.state.state === 'well',
      details: { index: feeds.state },
    }),
    log,
  })
  server.listen()
  log.info('started', { version, url: publicUrl, did, serves: 'feeds' })
  return {
    stop: async () => {
      await server.drain()
      await feeds.stop()
    },
  }
}

/** Feeds as methods for whoever has a door for them. */
export interface Feeds {
  readonly methods: Readonly<Record<string, Method>>
  /** For the operator. */
  readonly state: IndexState
  /** Whether somebody who has proven nothing yet is enrolled with any service of the index. */
  isMember(did: Did): Promise<boolean>
  /** The index is elsewhere, or nowhere, from now on. */
  use(url: string | undefined): void
  stop(): Promise<void>
}

/**
 * Feeds over the index of the configuration. They are there before the index is, and refused until
 * then. In a service they are called under its DID, and take its service-auth tokens alone.
 * @param made.key from which the secret of cursors is derived: processes of one key share cursors
 */
export function openFeeds(made: {
  readonly config: Pick<Config, 'indexPostgresUrl'>
  readonly identities: Identities
  readonly key: ServiceKey
  readonly log: Log
}): Feeds {
  const { identities, log } = made
  const { indexPostgresUrl } = made.config
  // Until somebody says where it is.
  const url = indexPostgresUrl === '' ? undefined : indexPostgresUrl
  const reads = new IndexReads({ url })
  const questions = new MemberQuestions({ url, now: Date.now })
  const watch = new IndexWatch({ url, now: Date.now, log })
  const authors = new Authors({ identities, now: Date.now, log })
  const cursors = new FeedCursors(cursorSecret(made.key))
  const methods = feedMethods({ reads, identities, authors, cursors, now: Date.now })
  return {
    methods: Object.fromEntries(
      Object.entries(methods).map(([nsid, method]) => [nsid, asDoor(method, watch)]),
    ),
    get state() {
      return watch.state
    },
    isMember: async (did) => {
      await watch.check()
      return await questions.isMember(did)
    },
    use: (moved) => {
      watch.use(moved)
      reads.use(moved)
      questions.use(moved)
    },
    stop: async () => {
      await watch.stop()
      await Promise.all([reads[Symbol.asyncDispose](), questions[Symbol.asyncDispose]()])
    },
  }
}

function asDoor(method: FeedMethod, watch: IndexWatch): Method {
  return {
    audience: 'user',
    accepts: ['service-auth'],
    fragment: appViewFragment,
    handle: async ({ caller, params }) => {
      assert(caller.kind === 'user', 'the door lets people in and nobody else')
      await watch.check()
      return { body: await method({ viewer: caller.did, params }) }
    },
  }
}

function viewers(
  config: Config,
  has: { readonly did: Did; readonly identities: Identities; readonly feeds: Feeds },
): Viewers {
  const { did: serviceDid, identities, feeds } = has
  const { verifier: k256 } = fastestK256()
  const serviceAuth = new ServiceAuth({
    serviceDid,
    fragment: appViewFragment,
    identities,
    k256,
    serviceAuthSingleUse: false,
    isKnown: (did) => feeds.isMember(did),
    now: Date.now,
  })
  return new Viewers({ serviceAuth, failures: authFailures(config) })
}

/** A key signs what others check; what it is good for beside that is kept apart from it. */
function cursorSecret(key: ServiceKey): Uint8Array {
  const secret = Buffer.from(key.exportHex(), 'hex')
  return new Uint8Array(hkdfSync('sha256', secret, '', 'stratos feed cursors', 32))
}

function checkConfig({ indexPostgresUrl, serviceAuthSingleUse }: Config): void {
  const problems: string[] = []
  if (indexPostgresUrl === '') {
    problems.push(
      'STRATOS_INDEX_POSTGRES_URL must name the index; for example ' +
        'STRATOS_INDEX_POSTGRES_URL=postgres://stratos@127.0.0.1:5432/stratos_index',
    )
  }
  if (serviceAuthSingleUse) {
    problems.push(
      'STRATOS_SERVICE_AUTH_SINGLE_USE cannot be kept by an AppView, which remembers no tokens: ' +
        'unset it here',
    )
  }
  if (problems.length > 0) throw new ConfigError(problems)
}
