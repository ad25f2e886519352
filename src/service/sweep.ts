import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isDid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { ServiceStore } from '../store/service.ts'

/**
 * Removes the folders of enrollments that did not come about: older than an hour and without a row.
 * To be run before anything can open an actor.
 */
export async function sweepAbandoned(
  dataDir: string,
  { store, log }: { readonly store: ServiceStore; readonly log: Log },
): Promise<void> {
  const root = join(dataDir, 'actors')
  for (const prefix of names(root)) {
    for (const did of names(join(root, prefix))) {
      const folder = join(root, prefix, did)
      if (!isDid(did) || Date.now() - statSync(folder).mtimeMs < abandonedAfterMs) continue
      if ((await store.enrollment(did)) !== undefined) continue
      rmSync(folder, { recursive: true })
      log.info('enrollment.abandoned.removed', { did })
    }
  }
}

const abandonedAfterMs = 3_600_000

function names(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw error
  }
}
