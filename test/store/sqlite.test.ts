import { afterEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { RowsMismatch, type SqlValue } from '../../src/store/sql.ts'
import { openSqlite, type Sqlite, type SqliteOptions } from '../../src/store/sqlite.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const shared: SqliteOptions = { synchronous: 'normal', cacheKib: 256, exclusive: false }
const open: Sqlite[] = []

afterEach(async () => {
  for (const sqlite of open.splice(0)) await sqlite.close()
})

describe('a batch', () => {
  test('that fails in the middle changes nothing', async () => {
    const sqlite = await things()
    const failure = await failureOf(
      sqlite.run([
        { sql: insert, args: ['a', 1] },
        { sql: 'update thing set size = 9', args: [] },
        { sql: insert, args: ['a', 2] },
        { sql: insert, args: ['b', 3] },
      ]),
    )
    expect(failure).toMatchObject({ code: 'SQLITE_CONSTRAINT_PRIMARYKEY' })
    expect(await all(sqlite)).toEqual([{ name: 'first', size: 0 }])
  })

  test('with a statement that touches too few rows changes nothing', async () => {
    const sqlite = await things()
    const failure = await failureOf(
      sqlite.run([
        { sql: insert, args: ['a', 1], rows: 1 },
        { sql: 'update thing set size = 9 where name = $1', args: ['absent'], rows: 1 },
      ]),
    )
    expect(failure).toBeInstanceOf(RowsMismatch)
    expect(failure).toMatchObject({ index: 1 })
    expect(await all(sqlite)).toEqual([{ name: 'first', size: 0 }])
  })

  test('with a statement that touches too many rows changes nothing', async () => {
    const sqlite = await things()
    await sqlite.run([{ sql: insert, args: ['second', 0] }])
    const failure = await failureOf(
      sqlite.run([{ sql: 'update thing set size = 9', args: [], rows: 1 }]),
    )
    expect(failure).toEqual(new RowsMismatch(0, 1, 2))
    expect((await all(sqlite)).map(({ size }) => size)).toEqual([0, 0])
  })

  test('with SQL that does not compile changes nothing, and the next one runs', async () => {
    const sqlite = await things()
    const bad = [
      { sql: insert, args: ['a', 1] },
      { sql: 'insert into nowhere values (1)', args: [] },
    ]
    expect(await failureOf(sqlite.run(bad))).toMatchObject({
      message: expect.stringContaining('nowhere'),
    })
    await sqlite.run([{ sql: insert, args: ['b', 2], rows: 1 }])
    expect(await all(sqlite)).toEqual([
      { name: 'b', size: 2 },
      { name: 'first', size: 0 },
    ])
  })

  test('of nothing is no error', async () => {
    const sqlite = await things()
    await sqlite.run([])
    expect(await all(sqlite)).toHaveLength(1)
  })

  test('may demand that a statement touches nothing', async () => {
    const sqlite = await things()
    await sqlite.run([{ sql: 'delete from thing where name = $1', args: ['absent'], rows: 0 }])
    const failure = await failureOf(
      sqlite.run([{ sql: 'delete from thing where name = $1', args: ['first'], rows: 0 }]),
    )
    expect(failure).toEqual(new RowsMismatch(0, 0, 1))
    expect(await all(sqlite)).toHaveLength(1)
  })
})

describe('parameters', () => {
  test('are bound by their numbers, not by the order in which they appear', async () => {
    const sqlite = await things()
    expect(await sqlite.all<object>('select $2 as two, $1 as one', 'one', 'two')).toEqual([
      { one: 'one', two: 'two' },
    ])
    const sql = 'insert into thing (size, name) values ($2, $1)'
    await sqlite.run([{ sql, args: ['swapped', 7], rows: 1 }])
    const found = await sqlite.all<object>(
      'select name from thing where size = $2 and name = $1 or name = $1 and size = $2',
      'swapped',
      7,
    )
    expect(found).toEqual([{ name: 'swapped' }])
  })

  test('beyond nine keep their numbers', async () => {
    const sqlite = await things()
    const names = Array.from({ length: 12 }, (_, index) => `$${12 - index} as c${12 - index}`)
    const args = Array.from({ length: 12 }, (_, index) => index + 1)
    const [row] = await sqlite.all<object>(`select ${names.join(', ')}`, ...args)
    expect(row).toEqual(Object.fromEntries(args.map((value) => [`c${value}`, value])))
  })

  test('come back as they went in: texts, integers, bytes and null', async () => {
    const sqlite = await things()
    const value: fc.Arbitrary<SqlValue> = fc.oneof(
      fc.string({ unit: 'grapheme' }).filter((text) => text.isWellFormed()),
      fc.maxSafeInteger(),
      fc.uint8Array({ maxLength: 5000 }),
      fc.constant(null),
    )
    await fc.assert(
      fc.asyncProperty(value, value, async (one, two) => {
        await sqlite.run([
          { sql: 'delete from anything', args: [] },
          { sql: 'insert into anything (one, two) values ($1, $2)', args: [one, two], rows: 1 },
        ])
        const [row] = await sqlite.all<object>('select one, two from anything')
        expect(row).toEqual({ one, two })
      }),
      { numRuns: 100 },
    )
  })
})

describe('exclusive mode', () => {
  const exclusive: SqliteOptions = { ...shared, exclusive: true }

  test('keeps a second handle out, and lets it in afterwards', async () => {
    const path = join(folder, 'one-owner.sqlite')
    const first = openSqlite(path, exclusive)
    await first.run([{ sql: 'create table thing (name text)', args: [] }])
    expect(() => openSqlite(path, exclusive)).toThrow(/locked/)
    expect(() => openSqlite(path, shared)).toThrow(/locked/)
    await first.close()
    const second = kept(openSqlite(path, exclusive))
    expect(await second.all('select name from thing')).toEqual([])
  })

  test('keeps a second process out, also on an empty file', () => {
    const path = join(folder, 'one-process.sqlite')
    kept(openSqlite(path, exclusive))
    for (const options of [exclusive, shared]) {
      const { stdout, stderr } = openElsewhere(path, options)
      expect(stderr).toBe('')
      expect(stdout).toBe('SQLITE_BUSY')
    }
  })

  test('ends with the handle, for other processes too', async () => {
    const path = join(folder, 'freed.sqlite')
    await openSqlite(path, exclusive).close()
    expect(openElsewhere(path, exclusive)).toEqual({ stdout: 'open', stderr: '' })
  })
})

test('a shared handle waits for one that has the file alone while it closes', async () => {
  const path = join(folder, 'closing.sqlite')
  const holding = `
    const database = new (require('bun:sqlite').Database)(${JSON.stringify(path)})
    database.run('pragma locking_mode = exclusive; pragma journal_mode = wal')
    database.run('create table thing (name text)')
    process.stdout.write('held')
    await Bun.sleep(300)
    database.close()`
  const child = Bun.spawn([process.execPath, '-e', holding], { stdout: 'pipe' })
  const { value } = await child.stdout.getReader().read()
  expect(new TextDecoder().decode(value)).toBe('held')
  const sqlite = kept(openSqlite(path, shared))
  expect(await sqlite.all('select name from thing')).toEqual([])
  expect(await child.exited).toBe(0)
})

test('a handle writes ahead and syncs as it was told', async () => {
  const normal = await things()
  const full = kept(
    openSqlite(join(folder, 'full.sqlite'), { ...shared, synchronous: 'full', exclusive: true }),
  )
  expect(await normal.all<object>('pragma journal_mode')).toEqual([{ journal_mode: 'wal' }])
  expect(await full.all<object>('pragma journal_mode')).toEqual([{ journal_mode: 'wal' }])
  expect(await normal.all<object>('pragma synchronous')).toEqual([{ synchronous: 1 }])
  expect(await full.all<object>('pragma synchronous')).toEqual([{ synchronous: 2 }])
})

test('a path that cannot be opened throws', () => {
  expect(() => openSqlite(join(folder, 'absent', 'a.sqlite'), shared)).toThrow()
})

const insert = 'insert into thing (name, size) values ($1, $2)'
let count = 0

/** A database with one row, and one table that takes any value. */
async function things(): Promise<Sqlite> {
  const sqlite = kept(openSqlite(join(folder, `things-${++count}.sqlite`), shared))
  sqlite.script(`create table thing (name text primary key, size integer not null) strict;
    create table anything (one any, two any) strict`)
  await sqlite.run([{ sql: insert, args: ['first', 0], rows: 1 }])
  return sqlite
}

function kept(sqlite: Sqlite): Sqlite {
  open.push(sqlite)
  return sqlite
}

function all(sqlite: Sqlite): Promise<{ name: string; size: number }[]> {
  return sqlite.all('select name, size from thing order by name')
}

/** What another process says that opens the same file. */
function openElsewhere(path: string, options: SqliteOptions): { stdout: string; stderr: string } {
  const source = new URL('../../src/store/sqlite.ts', import.meta.url).href
  const program = `
    const { openSqlite } = await import(${JSON.stringify(source)})
    try {
      openSqlite(${JSON.stringify(path)}, ${JSON.stringify(options)})
      process.stdout.write('open')
    } catch (error) {
      process.stdout.write(String(error.code))
    }`
  const { stdout, stderr } = Bun.spawnSync([process.execPath, '-e', program], {
    cwd: fileURLToPath(new URL('../../', import.meta.url)),
  })
  return { stdout: stdout.toString(), stderr: stderr.toString() }
}
