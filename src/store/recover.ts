import { existsSync, readdirSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Did } from '../atproto/syntax.ts'
import { syncFolder } from '../lib/files.ts'
import type { Log } from '../lib/log.ts'
import type { Change } from './actor-change.ts'
import {
  type ActorDatabaseOptions,
  actorDatabasePath,
  openActorDatabase,
} from './actor-database.ts'
import { changesOf, changesText } from './change-text.ts'
import { journalFolder } from './journal.ts'
import { readJournalFile } from './journal-file.ts'
import { putAside } from './unstored.ts'

/**
 * Stores what the journals of an unclean end hold and the databases lack, and removes the journals.
 * To be called before any shard runs. An end in the middle of it is made good by the next start.
 *
 * What cannot be stored is put aside with its actor, whom nobody reads or writes until it could be;
 * the others are not held up.
 * @throws when it can neither be stored nor put aside, on a full disk for example
 */
export async function recover(
  options: Omit<ActorDatabaseOptions, 'synchronous'>,
  log: Log,
): Promise<void> {
  const folder = journalFolder(options.dataDir)
  const paths = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : []
  if (paths.length === 0) return
  const changes = changesIn(paths)
  let stored = 0
  for (const [did, ofActor] of changes) {
    // Of a repo that is gone only the journal is left.
    if (!existsSync(actorDatabasePath(options.dataDir, did))) continue
    stored += await storeOf(did, ofActor, { options, log })
  }
  for (const path of paths) unlinkSync(path)
  syncFolder(folder)
  log.info('journal.recovered', { actors: changes.size, changes: stored })
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** By actor, in the order in which they were acknowledged. */
function changesIn(paths: readonly string[]): Map<Did, Change[]> {
  const changes = new Map<Did, Change[]>()
  const uses = paths.flatMap((path) => readJournalFile(path) ?? [])
  for (const { bodies } of uses.toSorted((a, b) => a.order - b.order)) {
    for (const { did, changes: more } of bodies.flatMap((body) => changesOf(utf8.decode(body)))) {
      const ofActor = changes.get(did)
      if (ofActor === undefined) changes.set(did, [...more])
      else for (const change of more) ofActor.push(change)
    }
  }
  return changes
}

/** Tells how many were missing in the database. */
async function storeOf(
  did: Did,
  changes: readonly Change[],
  { options, log }: { options: Omit<ActorDatabaseOptions, 'synchronous'>; log: Log },
): Promise<number> {
  try {
    const behind = await openActorDatabase(did, { ...options, synchronous: 'full' })
    try {
      return behind.storeRest(changes)
    } finally {
      await behind.close()
    }
  } catch (error) {
    log.error('actor.changes.unstored', { did, error })
    putAside(actorDatabasePath(options.dataDir, did), [changesText({ did, changes })])
    return 0
  }
}
