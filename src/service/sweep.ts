import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Did, isDid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { ActorStore } from '../store/actor.ts'
import type { ServiceStore } from '../store/service.ts'
import { openSqlite } from '../store/sqlite.ts'

/**
 * Removes what enrollments left that did not come about: folders older than an hour, without a row,
 * that never held a record. To be run before anything can open an actor.
 *
 * A folder with records and no row is no such thing: the service's database was lost or is an old
 * copy. Then nothing is removed, and the operator is told.
 */
export async function sweepAbandoned(
  dataDir: string,
  { store, log }: { readonly store: ServiceStore; readonly log: Log },
): Promise<void> {
  const root = join(dataDir, 'actors')
  for (const name of names(root)) {
    if (name.startsWith(removedPrefix)) rmSync(join(root, name), { recursive: true })
  }
  const nobody = (await store.enrolledDids('', 1)).length === 0
  for (const prefix of names(root)) {
    for (const did of names(join(root, prefix))) {
      const folder = join(root, prefix, did)
      if (!isDid(did) || Date.now() - statSync(folder).mtimeMs < abandonedAfterMs) continue
      if ((await store.enrollment(did)) !== undefined) continue
      if (nobody || !(await isEmpty(folder, did))) {
        log.error('enrollment.row.missing', {
          did,
          advice: 'restore service.sqlite from a newer backup; the folder was left as it is',
        })
        continue
      }
      // Out of sight in one step: half of a folder would be a repo without its key.
      const aside = join(root, `${removedPrefix}${did}`)
      renameSync(folder, aside)
      rmSync(aside, { recursive: true })
      log.info('enrollment.abandoned.removed', { did })
    }
  }
}

const abandonedAfterMs = 3_600_000
const removedPrefix = 'removed-'

/** Whether nothing but the first, empty commit was ever stored here. */
async function isEmpty(folder: string, did: Did): Promise<boolean> {
  const path = join(folder, 'stratos.sqlite')
  if (!existsSync(path)) return true
  const sqlite = openSqlite(path, { synchronous: 'full', cacheKib: 64, exclusive: false })
  try {
    const tables = await sqlite.all(`select name from sqlite_master where type = 'table'`)
    if (tables.length === 0) return true
    const head = await new ActorStore(sqlite, did).head()
    return head === undefined || head.seq <= 1
  } finally {
    await sqlite.close()
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    const absent = ['ENOENT', 'ENOTDIR']
    if (error instanceof Error && 'code' in error && absent.includes(String(error.code))) return []
    throw error
  }
}
