import { AnonymousTraffic } from '../api/anonymous.ts'
import { robots } from '../api/documents.ts'
import { documentPages } from '../api/own-pages.ts'
import { Server } from '../api/server.ts'
import { unauthorized } from '../api/service-auth.ts'
import { Xrpc } from '../api/xrpc.ts'
import { Schemas } from '../atproto/lexicon.ts'
import { schemaDocs } from '../atproto/schemas.ts'
import { parseDid } from '../atproto/syntax.ts'
import { type Config, ConfigError } from '../config.ts'
import { FirehoseUrlError, parseFirehoseUrl } from '../indexer/firehose-url.ts'
import { makeFolder } from '../lib/files.ts'
import type { Log } from '../lib/log.ts'
import { IndexSide } from './index-side.ts'
import { guardedFetch, identitiesBy, wholeRepoFetch } from './outside.ts'
import { ownKey } from './stores.ts'

/** Fills an index from services, until it is stopped. */
export async function serveIndexer(
  config: Config,
  { log, version }: { readonly log: Log; readonly version: string },
): Promise<{ readonly failed: Promise<never>; stop(): Promise<void> }> {
  checkConfig(config)
  for (const warning of config.warnings) log.warn('config', { warning })
  if (config.signingKeyHex === '') makeFolder(config.dataDir)
  const key = ownKey(config)
  const reader = parseDid(config.serviceDid)
  const side = new IndexSide({
    database: { url: config.indexPostgresUrl },
    services: config.indexServices,
    ...followingParts(config, log),
    identities: identitiesBy(config, { fetch: guardedFetch(config, log) }),
    reader,
    key,
    log,
  })
  const server = statesServer(config, { side, log, version })
  side.start()
  server.listen()
  log.info('started', { version, url: config.publicUrl, did: reader, serves: 'index' })
  return {
    failed: side.failed,
    stop: async () => {
      await server.drain()
      await side.stop()
    },
  }
}

/** What following takes from the configuration. @throws ConfigError */
export function followingParts(config: Config, log: Log) {
  const { privateNetwork: allowPrivateNetwork } = config
  const firehoses = config.indexFirehoses.map((text) => {
    try {
      return parseFirehoseUrl(text, { allowPrivateNetwork })
    } catch (error) {
      if (!(error instanceof FirehoseUrlError)) throw error
      throw new ConfigError([
        `STRATOS_INDEX_FIREHOSES: ${error.message}; for example ` +
          'STRATOS_INDEX_FIREHOSES=wss://relay.example.com',
      ])
    }
  })
  const fetches = {
    named: wholeRepoFetch({ privateNetwork: true }, log),
    found: wholeRepoFetch(config, log),
  }
  return { firehoses, allowPrivateNetwork, fetches }
}

/** Health and readiness, and nothing that anybody could ask for. */
function statesServer(
  config: Config,
  made: { readonly side: IndexSide; readonly log: Log; readonly version: string },
): Server {
  const { side, log, version } = made
  const schemas = new Schemas(schemaDocs)
  const xrpc = new Xrpc({
    methods: new Map(),
    schemas,
    credentials: {
      identify: async () => {
        throw unauthorized('InvalidToken', 'there is nothing here to open')
      },
    },
    anonymous: new AnonymousTraffic({
      requestsPerMinute: config.anonymousRequestsPerMinute,
      now: Date.now,
    }),
    log,
    checkOutput: false,
  })
  return new Server({
    config,
    version,
    xrpc,
    pages: documentPages(robots),
    bodyBytesMax: 0,
    components: () => ({ index: side.state }),
    readiness: () => ({ isReady: side.isReady, details: { index: side.state } }),
    log,
  })
}

function checkConfig({ indexPostgresUrl, indexServices }: Config): void {
  const problems: string[] = []
  if (indexPostgresUrl === '') {
    problems.push(
      'STRATOS_INDEX_POSTGRES_URL must name the index; for example ' +
        'STRATOS_INDEX_POSTGRES_URL=postgres://stratos@127.0.0.1:5432/stratos_index',
    )
  }
  if (indexServices.length === 0) {
    problems.push(
      'STRATOS_INDEX_SERVICES must name the services to follow; for example ' +
        'STRATOS_INDEX_SERVICES=did:web:stratos.example.com',
    )
  }
  if (problems.length > 0) throw new ConfigError(problems)
}
