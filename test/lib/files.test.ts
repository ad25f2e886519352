import { expect, test } from 'bun:test'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeFolder, syncFolder, writeDurably } from '../../src/lib/files.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()

test('a file that cannot take its name leaves what stood there', () => {
  const place = join(folder, 'taken')
  mkdirSync(join(place, 'key', 'inner'), { recursive: true })
  expect(() => writeDurably(join(place, 'key'), 'new', 0o600)).toThrow()
  expect(readdirSync(join(place, 'key'))).toEqual(['inner'])
})

test('a file is written whole, with its mode, and no other name is left', () => {
  const place = join(folder, 'written')
  makeFolder(place)
  const path = join(place, 'key')
  writeFileSync(path, 'a longer text than the next one')
  writeDurably(path, 'short', 0o600)
  expect(readFileSync(path, 'utf8')).toBe('short')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readdirSync(place)).toEqual(['key'])
})

test('a folder comes with its parents, none of them open to others', () => {
  const path = join(folder, 'a', 'b', 'c')
  makeFolder(path)
  makeFolder(path)
  for (const part of [join(folder, 'a'), join(folder, 'a', 'b'), path]) {
    expect(statSync(part).mode & 0o777).toBe(0o700)
  }
  expect(() => syncFolder(path)).not.toThrow()
})

test('a folder that is not there cannot be brought to disk', () => {
  expect(() => syncFolder(join(folder, 'absent'))).toThrow('ENOENT')
})
