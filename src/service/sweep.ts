import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Did, isDid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { ActorStore } from '../store/actor.ts'
import { removeActorFolder } from '../store/actor-folder.ts'
import type { DepartureStore } from '../store/departure.ts'
import type { ServiceStore } from '../store/service.ts'
import { openSqlite } from '../store/sqlite.ts'

interface Sweep {
  readonly dataDir: string
  readonly store: ServiceStore
  readonly departures: DepartureStore
  readonly log: Log
  /** Runs a task while the actor neither enrolls nor leaves. */
  readonly inTurn: (did: Did, task: () => Promise<void>) => Promise<void>
  readonly stopped: () => boolean
}

/**
 * Removes what enrollments left that did not come about: folders older than an hour, without a row,
 * that never held a record. What a departure still has to erase is that departure's business.
 *
 * A folder with records and no row is no such thing: the service's database was lost or is an old
 * copy. Then nothing is removed, and the operator is told.
 */
export async function sweepAbandoned(sweep: Sweep): Promise<void> {
  const { dataDir, store } = sweep
  const root = join(dataDir, 'actors')
  const nobody = (await store.enrolledDids('', 1)).length === 0
  for (const prefix of names(root)) {
    // People are served meanwhile.
    await Bun.sleep(0)
    const dids = names(join(root, prefix)).filter(isDid)
    const enrolled = await store.enrolledAmong(dids)
    for (const did of dids) {
      if (sweep.stopped()) return
      if (enrolled.has(did)) continue
      const folder = join(root, prefix, did)
      await sweep.inTurn(did, () => tryLook(sweep, { did, folder, nobody }))
    }
  }
}

/** One broken folder must not keep the others. */
async function tryLook(sweep: Sweep, at: Place): Promise<void> {
  try {
    await look(sweep, at)
  } catch (error) {
    sweep.log.error('enrollment.abandoned.failed', { did: at.did, error })
  }
}

interface Place {
  readonly did: Did
  readonly folder: string
  readonly nobody: boolean
}

async function look({ dataDir, store, departures, log }: Sweep, at: Place): Promise<void> {
  const { did, folder, nobody } = at
  if (!existsSync(folder) || Date.now() - statSync(folder).mtimeMs < abandonedAfterMs) return
  if (
    (await store.enrollment(did)) !== undefined ||
    (await departures.departure(did)) !== undefined
  )
    return
  if (nobody || !(await isEmpty(folder, did))) {
    const advice = 'restore service.sqlite from a newer backup; the folder was left as it is'
    log.error('enrollment.row.missing', { did, advice })
    return
  }
  removeActorFolder(dataDir, did)
  log.info('enrollment.abandoned.removed', { did })
}

const abandonedAfterMs = 3_600_000

/** Whether no record was ever stored here. */
async function isEmpty(folder: string, did: Did): Promise<boolean> {
  const path = join(folder, 'stratos.sqlite')
  if (!existsSync(path)) return true
  const sqlite = openSqlite(path, { synchronous: 'full', cacheKib: 64, exclusive: false })
  try {
    const tables = await sqlite.all(`select name from sqlite_master where type = 'table'`)
    if (tables.length === 0) return true
    const head = await new ActorStore(sqlite, did).head()
    return head === undefined || head.lastBlock === 0
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
