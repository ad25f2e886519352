import { describe, expect, test } from 'bun:test'
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A file of the project, by its path from the root. */
interface Source {
  readonly path: string
  readonly text: string
}

/** @returns one complaint per offence; none when all is well */
type Check = (source: Source) => string[]

/** What each room may not import: whatever stands beside it or further right. */
const rooms = [
  // The page runs in browsers and has nothing in common with the rest.
  ['lib', 'page'],
  ['atproto'],
  ['store', 'remote'],
  ['service', 'indexer'],
  ['config'],
  ['bulk'],
  ['shard'],
  ['stream'],
  ['api', 'appview', 'cli'],
  ['serve'],
  ['worker', 'main'],
]
const linesMax = 400

const importsPointDown: Check = ({ path, text }) => {
  const from = roomOf(path)
  if (from === undefined) return path.startsWith('src/') ? [`${path}: in no known room`] : []
  return importsOf(text)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => join(dirname(path), specifier))
    .filter((target) => target.startsWith('src/'))
    .filter((target) => {
      const to = roomOf(target)
      return to === undefined || (to !== from && rankOf(to) >= rankOf(from))
    })
    .map((target) => `${path}: imports ${target}`)
}

const staysWithinTheProject: Check = ({ path, text }) =>
  importsOf(text)
    .filter((specifier) => specifier.startsWith('.'))
    .filter((specifier) => !join(dirname(path), specifier).startsWith('src/'))
    .filter((specifier) => path.startsWith('src/') && /\.[jt]s$/.test(specifier))
    .map((specifier) => `${path}: imports ${specifier} from outside src`)

/** The index alone lies in a database of its own kind: whoever else used it would need its server. */
const leavesPostgresToTheIndex: Check = ({ path, text }) =>
  path.startsWith('src/') &&
  importsOf(text).includes('postgres') &&
  !['indexer', 'appview'].includes(roomOf(path) ?? '')
    ? [`${path}: imports postgres`]
    : []

const isShort: Check = ({ path, text }) => {
  const lines = text.split('\n').length - 1
  return /\.[cm]?[jt]s$/.test(path) && lines > linesMax ? [`${path}: ${lines} lines`] : []
}

const isNoBarrel: Check = ({ path }) =>
  /(^|\/)index\.[jt]s$/.test(path) ? [`${path}: a barrel`] : []

const hasNoDefaultExport: Check = ({ path, text }) =>
  path.startsWith('src/') && /^\s*export\s+(default\b|\{[^}]*\bas\s+default\b)/m.test(text)
    ? [`${path}: a default export`]
    : []

const runsEveryTest: Check = ({ path, text }) =>
  path.endsWith('.test.ts')
    ? [...text.matchAll(/\b(?:test|it|describe)\.(?:skip|only|todo|failing)\b/g)].map(
        ([found]) => `${path}: ${found}`,
      )
    : []

const namesNoMachine: Check = ({ path, text }) =>
  [...text.matchAll(/(?<![\w./-])\/(?:root|home|Users|work|tmp|mnt)\/[\w.-]+/g)].map(
    ([found]) => `${path}: ${found}`,
  )

const files = await projectFiles()

describe('the project', () => {
  test('has files to look at', () => {
    expect(files.some(({ path }) => path === 'test/tidy.test.ts')).toBe(true)
  })

  const facts: [string, Check][] = [
    ['imports point one way', importsPointDown],
    ['the program imports nothing from outside src', staysWithinTheProject],
    ['the index alone uses PostgreSQL', leavesPostgresToTheIndex],
    [`no file has more than ${linesMax} lines`, isShort],
    ['no file is a barrel', isNoBarrel],
    ['the program has no default exports', hasNoDefaultExport],
    ['no test is left out or singled out', runsEveryTest],
    ['no file names a folder of somebody’s machine', namesNoMachine],
  ]
  for (const [fact, check] of facts) {
    test(fact, () => {
      expect(files.flatMap(check)).toEqual([])
    })
  }
})

