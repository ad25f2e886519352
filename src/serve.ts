import { availableParallelism } from 'node:os'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Account } from './api/account.ts'
import { Browsers } from './api/browser.ts'
import { Credentials } from './api/credentials.ts'
import { publicDocuments } from './api/documents.ts'
import { membershipMethods } from './api/membership.ts'
import { oauthKeyMethods } from './api/oauth-key.ts'
import { SignIn } from './api/oauth.ts'
import { operatorMethods } from './api/operator.ts'
import { repoMethods } from './api/repo.ts'
import { Server } from './api/server.ts'
import { ServiceAuth } from './api/service-auth.ts'
import { syncMethods } from './api/sync.ts'
import { takedownMethods } from './api/takedown.ts'
import { methodTable, Xrpc } from './api/xrpc.ts'
import { ServiceKey } from './atproto/keys.ts'
import { Schemas } from './atproto/lexicon.ts'
import { schemaDocs } from './atproto/schemas.ts'
import { type Did, type Nsid, parseDid } from './atproto/syntax.ts'
import { type Config, ConfigError } from './config.ts'
import { folder } from './lib/embed.macro.ts' with { type: 'macro' }
import { descriptorLimit, handlesWithin } from './lib/descriptors.ts'
import { makeFolder, writeDurably } from './lib/files.ts'
import type { Log } from './lib/log.ts'
import { createGuardedFetch } from './remote/fetch.ts'
import { checkHostedMetadata } from './remote/hosted-client.ts'
import { Identities } from './remote/identity.ts'
import { listBytesMax } from './remote/list.ts'
import { isConfidential, missingScopes, scopeFor } from './remote/oauth-client.ts'
import { OAuth } from './remote/oauth.ts'
import { Pds } from './remote/pds.ts'
import { digestOf, SharedList } from './remote/shared-list.ts'
import { privateCollections, publicCollections } from './service/collections.ts'
import { Background } from './service/background.ts'
import { Eligibility } from './service/eligibility.ts'
import { Enrollments } from './service/enrollment.ts'
import { ExternalList } from './service/external-list.ts'
import { ListSource } from './service/list-source.ts'
import { KeepAlive } from './service/keep-alive.ts'
import { followMoves, Troubles } from './service/moves.ts'
import { OauthKeys } from './service/oauth-keys.ts'
import { Outbox } from './service/outbox.ts'
import { Departures } from './service/departure.ts'
import { announceChanges } from './service/reconfigure.ts'
import { StubSwitch } from './service/stub-switch.ts'
import type { WriteRules } from './service/write.ts'
import type { ShardBoot } from './shard/messages.ts'
import { ShardPool } from './shard/pool.ts'
import { finishRemovals } from './store/actor-folder.ts'
import { DepartureStore } from './store/departure.ts'
import { AllowList } from './store/allow-list.ts'
import { migrateSqlite } from './store/migrate.ts'
import { Roster } from './store/roster.ts'
import { OauthKeyStore } from './store/oauth-key.ts'
import { OauthStates } from './store/oauth-state.ts'
import { BrowserSessions } from './store/browser-session.ts'
import { ServiceStore } from './store/service.ts'
import type { Sql } from './store/sql.ts'
import { openSqlite } from './store/sqlite.ts'
import { UsedTokenStore } from './store/used-token.ts'
import { TakedownStore } from './store/takedown.ts'

export interface Running {
  /** Stops accepting, finishes what runs, closes the stores. */
  stop(): Promise<void>
}

interface Surroundings {
  readonly log: Log
  readonly version: string
  readonly startWorker: () => Worker
  /** A shard ended by itself: the process must end. */
  readonly died: (name: string, error: unknown) => void
}

/** Puts the service together and opens its doors, stores first and network last. */
export async function serve(config: Config, around: Surroundings): Promise<Running> {
  const { log } = around
  for (const warning of config.warnings) log.warn('config', { warning })
  makeFolder(config.dataDir)
  const sql = await openServiceSql(config)
  const stores = storesOver(sql)
  const { store } = stores
  const clean = await store.begin()
  const key = await serviceKey(config, store)
  const schemas = new Schemas(schemaDocs)
  const rules: WriteRules = {
    serviceDid: parseDid(config.serviceDid),
    fragment: config.fragment,
    boundaries: config.boundaries,
    collections: privateCollections,
  }
  finishRemovals(config.dataDir)
  await announceChanges(config, { store, log })
  const pool = await startShards({ config, rules, schemas }, around)
  const keys = isConfidential(config.publicUrl)
    ? await OauthKeys.open({ store: new OauthKeyStore(sql), now: Date.now, log })
    : undefined
  const call: ShardPool['call'] = (did, requestId, ask) => pool.call(did, requestId, ask)
  const eligibility = new Eligibility(config, { store, log, ...externalList(config, { sql, log }) })
  const remote = outside({ config, store, keys, eligibility }, log)
  const base = { config, rules, schemas, key, keys, call, eligibility, ...stores, ...remote }
  const members = membership(base, log)
  const server = doors({ ...base, ...members }, around)
  await eligibility.start()
  server.listen()
  log.info('started', {
    version: around.version,
    url: config.publicUrl,
    did: config.serviceDid,
    dataDir: config.dataDir,
    developmentMode: config.devMode,
  })
  const { dataDir } = config
  const background = new Background({ dataDir, clean, store, ...members, log })
  return {
    stop: async () => {
      await Promise.all([server.drain(), eligibility.stop()])
      const swept = await background.stop()
      await members.outbox.stop()
      await remote.oauth.stop()
      await pool.close()
      await store.end(swept)
    },
  }
}

