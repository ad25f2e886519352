import { createHash } from 'node:crypto'
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Did } from '../atproto/syntax.ts'
import { syncFolder } from '../lib/files.ts'

/** `actors/{first two hex digits of SHA-256(did)}/{did}` below the data folder. */
export function actorFolder(dataDir: string, did: Did): string {
  return join(dataDir, 'actors', digestOf(did).slice(0, 2), did)
}

function digestOf(did: Did): string {
  return createHash('sha256').update(did).digest('hex')
}

/**
 * Removes everything of an actor, for good. Out of sight goes in one step, as half of a folder
 * would be a repo without its key.
 */
export function removeActorFolder(dataDir: string, did: Did): void {
  const folder = actorFolder(dataDir, did)
  // A DID alone may be as long as a name can be.
  const aside = join(dataDir, 'actors', `${removedPrefix}${digestOf(did)}`)
  rmSync(aside, { recursive: true, force: true })
  if (!existsSync(folder)) return
  renameSync(folder, aside)
  syncFolder(dirname(folder))
  rmSync(aside, { recursive: true })
  syncFolder(dirname(aside))
}

/** Removes what a kill in the middle of a removal left. */
export function finishRemovals(dataDir: string): void {
  const root = join(dataDir, 'actors')
  if (!existsSync(root)) return
  for (const name of readdirSync(root)) {
    if (name.startsWith(removedPrefix)) rmSync(join(root, name), { recursive: true })
  }
}

const removedPrefix = 'removed-'
