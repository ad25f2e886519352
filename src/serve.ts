import { importFolder } from './api/import.ts'
import { fastestK256, type K256Verifier } from './atproto/k256.ts'
import { Schemas } from './atproto/lexicon.ts'
import { parseDid } from './atproto/syntax.ts'
import type { Config } from './config.ts'
import { emptyFolder, makeFolder } from './lib/files.ts'
import type { Log } from './lib/log.ts'
import { isConfidential } from './remote/oauth-client.ts'
import type { openFeeds } from './serve/appview.ts'
import { doors } from './serve/doors.ts'
import { allLexicons } from './serve/lexicons.ts'
import { externalList, outside } from './serve/outside.ts'
import { membership } from './serve/people.ts'
import { startActors, type Threads } from './serve/shards.ts'
import { openServiceSql, serviceKey, storesOver } from './serve/stores.ts'
import { BlobKeeper } from './service/blob-keeper.ts'
import { Background } from './service/background.ts'
import { namedCollections } from './service/collections.ts'
import { Eligibility } from './service/eligibility.ts'
import { OauthKeys } from './service/oauth-keys.ts'
import { announceChanges } from './service/reconfigure.ts'
import { SessionSecrets } from './service/session-secrets.ts'
import type { WriteRules } from './service/write-op.ts'
import { finishRemovals } from './store/actor-folder.ts'
import { OauthKeyStore } from './store/oauth-key.ts'
import { SessionSecretStore } from './store/session-secret.ts'
import { openBlobStorage } from './store/open-blobs.ts'
import { sharedSecret } from './store/secret.ts'
import { ToldCursors } from './stream/told-cursors.ts'
import type { Sql } from './store/sql.ts'

export interface Running {
  /** Stops accepting, finishes what runs, closes the stores. */
  stop(): Promise<void>
}

interface Surroundings extends Threads {
  readonly log: Log
  readonly version: string
  /** Of `src/serve/appview.ts`, where the service answers feeds, too. */
  readonly openFeeds?: typeof openFeeds
}

/** Puts the service together and opens its doors, stores first and network last. */
export async function serve(config: Config, around: Surroundings): Promise<Running> {
  const { log } = around
  for (const warning of config.warnings) log.warn('config', { warning })
  const docs = allLexicons(config.lexiconDir)
  makeFolder(config.dataDir)
  const sql = await openServiceSql(config)
  const stores = storesOver(sql)
  const { store } = stores
  const clean = await store.begin()
  const key = await serviceKey(config, store)
  const schemas = new Schemas(docs)
  const collections = namedCollections(config.collections, schemas.records())
  const rules = writeRules(config)
  clearLeftovers(config.dataDir)
  await announceChanges({ ...config, serviceKey: key.did }, { store, log })
  const storage = await openBlobStorage(config)
  const told = new ToldCursors(config.dataDir)
  const actors = await startActors({ config, told, rules, docs, schemas }, around)
  const blobs = new BlobKeeper({ storage, ...actors, ...stores, log })
  const keys = isConfidential(config.publicUrl)
    ? await OauthKeys.open({ store: new OauthKeyStore(sql), now: Date.now, log })
    : undefined
  const secrets = await openSecrets(sql, log)
  const eligibility = new Eligibility(config, { store, log, ...externalList(config, { sql, log }) })
  const remote = outside({ config, collections, store, keys, eligibility }, log)
  const base = {
    config,
    rules,
    collections,
    schemas,
    key,
    keys,
    secrets,
    ...actors,
    told,
    storage,
    blobs,
    blobSecret: await sharedSecret(sql, 'blob links'),
    eligibility,
    nonceSecret: await sharedSecret(sql, 'dpop nonces'),
    ...stores,
    ...remote,
  }
  const members = membership(base, log)
  const k256 = k256Verifier(log)
  const feeds = around.openFeeds?.({ config, identities: remote.identities, key, log })
  const server = doors({ ...base, ...members, k256 }, { ...around, feeds })
  await eligibility.start()
  server.listen()
  sayStarted(config, around, k256)
  const { tokenSessions: sessions } = stores
  const parts = { dataDir: config.dataDir, clean, store, sessions, secrets, ...members, log }
  const background = new Background(parts)
  return {
    stop: async () => {
      await Promise.all([server.drain(), eligibility.stop()])
      const swept = await background.stop()
      await feeds?.stop()
      await members.outbox.stop()
      await remote.oauth.stop()
      await blobs.stop()
      await actors.close()
      await storage.close()
      await store.end(swept)
    },
  }
}

function writeRules(config: Config): WriteRules {
  const { fragment, boundaries, collections } = config
  return { serviceDid: parseDid(config.serviceDid), fragment, boundaries, collections }
}

function sayStarted(config: Config, { log, version }: Surroundings, k256: K256Verifier): void {
  log.info('started', {
    version,
    url: config.publicUrl,
    did: config.serviceDid,
    dataDir: config.dataDir,
    developmentMode: config.devMode,
    verifiers: { ES256K: k256.name, ES256: 'node:crypto' },
  })
}

/** What a kill may have left. */
function clearLeftovers(dataDir: string): void {
  finishRemovals(dataDir)
  emptyFolder(importFolder(dataDir))
}

async function openSecrets(sql: Sql, log: Log): Promise<SessionSecrets> {
  return await SessionSecrets.open({ store: new SessionSecretStore(sql), now: Date.now, log })
}

function k256Verifier(log: Log): K256Verifier {
  const { verifier, because } = fastestK256()
  if (because !== undefined) log.warn('verifier.slow', { verifier: verifier.name, because })
  return verifier
}
