import { expect, test } from 'bun:test'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from '../../src/config.ts'
import { allLexicons } from '../../src/serve/lexicons.ts'
import { temporaryFolder } from '../store/temporary.ts'

const root = temporaryFolder()
const thing = documentOf('com.example.thing', { type: 'string' })

test('without a folder there are those of the service', () => {
  expect(allLexicons('').map(({ id }) => id)).toContain('zone.stratos.feed.post')
})

test('those in a folder and below it are added, other files are left alone', () => {
  const path = folder({
    'a.json': thing,
    'deep/b.json': documentOf('com.example.other', {
      type: 'ref',
      ref: 'com.example.thing',
    }),
    'notes.txt': 'no lexicon',
  })
  const ids = allLexicons(path).map(({ id }) => id)
  expect(ids).toEqual([
    ...allLexicons('').map(({ id }) => id),
    'com.example.thing',
    'com.example.other',
  ])
})

test.each<[string, Record<string, unknown>, RegExp]>([
  ['that is no JSON', { 'a.json': '{' }, /a\.json/],
  ['that is no lexicon', { 'a.json': { id: 'com.example.thing' } }, /a\.json/],
  ['that is too large', { 'a.json': ' '.repeat(1024 * 1024 + 1) }, /larger than/],
  [
    'that the service has',
    { 'a.json': documentOf('zone.stratos.feed.post', { type: 'string' }) },
    /already/,
  ],
  ['that comes twice', { 'a.json': thing, 'b.json': thing }, /already/],
  [
    'that refers to nothing',
    { 'a.json': documentOf('com.example.thing', { type: 'ref', ref: 'com.example.absent' }) },
    /com\.example\.absent#main/,
  ],
  [
    'that refers to no definition of its own',
    { 'a.json': documentOf('com.example.thing', { type: 'ref', ref: '#absent' }) },
    /com\.example\.thing#absent/,
  ],
])('a lexicon %s stops the start, and is named', (_, files, message) => {
  expect(() => allLexicons(folder(files))).toThrow(ConfigError)
  expect(() => allLexicons(folder(files))).toThrow(message)
})

test('a folder that is not there stops the start', () => {
  expect(() => allLexicons(join(root, 'absent'))).toThrow(/STRATOS_LEXICON_DIR cannot be read/)
})

function documentOf(id: string, property: object) {
  const record = { type: 'object', properties: { property } }
  return { lexicon: 1, id, defs: { main: { type: 'record', key: 'any', record } } }
}

function folder(files: Readonly<Record<string, unknown>>): string {
  const path = join(root, crypto.randomUUID())
  mkdirSync(join(path, 'deep'), { recursive: true })
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(path, name), typeof content === 'string' ? content : JSON.stringify(content))
  }
  return path
}
