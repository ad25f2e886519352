import { Database } from 'bun:sqlite'
import { afterEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { parseDid } from '../../src/atproto/syntax.ts'
import { ActorOutbox } from '../../src/store/actor-outbox.ts'
import { DepartureStore } from '../../src/store/departure.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { migrateSqlite, type Migrations, MigrationError } from '../../src/store/migrate.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const open: Sqlite[] = []

afterEach(async () => {
  for (const sqlite of open.splice(0)) await sqlite.close()
})

const one = 'create table one (name text);\n'
const two = "alter table one add column size integer;\ninsert into one values ('two', 2);\n"

test('a database of a newer program is refused and left alone', async () => {
  const sqlite = fresh()
  await migrateSqlite(sqlite, { '0001-one.sql': one, '0002-two.sql': two })
  const failure = await failureOf(migrateSqlite(sqlite, { '0001-one.sql': one }))
  expect(failure).toBeInstanceOf(MigrationError)
  expect(String(failure)).toMatch(/version 2.*up to 1.*newer program/)
  expect(await version(sqlite)).toBe(2)
  expect(await failureOf(migrateSqlite(sqlite, {}))).toBeInstanceOf(MigrationError)
})

test('a migration that fails half way leaves nothing of itself', async () => {
  const sqlite = fresh()
  const half = "insert into one values ('half'); create table half (name text); drop table absent"
  const failure = await failureOf(
    migrateSqlite(sqlite, { '0001-one.sql': one, '0002-half.sql': half, '0003-two.sql': two }),
  )
  expect(failure).toBeInstanceOf(MigrationError)
  expect(failure).toMatchObject({
    message: 'migration 0002-half.sql failed',
    cause: { message: expect.stringContaining('absent') },
  })
  expect(await version(sqlite)).toBe(1)
  expect(await tables(sqlite)).toEqual(['one'])
  expect(await sqlite.all('select name from one')).toEqual([])
})

test('a database whose migration failed takes the repaired one', async () => {
  const sqlite = fresh()
  await failureOf(migrateSqlite(sqlite, { '0001-one.sql': one, '0002-two.sql': 'nonsense' }))
  await migrateSqlite(sqlite, { '0001-one.sql': one, '0002-two.sql': two })
  expect(await version(sqlite)).toBe(2)
  expect(await sqlite.all<object>('select name, size from one')).toEqual([{ name: 'two', size: 2 }])
})

test('migrations run in the order of their numbers, each once', async () => {
  const sqlite = fresh()
  const migrations = {
    '0010-ten.sql': "insert into log (name) values ('ten')",
    '0002-two.sql': "insert into log (name) values ('two')",
    '0001-one.sql': 'create table log (place integer primary key, name text)',
    '0009-nine.sql': "insert into log (name) values ('nine')",
  }
  await migrateSqlite(sqlite, migrations)
  await migrateSqlite(sqlite, migrations)
  const log = await sqlite.all<{ name: string }>('select name from log order by place')
  expect(log.map(({ name }) => name)).toEqual(['two', 'nine', 'ten'])
  expect(await version(sqlite)).toBe(10)
})

test('a database that is behind gets only what it lacks', async () => {
  const sqlite = fresh()
  await migrateSqlite(sqlite, { '0001-one.sql': one })
  await migrateSqlite(sqlite, { '0001-one.sql': 'nonsense by now', '0002-two.sql': two })
  expect(await version(sqlite)).toBe(2)
})

test('a migration may end in a comment', async () => {
  const sqlite = fresh()
  await migrateSqlite(sqlite, { '0001-one.sql': `${one}-- the end` })
  expect(await version(sqlite)).toBe(1)
  expect(await tables(sqlite)).toEqual(['one'])
})

test('another handle sees a migration whole or not at all', async () => {
  const path = join(folder, 'shared.sqlite')
  const sqlite = kept(openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: false }))
  const half = 'create table half (name text); drop table absent'
  await failureOf(migrateSqlite(sqlite, { '0001-half.sql': half }))
  using other = new Database(path, { readonly: true })
  expect(other.query('select name from sqlite_master').all()).toEqual([])
})

test('the migrations of this program make what it needs', async () => {
  const actor = fresh()
  await migrateSqlite(actor, texts('migrations/actor/sqlite'))
  expect(await tables(actor)).toEqual([
    'stratos_backlink',
    'stratos_blob',
    'stratos_due',
    'stratos_outbox',
    'stratos_outbox_budget',
    'stratos_pruned',
    'stratos_record',
    'stratos_record_blob',
    'stratos_record_boundary',
    'stratos_repo_block',
    'stratos_repo_root',
    'stratos_seq',
  ])
  const service = fresh()
  await migrateSqlite(service, texts('migrations/service/sqlite'))
  expect(await tables(service)).toContain('enrollment')
})

test('what a version before stored is there after its databases were brought forward', async () => {
  const service = fresh()
  await migrateSqlite(service, firstOf(texts('migrations/service/sqlite')))
  const did = parseDid('did:plc:alicealicealicealicealic')
  const enrollment = `insert into enrollment values
    ('${did}', 'https://pds.test', 'did:key:z', 'self', '2026-11-01', 1, 'atproto', 0)`
  await service.run([{ sql: enrollment, args: [] }])
  await migrateSqlite(service, texts('migrations/service/sqlite'))
  expect(await new ServiceStore(service).enrollment(did)).toMatchObject({ did, active: true })
  expect(await new DepartureStore(service).unerased()).toEqual([])

  const actor = fresh()
  await migrateSqlite(actor, firstOf(texts('migrations/actor/sqlite')))
  const parked = `insert into stratos_outbox values
    ('zone.stratos.feed.post', 'one', 1, '{}', null, 0, 3, 0, 'the PDS refused')`
  await actor.run([{ sql: parked, args: [] }])
  await migrateSqlite(actor, texts('migrations/actor/sqlite'))
  expect(await new ActorOutbox(actor).state(1)).toMatchObject({ pending: 0, parkedCount: 1 })
})

/** What the first version had. */
function firstOf(migrations: Migrations): Migrations {
  return Object.fromEntries(Object.entries(migrations).slice(0, 1))
}

let count = 0

function fresh(): Sqlite {
  const path = join(folder, `${++count}.sqlite`)
  return kept(openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true }))
}

function kept(sqlite: Sqlite): Sqlite {
  open.push(sqlite)
  return sqlite
}

async function version(sqlite: Sqlite): Promise<number | undefined> {
  const [row] = await sqlite.all<{ user_version: number }>('pragma user_version')
  return row?.user_version
}

async function tables(sqlite: Sqlite): Promise<string[]> {
  const rows = await sqlite.all<{ name: string }>(
    `select name from sqlite_master where type = 'table' and name not like 'sqlite%' order by name`,
  )
  return rows.map(({ name }) => name)
}
