import { expect, test } from 'bun:test'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseDid } from '../../src/atproto/syntax.ts'
import { makeFolder } from '../../src/lib/files.ts'
import { actorFolder, finishRemovals, removeActorFolder } from '../../src/store/actor-folder.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()

test.each([20, 248, 255])('the folder of a DID of %d characters can be removed', (length) => {
  const dataDir = join(folder, crypto.randomUUID())
  const did = parseDid('did:web:'.padEnd(length - 4, 'a') + '.com')
  expect(did).toHaveLength(length)
  makeFolder(join(actorFolder(dataDir, did), 'inside'))
  removeActorFolder(dataDir, did)
  expect(existsSync(actorFolder(dataDir, did))).toBeFalse()
  expect(names(dataDir)).toHaveLength(1)
})

test('what a kill left of a removal is removed at the next start, and nothing else', () => {
  const dataDir = join(folder, crypto.randomUUID())
  const did = parseDid('did:web:alice.test')
  makeFolder(actorFolder(dataDir, did))
  mkdirSync(join(dataDir, 'actors', 'removed-x', 'y'), { recursive: true })
  finishRemovals(dataDir)
  expect(existsSync(actorFolder(dataDir, did))).toBeTrue()
  expect(names(dataDir)).toHaveLength(1)
})

function names(dataDir: string): string[] {
  return readdirSync(join(dataDir, 'actors'))
}
