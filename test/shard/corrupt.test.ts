import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SigningKey } from '../../src/atproto/keys.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds } from './pools.ts'

const folder = temporaryFolder()

const tamperings: Record<string, (actor: Actor) => void> = {
  'a record that claims the CID of another': sql(`update stratos_record
    set cid = (select cid from stratos_record where rkey = 'two') where rkey = 'one'`),
  'a record that is gone': sql(`delete from stratos_record where rkey = 'one'`),
  'a record under another key': sql(`update stratos_record
    set rkey = 'other', uri = replace(uri, '/one', '/other') where rkey = 'one'`),
  'a record that nobody signed for': sql(`insert into stratos_record
    select uri || 'x', cid, collection, rkey || 'x', "repoRev", "indexedAt", null, "blockId"
    from stratos_record where rkey = 'one'`),
  'a head with another rev': sql(`update stratos_repo_root set rev = '2222222222222'`),
  'a commit that is no commit': sql(`update stratos_repo_root
    set content = cast(x'a0' as blob)`),
  "somebody else's key": (actor) => {
    writeFileSync(join(actor.folder, 'signing_key'), SigningKey.generate().exportHex())
  },
}

test.each(Object.entries(tamperings))('%s stops writes and export', async (name, tamper) => {
  const dataDir = join(folder, name.replaceAll(/\W+/g, '-'))
  const before = await House.open('inline', dataDir)
  const { did, signingKey } = await writtenActor(before)
  await before.pool.close()
  const house = await House.open('inline', dataDir)
  const actor = house.known(did, signingKey)
  tamper(actor)
  const stored = dump(actor)

  const failed = { status: 500, error: 'InternalServerError', message: 'Internal Server Error' }
  expect(await failureOf(actor.create('three'))).toMatchObject(failed)
  expect(await failureOf(actor.remove('two'))).toMatchObject(failed)
  expect(await failureOf(actor.export())).toMatchObject(failed)
  expect(dump(actor)).toEqual(stored)
  await house.pool.close()
  expect(house.log.filter((line) => line.includes('shard.request.failed'))).toHaveLength(2)
  expect(house.log.filter((line) => line.includes('bulk.failed'))).toHaveLength(1)
  const named = house.log.every((line) => /RepoCorrupt|CommitError/.test(line))
  expect(named && house.log.every((line) => line.includes(did))).toBeTrue()
})

test('a database without its key file gets no other key', async () => {
  const dataDir = join(folder, 'keyless')
  const before = await House.open('inline', dataDir)
  const actor = await writtenActor(before)
  await before.pool.close()
  rmSync(join(actor.folder, 'signing_key'))
  const house = await House.open('inline', dataDir)
  const call = { kind: 'key' } as const
  expect(await failureOf(house.pool.call(actor.did, 'test', call))).toMatchObject({ status: 500 })
  expect(existsSync(join(actor.folder, 'signing_key'))).toBeFalse()
  expect(house.log.at(-1)).toContain('restore')
  await house.pool.close()
})

test.each<[string, (actor: Actor) => void]>([
  [
    'altered content of a record',
    sql(`update stratos_repo_block set content = cast(x'a0' as blob) where id = 1`),
  ],
  ['content that is gone', sql('delete from stratos_repo_block where id = 1')],
  [
    'a head under another CID',
    sql(`update stratos_repo_root
      set cid = (select cid from stratos_record where rkey = 'one')`),
  ],
])('%s stops the export', async (name, tamper) => {
  const house = await House.open('inline', join(folder, name.replaceAll(/\W+/g, '-')))
  const actor = await writtenActor(house)
  await actor.stored()
  tamper(actor)
  expect(await failureOf(actor.export())).toMatchObject({ status: 500 })
  expect(house.log.at(-1)).toContain('RepoCorrupt')
  await house.pool.close()
})

test.each(kinds)('%s: a tampered repo does not stop its neighbours', async (kind) => {
  const dataDir = join(folder, kind)
  const before = await House.open(kind, dataDir)
  const bad = await writtenActor(before)
  const good = await writtenActor(before)
  await before.pool.close()
  const house = await House.open(kind, dataDir)
  tamperings['a record that is gone']?.(bad)
  const [badNow, goodNow] = [bad, good].map((one) => house.known(one.did, one.signingKey))
  const writes = await Promise.allSettled([badNow?.create('three'), goodNow?.create('three')])
  expect(writes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled'])
  expect((await goodNow?.verified())?.rkeys).toEqual(['one', 'three', 'two'])
  expect(house.died).toEqual([])
  await house.pool.close()
})

async function writtenActor(house: House): Promise<Actor> {
  const actor = await house.actor()
  await Promise.all([actor.create('one'), actor.create('two')])
  return actor
}

function sql(text: string): (actor: Actor) => void {
  return (actor) => {
    using database = new Database(actor.database)
    expect(database.run(text).changes).toBe(1)
  }
}

function dump(actor: Actor): unknown[] {
  using database = new Database(actor.database, { readonly: true })
  const tables = ['repo_root', 'repo_block', 'record', 'record_boundary', 'seq', 'outbox']
  return tables.map((name) => database.query(`select * from stratos_${name}`).all())
}