describe('the checks can fail', () => {
  const cases: [Check, Source, Source][] = [
    [
      importsPointDown,
      { path: 'src/lib/a.ts', text: `import { b } from '../atproto/b.ts'` },
      { path: 'src/atproto/b.ts', text: `import { a } from '../lib/a.ts'` },
    ],
    [
      importsPointDown,
      { path: 'src/store/a.ts', text: `import {\n  b,\n} from '../remote/b.ts'` },
      { path: 'src/store/a.ts', text: `import { b } from './b.ts'` },
    ],
    [
      importsPointDown,
      { path: 'src/service/a.ts', text: `import type { Api } from '../api/server.ts'` },
      { path: 'src/main.ts', text: `import type { Api } from './api/server.ts'` },
    ],
    [
      importsPointDown,
      { path: 'src/shard/a.ts', text: `const late = await import('../api/server.ts')` },
      { path: 'src/shard/a.ts', text: `const late = await import('../service/write.ts')` },
    ],
    [
      importsPointDown,
      { path: 'src/api/a.ts', text: `export { run } from '../main.ts'` },
      { path: 'src/api/a.ts', text: `export { run } from '../config.ts'` },
    ],
    [
      importsPointDown,
      { path: 'src/helpers/a.ts', text: '' },
      { path: 'test/helpers/a.ts', text: '' },
    ],
    [
      staysWithinTheProject,
      { path: 'src/api/a.ts', text: `import { b } from '../../test/kit/b.ts'` },
      { path: 'src/api/a.ts', text: `import version from '../../package.json'` },
    ],
    [
      importsPointDown,
      { path: 'src/indexer/a.ts', text: `import { b } from '../appview/b.ts'` },
      { path: 'src/appview/a.ts', text: `import { b } from '../indexer/b.ts'` },
    ],
    [
      leavesPostgresToTheIndex,
      { path: 'src/store/a.ts', text: `import postgres from 'postgres'` },
      { path: 'src/appview/a.ts', text: `import type { Sql } from 'postgres'` },
    ],
    [
      isShort,
      { path: 'src/lib/a.ts', text: '\n'.repeat(linesMax + 1) },
      { path: 'src/lib/a.ts', text: '\n'.repeat(linesMax) },
    ],
    [
      isNoBarrel,
      { path: 'src/lib/index.ts', text: '' },
      { path: 'src/lib/block-index.ts', text: '' },
    ],
    [
      hasNoDefaultExport,
      { path: 'src/lib/a.ts', text: 'const a = 1\nexport { a as default }' },
      { path: 'src/lib/a.ts', text: 'const a = 1\nexport { a }' },
    ],
    [
      hasNoDefaultExport,
      { path: 'src/lib/a.ts', text: 'export default function a() {}' },
      { path: 'src/lib/a.ts', text: 'export const defaultLimit = 1' },
    ],
    // Joined here, or this file would be its own offence.
    [
      runsEveryTest,
      { path: 'test/a.test.ts', text: ['test', 'only'].join('.') },
      { path: 'test/a.test.ts', text: 'test.skipIf(absent)' },
    ],
    [
      runsEveryTest,
      { path: 'test/a.test.ts', text: ['describe', 'skip'].join('.') },
      { path: 'test/a.ts', text: 'array.only' },
    ],
    [
      namesNoMachine,
      { path: 'src/a.ts', text: `'${['', 'home', 'someone'].join('/')}'` },
      { path: 'src/a.ts', text: 'https://example.com/home/someone' },
    ],
  ]
  for (const [check, bad, good] of cases) {
    test(`${bad.path}: ${JSON.stringify(bad.text).slice(0, 60)}`, () => {
      expect(check(bad)).toHaveLength(1)
      expect(check(good)).toEqual([])
    })
  }
})

/** Every source, test and script that is ours. */
async function projectFiles(): Promise<Source[]> {
  const root = fileURLToPath(new URL('../', import.meta.url))
  const folders = await Promise.all(
    ['src', 'test', 'bench', '.ci'].map(async (folder) => {
      const names = await readdir(join(root, folder), { recursive: true }).catch(nothing)
      return names.map((name) => join(folder, name))
    }),
  )
  const paths = [...folders.flat(), 'Dockerfile', 'README.md', 'package.json'].filter(
    (path) =>
      !path.includes('node_modules') && /(\.([cm]?[jt]s|json|md|sql)|run|Dockerfile)$/.test(path),
  )
  const found = await Promise.all(
    paths.map(async (path) => {
      const file = Bun.file(join(root, path))
      return (await file.exists()) ? [{ path, text: await file.text() }] : []
    }),
  )
  return found.flat()
}

/** A folder that is not there has no files. */
function nothing(error: unknown): string[] {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
  throw error
}

/** Static and dynamic imports, of types too, and re-exports. */
function importsOf(text: string): string[] {
  const patterns = [
    /^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /^\s*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\s*\(\s*['"]([^'"]+)['"]/g,
  ]
  return patterns.flatMap((pattern) => [...text.matchAll(pattern)].map(([, found]) => found ?? ''))
}

/** `src/{room}/...`, or `src/{room}.ts` for a file that stands alone. */
function roomOf(path: string): string | undefined {
  const room = /^src\/([\w-]+)(?:\/|\.ts$)/.exec(path)?.[1]
  return rooms.flat().find((known) => known === room)
}

function rankOf(room: string): number {
  return rooms.findIndex((names) => names.includes(room))
}