/** What the process keeps in service.sqlite, by subject. */
function storesOver(sql: Sql) {
  return {
    sql,
    store: new ServiceStore(sql),
    roster: new Roster(sql),
    departures: new DepartureStore(sql),
    sessions: new BrowserSessions(sql),
    states: new OauthStates(sql),
    takedowns: new TakedownStore(sql),
    used: new UsedTokenStore(sql),
  }
}

/** Who is in, how they join and leave, and what their PDSes are told of it. */
function membership(base: Base, log: Log) {
  const { config, store, departures, key, call, oauth, identities } = base
  const pds = (did: Did) => new Pds({ did, use: (task) => oauth.use(did, task), now: Date.now })
  const ending = new Departures({ store: departures, revoke: (did) => oauth.revoke(did), log })
  const departing = { store: departures, departures: ending }
  const service = `${config.serviceDid}#${config.fragment}`
  const pointsPerHour = config.outboxPoints
  const troubles = new Troubles({ identities, now: Date.now, log })
  const troubled = (did: Did) => troubles.troubled(did)
  const outbox = new Outbox({ store, departing, pointsPerHour, call, pds, service, troubled, log })
  const enrollments = new Enrollments(config, { store, departures, call, outbox, key, log })
  const stubCollections = (scope: string) => stubbed(config, scope)
  const stubs = new StubSwitch({ mode: config.stubs, stubCollections, store, call, outbox, log })
  const refresh = (did: Did) => oauth.refresh(did)
  const keepAlive = new KeepAlive({ store, refresh, troubled, now: Date.now, log })
  return { departing, outbox, enrollments, stubCollections, stubs, keepAlive }
}

/** service.sqlite, migrated: the stores of this process share it. */
async function openServiceSql(config: Config): Promise<Sql> {
  const { dataDir } = config
  const path = join(dataDir, 'service.sqlite')
  // Always in full: its writes are rare, and its marks stand in for rows of the actors.
  const sqlite = openSqlite(path, {
    synchronous: 'full',
    cacheKib: 8 * 1024,
    exclusive: true,
    // It holds the sessions of people.
    overwrite: 'always',
  })
  await migrateSqlite(sqlite, folder('migrations/service/sqlite'))
  return sqlite
}

/**
 * The key from the configuration, or from its file, made at first start.
 * @throws ConfigError when the file is gone though people rely on its key
 */
async function serviceKey(config: Config, store: ServiceStore): Promise<ServiceKey> {
  const { signingKeyHex, dataDir } = config
  if (signingKeyHex !== '') return ServiceKey.import(signingKeyHex)
  const path = join(dataDir, 'signing_key')
  if (!existsSync(path)) {
    if ((await store.enrolledDids('', 1)).length > 0) {
      throw new ConfigError([`${path} is gone, and people are enrolled: restore it from a backup`])
    }
    writeDurably(path, ServiceKey.generate().exportHex(), 0o600)
  }
  return ServiceKey.import(readFileSync(path, 'utf8').trim())
}

async function startShards(
  made: { config: Config; rules: WriteRules; schemas: Schemas },
  { log, startWorker, died }: Surroundings,
): Promise<ShardPool> {
  const { config, rules, schemas } = made
  const count = config.shards ?? availableParallelism()
  const lanes = Math.max(1, count)
  const handles = actorHandles(config, log)
  const boots = Array.from({ length: lanes }, (_, index): ShardBoot => {
    return {
      name: `shard-${index}`,
      dataDir: config.dataDir,
      synchronous: config.synchronous,
      handlesMax: Math.max(1, Math.floor(handles / lanes)),
      treeBytesMax: Math.floor(treeBytesMax / lanes),
      clockId: index,
      logLevel: config.logLevel,
      migrations: folder('migrations/actor/sqlite'),
      schemas: JSON.stringify(schemaDocs),
      rules,
    }
  })
  const [first] = boots
  if (count === 0 && first !== undefined) return ShardPool.inline(first, { schemas, log })
  return await ShardPool.inWorkers(boots, { start: startWorker, died })
}

