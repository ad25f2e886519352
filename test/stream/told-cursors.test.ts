import { expect, test } from 'bun:test'
import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ToldCursors } from '../../src/stream/told-cursors.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const minute = 60_000_000

test.each(['', 'soon', '-1', '1.5', '1e30', '9'.repeat(17)])(
  'a file that holds "%s" is refused with what to do',
  (text) => {
    const dataDir = fresh()
    writeFileSync(join(dataDir, 'told_cursors'), text)
    expect(() => new ToldCursors(dataDir)).toThrow('restore it from a backup')
  },
)

test('what was told is known to the next process, and stored once a minute', () => {
  const dataDir = fresh()
  const path = join(dataDir, 'told_cursors')
  const told = new ToldCursors(dataDir)
  expect(told.most).toBe(0)
  told.reach(5 * minute)
  const { ino, mode } = statSync(path)
  expect(mode & 0o777).toBe(0o600)
  told.reach(4 * minute)
  told.reach(6 * minute)
  expect(statSync(path).ino).toBe(ino)
  expect([told.most, new ToldCursors(dataDir).most]).toEqual([6 * minute, 6 * minute])
  told.reach(6 * minute + 1)
  expect(new ToldCursors(dataDir).most).toBe(7 * minute + 1)
})

function fresh(): string {
  const dataDir = join(folder, crypto.randomUUID())
  mkdirSync(dataDir)
  return dataDir
}
