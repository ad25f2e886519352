import { join } from 'node:path'
import type { Did } from '../atproto/syntax.ts'
import { actorFolder } from './actor-folder.ts'
import { Behind } from './behind.ts'
import { migrateSqlite, type Migrations } from './migrate.ts'
import { openSqlite, type Synchronous } from './sqlite.ts'
import { storeUnstored } from './unstored.ts'

export interface ActorDatabaseOptions {
  readonly dataDir: string
  readonly synchronous: Synchronous
  readonly migrations: Migrations
}

export function actorDatabasePath(dataDir: string, did: Did): string {
  return join(actorFolder(dataDir, did), 'stratos.sqlite')
}

/**
 * Opens an actor's database, made and migrated at first. Changes that could not be stored earlier
 * are stored now.
 * @throws when they still cannot be stored, or the database is none of ours
 */
export async function openActorDatabase(did: Did, options: ActorDatabaseOptions): Promise<Behind> {
  const path = actorDatabasePath(options.dataDir, did)
  const { synchronous, migrations } = options
  const sqlite = openSqlite(path, { synchronous, cacheKib: 64, exclusive: false })
  try {
    await migrateSqlite(sqlite, migrations)
    storeUnstored(sqlite, path, did)
  } catch (error) {
    await sqlite.close()
    throw error
  }
  return new Behind(did, path, sqlite)
}
