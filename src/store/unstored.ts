import { existsSync, readFileSync, unlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Did } from '../atproto/syntax.ts'
import { syncFolder, writeDurably } from '../lib/files.ts'
import { type Change, changeStatements, type Head } from './actor-change.ts'
import { selectHead } from './actor.ts'
import { type ActorChanges, changesOf, changesText, joined } from './change-text.ts'
import type { Sqlite } from './sqlite.ts'

/** A database is not where Changes expect it, for example because it was restored from a backup. */
class ChangesDetached extends Error {
  override readonly name = 'ChangesDetached'
}

/**
 * Stores those of the Changes that are not stored yet, waits for the disk, and tells how many they
 * were. The Changes follow one another.
 * @throws ChangesDetached when the first of them does not follow what is stored
 */
export function storeRest(sqlite: Sqlite, did: Did, changes: readonly Change[]): number {
  const [head] = sqlite.query<Head>(selectHead, did)
  const rest = changes.filter(({ after }) => after.seq > (head?.seq ?? 0))
  const [first] = rest
  if (first === undefined) return 0
  if (first.before?.rev !== head?.rev) {
    throw new ChangesDetached(
      `the database of ${did} ends with commit ${head?.rev}, the changes that are to be stored ` +
        `begin after ${first.before?.rev}: restore a newer backup of it`,
    )
  }
  sqlite.store(changeStatements(rest), 'full')
  return rest.length
}

/**
 * Keeps acknowledged Changes that cannot be stored in a file beside the database, after those that
 * are there already.
 * @param database path of the actor's database
 * @param texts of `changesText`
 */
export function putAside(database: string, texts: readonly string[]): void {
  const path = unstoredPath(database)
  const before = unstored(path).map(changesText)
  writeDurably(path, joined([...before, ...texts]), 0o600)
}

/** Stores what was put aside before, if anything was. */
export function storeUnstored(sqlite: Sqlite, database: string, did: Did): void {
  const path = unstoredPath(database)
  const changes = unstored(path).flatMap((one) => one.changes)
  if (changes.length === 0) return
  storeRest(sqlite, did, changes)
  unlinkSync(path)
  syncFolder(dirname(path))
}

function unstored(path: string): readonly ActorChanges[] {
  return existsSync(path) ? changesOf(readFileSync(path, 'utf8')) : []
}

function unstoredPath(database: string): string {
  return join(dirname(database), 'unstored.json')
}
