import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ServiceKey } from '../atproto/keys.ts'
import { type Config, ConfigError } from '../config.ts'
import { folder } from '../lib/embed.macro.ts' with { type: 'macro' }
import { writeDurably } from '../lib/files.ts'
import { BoundKeys } from '../store/bound-key.ts'
import { BrowserSessions } from '../store/browser-session.ts'
import { DepartureStore } from '../store/departure.ts'
import { ImportStore } from '../store/import.ts'
import { MemberLog } from '../store/member-log.ts'
import { migrateSqlite } from '../store/migrate.ts'
import { OauthStates } from '../store/oauth-state.ts'
import { Roster } from '../store/roster.ts'
import { ServiceStore } from '../store/service.ts'
import { Sessions } from '../store/session.ts'
import type { Sql } from '../store/sql.ts'
import { openSqlite } from '../store/sqlite.ts'
import { TakedownStore } from '../store/takedown.ts'
import { UsedTokenStore } from '../store/used-token.ts'

export type Stores = ReturnType<typeof storesOver>

/** service.sqlite, migrated: the stores of this process share it. */
export async function openServiceSql(config: Config): Promise<Sql> {
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

/** What the process keeps in service.sqlite, by subject. */
export function storesOver(sql: Sql) {
  return {
    sql,
    store: new ServiceStore(sql),
    roster: new Roster(sql),
    departures: new DepartureStore(sql),
    sessions: new BrowserSessions(sql),
    tokenSessions: new Sessions(sql),
    states: new OauthStates(sql),
    takedowns: new TakedownStore(sql),
    used: new UsedTokenStore(sql),
    boundKeys: new BoundKeys(sql),
    imports: new ImportStore(sql),
    members: new MemberLog(sql),
  }
}

/**
 * The key from the configuration, or from its file, made at first start.
 * @throws ConfigError when the file is gone though people rely on its key
 */
export async function serviceKey(config: Config, store: ServiceStore): Promise<ServiceKey> {
  const path = keyPath(config)
  if (config.signingKeyHex === '' && !existsSync(path)) {
    if ((await store.enrolledDids('', 1)).length > 0) {
      throw new ConfigError([`${path} is gone, and people are enrolled: restore it from a backup`])
    }
  }
  return ownKey(config)
}

/** The key from the configuration, or from its file, made where there is none. */
export function ownKey(config: Pick<Config, 'signingKeyHex' | 'dataDir'>): ServiceKey {
  if (config.signingKeyHex !== '') return ServiceKey.import(config.signingKeyHex)
  const path = keyPath(config)
  if (!existsSync(path)) writeDurably(path, ServiceKey.generate().exportHex(), 0o600)
  return ServiceKey.import(readFileSync(path, 'utf8').trim())
}

function keyPath({ dataDir }: Pick<Config, 'dataDir'>): string {
  return join(dataDir, 'signing_key')
}
