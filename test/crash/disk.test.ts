import { expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Dice } from './dice.ts'
import { contentsOf, type Cut, Disk } from './disk.ts'
import type { Op } from './trace.ts'

/** One after the other, each done before the next one begins. */
function after(...facts: Record<string, unknown>[]): Op[] {
  const ops = facts.map((fact, line) => Object.assign(fact, { start: line, end: line }))
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the words of the tests below
  return ops as unknown as Op[]
}

const make = (path: string) => ({ kind: 'make', path: `/root/${path}`, what: 'file' })
const sync = (path: string) => ({ kind: 'sync', path: `/root/${path}` })
const syncRoot = { kind: 'sync', path: '/root' }
const write = (path: string, at: number, text: string) => {
  return { kind: 'write', path: `/root/${path}`, at, bytes: Buffer.from(text) }
}
const resize = (path: string, size: number) => ({ kind: 'resize', path: `/root/${path}`, size })
const rename = (path: string, to: string) => {
  return { kind: 'rename', path: `/root/${path}`, to: `/root/${to}` }
}

/** Every outcome of many cuts after the last operation, each once. */
function outcomes(ops: readonly Op[], how: Partial<Cut> = {}): string[] {
  const found = new Set<string>()
  for (let seed = 0; seed < 300; seed++) {
    const folder = mkdtempSync(join(tmpdir(), 'stratos-disk-'))
    const cut = { line: ops.length, names: 'by-folder', syncs: 'all', ...how } as const
    new Disk('/root', ops).rebuild(folder, { ...cut, dice: new Dice(seed) })
    const files = [...contentsOf(folder)].map(([name, bytes]) => `${name}=${shortly(bytes)}`)
    found.add(files.join(' '))
    rmSync(folder, { recursive: true })
  }
  return [...found].toSorted()
}

/** A letter for each sector that is of one letter; a dot for zeros. */
function shortly(bytes: Buffer): string {
  const sectors = bytes.toString('latin1').match(/.{1,512}/gs) ?? []
  return sectors
    .map((sector) => new Set(sector.replaceAll('\0', '.')))
    .map((set) => [...set].join(''))
    .join('')
}

const [a, b, c] = ['a', 'b', 'c'].map((letter) => letter.repeat(1024))
const [A, B, C] = [a ?? '', b ?? '', c ?? '']

test('what was synced, with its name, is there', () => {
  const ops = after(make('x'), write('x', 0, A), sync('x'), syncRoot)
  expect(outcomes(ops)).toEqual(['x=aa'])
})

test('a name without a sync of its folder may be there or not', () => {
  const ops = after(make('x'), write('x', 0, A), sync('x'))
  expect(outcomes(ops)).toEqual(['', 'x=aa'])
  // A journal of the file system has it, as the file could not be synced without.
  expect(outcomes(ops, { names: 'in-order' })).toEqual(['x=aa'])
})

test('later writes are there, or not, or torn, in any order', () => {
  const ops = after(
    make('x'),
    write('x', 0, A),
    sync('x'),
    syncRoot,
    write('x', 0, B),
    write('x', 512, C),
  )
  const of = (first: string, second: string, third: string) => `x=${first}${second}${third}`
  const all = ['a', 'b'].flatMap((first) =>
    ['a', 'b', 'c'].flatMap((second) => ['', '.', 'c'].map((third) => of(first, second, third))),
  )
  expect(outcomes(ops)).toEqual(all.toSorted())
})

test('a sync that was still under way brings nothing', () => {
  const [last] = after(sync('x'))
  const ops = after(make('x'), syncRoot, write('x', 0, A))
  const open: Op[] = last === undefined ? [] : [...ops, { ...last, start: 3, end: Infinity }]
  expect(outcomes(open)).toEqual(['x=', 'x=..', 'x=.a', 'x=a.', 'x=aa'])
})

test('what was cut off comes back only whole, without what was written after it', () => {
  const ops = after(
    make('x'),
    write('x', 0, A),
    sync('x'),
    syncRoot,
    resize('x', 0),
    write('x', 0, B),
  )
  expect(outcomes(ops)).toEqual(['x=', 'x=..', 'x=.b', 'x=aa', 'x=b.', 'x=bb'])
})

test('a file that takes the place of another one does so in one step', () => {
  const files = [make('x'), write('x', 0, A), sync('x'), make('y'), write('y', 0, B), sync('y')]
  const ops = after(...files, syncRoot, rename('y', 'x'))
  expect(outcomes(ops)).toEqual(['x=aa y=bb', 'x=bb'])
  expect(outcomes(after(...files, syncRoot, rename('y', 'x'), syncRoot))).toEqual(['x=bb'])
})

test('without syncs nothing is sure', () => {
  const ops = after(make('x'), write('x', 0, A), sync('x'), syncRoot)
  expect(outcomes(ops, { syncs: 'none' })).toEqual(['', 'x=', 'x=..', 'x=.a', 'x=a.', 'x=aa'])
  expect(outcomes(ops, { syncs: 'of files' })).toEqual(['', 'x=aa'])
})
