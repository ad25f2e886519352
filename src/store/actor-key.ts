import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SigningKey } from '../atproto/keys.ts'
import type { Did } from '../atproto/syntax.ts'
import { actorFolder } from './actor-folder.ts'

/** Where the signing key of a person is. */
export function actorKeyPath(dataDir: string, did: Did): string {
  return join(actorFolder(dataDir, did), 'signing_key')
}

/** @throws where there is none */
export function readActorKey(dataDir: string, did: Did): SigningKey {
  return SigningKey.import(readFileSync(actorKeyPath(dataDir, did), 'utf8').trim())
}