/** The databases of actors share the process's descriptors with sockets. */
function actorHandles(config: Config, log: Log): number {
  const limit = descriptorLimit()
  const wanted = config.actorHandles
  const handles = handlesWithin(limit, { wanted, filesEach: 3, reserved: reservedDescriptors })
  if (handles < wanted) log.warn('actor-handles.reduced', { wanted, handles, limit })
  return handles
}

/** What speaks to other people's servers, all of it through the one guarded fetch. */
function outside(
  made: {
    readonly config: Config
    readonly store: ServiceStore
    readonly keys: OauthKeys | undefined
    readonly eligibility: Eligibility
  },
  log: Log,
) {
  const { config, store, keys, eligibility } = made
  const { privateNetwork, plcUrl, handleResolverUrl, publicUrl, clientName } = config
  const fetch = createGuardedFetch({
    allowPrivateNetwork: privateNetwork,
    timeoutMs: remoteTimeoutMs,
    responseBytesMax: remoteBytesMax,
    log,
  })
  const identities = new Identities({
    plcUrl,
    fetch,
    now: Date.now,
    onResolved: followMoves({ store, moved: (did) => eligibility.enforce(did), log }),
    ...(handleResolverUrl === '' ? {} : { handleResolverUrl }),
  })
  const oauth = new OAuth({
    publicUrl,
    clientName,
    clientId: config.clientId,
    logoUri: config.clientLogoUri,
    tosUri: config.clientTosUri,
    policyUri: config.clientPolicyUri,
    scope: scopeFor(publicCollections),
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
  return { identities, oauth }
}

/** The list at somebody else's place, where one is configured and counts. */
function externalList(config: Config, { sql, log }: { sql: Sql; log: Log }) {
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

interface Base extends ReturnType<typeof storesOver>, ReturnType<typeof outside> {
  readonly config: Config
  readonly rules: WriteRules
  readonly schemas: Schemas
  readonly key: ServiceKey
  /** Of a confidential client. */
  readonly keys: OauthKeys | undefined
  readonly eligibility: Eligibility
  readonly call: ShardPool['call']
}

interface Parts extends Base, ReturnType<typeof membership> {}

function doors(parts: Parts, { log, version }: Surroundings): Server {
  const { config, rules, schemas, identities, oauth, used } = parts
  const { serviceDid } = rules
  const serviceAuth = new ServiceAuth({ ...config, serviceDid, identities, used, now: Date.now })
  const credentials = new Credentials({
    serviceAuth,
    adminPassword: config.adminPassword,
    modServiceDid: config.modServiceDid,
    devMode: config.devMode,
    failuresPerMinute: config.authFailuresPerMinute,
    now: Date.now,
  })
  const methods = methodTable(schemas, {
    ...repoMethods({ ...parts, wantsStubs: config.stubs === 'full' }),
    ...membershipMethods({ ...parts, boundaries: config.boundaries }),
    ...operatorMethods({ ...parts, boundaries: config.boundaries }),
    ...syncMethods(parts),
    ...oauthKeyMethods(parts),
    ...takedownMethods({ ...parts, log }),
  })
  const xrpc = new Xrpc({ methods, schemas, credentials, log, checkOutput: config.devMode })
  const browsers = new Browsers({ ...parts, log })
  const scope = scopeFor(publicCollections)
  const signIn = new SignIn({ ...parts, browsers, scope, log })
  const leave = (did: Did, requestId: string) => parts.enrollments.unenroll(did, requestId)
  const account = new Account({ ...parts, browsers, scope, leave, log })
  const clientKeys = () => parts.keys?.current.published ?? { keys: [] }
  const { clientMetadata } = oauth
  const documents = publicDocuments({ ...parts, clientMetadata, clientKeys })
  const components = () => ({ outbox: parts.outbox.counts(), stubs: parts.stubs.progress() })
  return new Server({ config, version, xrpc, signIn, account, documents, components, log })
}

/** Collections in which the PDS takes stubs from us, by the scope that the person granted. */
function stubbed({ stubs }: Config, scope: string): readonly Nsid[] {
  if (stubs === 'off') return []
  return privateCollections.filter((nsid) => missingScopes(`repo:${nsid}`, scope).length === 0)
}

/** Decoded trees of all shards together, by estimate. */
const treeBytesMax = 64 * 1024 * 1024
/** Sockets, the service's own files, and some air. */
const reservedDescriptors = 400
const remoteTimeoutMs = 10_000
/** The largest list, over a line of 10 Mbit/s. */
const listTimeoutMs = 30_000
/** No document, token or record that we ask for comes near. */
const remoteBytesMax = 2 * 1024 * 1024
