import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { Schemas } from '../../src/atproto/lexicon.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { folder } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { makeFolder, writeDurably } from '../../src/lib/files.ts'
import { createLog } from '../../src/lib/log.ts'
import { scopeFor } from '../../src/remote/oauth-client.ts'
import { defaultCollections, publicCollections } from '../../src/service/collections.ts'
import type { ShardBoot } from '../../src/shard/messages.ts'
import { ShardPool } from '../../src/shard/pool.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { openSqlite } from '../../src/store/sqlite.ts'

export interface Seeded {
  readonly did: Did
  /** Qualified boundaries. */
  readonly boundaries: readonly string[]
}

/**
 * Enrolls people in a data folder that no service has open, as far as a PDS has no part in it: key,
 * repo and rows are real, the OAuth session is one that no PDS knows.
 */
export async function seed(dataDir: string, serviceDid: string, people: readonly Seeded[]) {
  makeFolder(dataDir)
  const keyPath = join(dataDir, 'signing_key')
  // Another key would be a change that all who are there already must hear of.
  if (!existsSync(keyPath)) writeDurably(keyPath, ServiceKey.generate().exportHex(), 0o600)
  const options = { synchronous: 'normal', cacheKib: 1024, exclusive: true } as const
  const sqlite = openSqlite(join(dataDir, 'service.sqlite'), options)
  await migrateSqlite(sqlite, folder('migrations/service/sqlite'))
  const store = new ServiceStore(sqlite)
  await store.begin()
  const log = createLog('warn', (line) => process.stderr.write(`${line}\n`))
  const pool = ShardPool.inline(seedBoot(dataDir, serviceDid), {
    schemas: new Schemas(schemaDocs),
    log,
  })
  for (const { did, boundaries } of people) {
    const { signingKey } = await pool.call(did, 'seed', { kind: 'key' })
    await pool.call(did, 'seed', { kind: 'open', outbox: [] })
    const enrollment = {
      did,
      boundaries,
      signingKey,
      pdsEndpoint: 'http://127.0.0.1:1',
      rkey: serviceDid.replaceAll('%3A', ':'),
      enrolledAt: new Date().toISOString(),
      scope: scopeFor(publicCollections(defaultCollections)),
    }
    await store.enroll(enrollment, '{}')
    await store.clearOutbox(did)
    await store.dropOauthSession(did)
  }
  await pool.close()
  await store.end('swept')
}

/** A shard that keeps to the rules of one service. */
export function seedBoot(dataDir: string, serviceDid: string): ShardBoot {
  return {
    role: 'shard',
    name: 'seed',
    dataDir,
    synchronous: 'normal',
    handlesMax: 64,
    treeBytesMax: 16 * 1024 * 1024,
    journalBytes: 1024 * 1024,
    clockId: 900,
    vouched: 0,
    logLevel: 'warn',
    migrations: folder('migrations/actor/sqlite'),
    schemas: '',
    rules: {
      serviceDid: parseDid(serviceDid),
      fragment: 'atproto_pns',
      boundaries: [`${serviceDid}/a`, `${serviceDid}/b`],
      collections: defaultCollections,
    },
  }
}
