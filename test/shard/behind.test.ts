import { Database } from 'bun:sqlite'
import { describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { failureOf } from '../kit/wait.ts'
import { journalBytes, recovered } from '../store/journaled.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { post } from '../service/posts.ts'
import { type Actor, House, kinds } from './pools.ts'

const folder = temporaryFolder()

describe.each(kinds)('%s: a database that refuses what was acknowledged', (kind) => {
  test('is not closed before it has it, however many others are asked for', async () => {
    const dataDir = join(folder, `${kind}-evicted`)
    const house = await House.open(kind, dataDir, [{ handlesMax: 2 }])
    const [bad, one, two] = [await house.actor(), await house.actor(), await house.actor()]
    await bad.create('first')
    refuse(bad, 'second')
    await bad.create('second')
    for (let round = 0; round < 3; round++) {
      for (const other of [one, two]) await other.create(`at-${round}`)
      expect(await failureOf(bad.read('first'))).toMatchObject({ status: 500 })
    }
    const late = await failureOf(bad.export())
    expect(late).toMatchObject({ error: 'InternalServerError', message: 'Internal Server Error' })
    accept(bad)
    expect((await bad.verified()).rkeys).toEqual(['first', 'second'])
    await bad.create('third')
    expect((await bad.verified()).rkeys).toEqual(['first', 'second', 'third'])
    expect((await one.verified()).rkeys).toEqual(['at-0', 'at-1', 'at-2'])
    await house.pool.close()
  })

  test('has it at the next start, if it can by then', async () => {
    const dataDir = join(folder, `${kind}-closed`)
    const before = await House.open(kind, dataDir)
    const [bad, good] = [await before.actor(), await before.actor()]
    await bad.create('first')
    refuse(bad, 'second')
    await Promise.all([bad.create('second'), good.create('second')])
    await before.pool.close()

    const house = await House.open(kind, dataDir)
    const [badNow, goodNow] = [bad, good].map((one) => house.known(one.did, one.signingKey))
    expect(await failureOf(badNow?.create('third') ?? Promise.resolve())).toMatchObject({
      status: 500,
    })
    expect((await goodNow?.verified())?.rkeys).toEqual(['second'])
    accept(bad)
    expect((await badNow?.verified())?.rkeys).toEqual(['first', 'second'])
    await badNow?.create('third')
    expect((await badNow?.verified())?.rkeys).toEqual(['first', 'second', 'third'])
    await house.pool.close()
  })
})

test.each(kinds)('%s: of a repo that is erased nothing is left, in no file', async (kind) => {
  const dataDir = join(folder, `${kind}-erased`)
  const house = await House.open(kind, dataDir)
  const [leaver, neighbour] = [await house.actor(), await house.actor()]
  await Promise.all([leaver.create('one'), neighbour.create('one')])
  expect(journalBytes(dataDir).includes(leaver.did)).toBeTrue()
  await house.pool.call(leaver.did, 'test', { kind: 'leave' })
  await house.pool.call(leaver.did, 'test', { kind: 'erase' })
  expect(journalBytes(dataDir).includes(leaver.did)).toBeFalse()
  expect(existsSync(leaver.folder)).toBeFalse()
  await neighbour.create('two')
  expect((await neighbour.verified()).rkeys).toEqual(['one', 'two'])
  await house.pool.close()
})

test('a failure to store is logged with its cause, and without the text of a record', async () => {
  const house = await House.open('inline', join(folder, 'logged'))
  const actor = await house.actor()
  refuse(actor, 'one')
  await actor.create('one', { record: post({ text: 'my secret' }) })
  expect(await failureOf(actor.read('one'))).toMatchObject({ status: 500 })
  await house.pool.close()
  const log = house.log.join('\n')
  expect(log).toContain('actor.changes.unstored')
  expect(log).toContain('refused')
  expect(log).toContain(actor.did)
  expect(log).not.toContain('my secret')
})

test.each(kinds)(
  '%s: an end that cannot store what waits leaves it to the next start',
  async (kind) => {
    const dataDir = join(folder, `${kind}-left`)
    const before = await House.open(kind, dataDir)
    const [bad, good] = [await before.actor(), await before.actor()]
    await Promise.all([bad.create('first'), good.create('first')])
    refuse(bad, 'second')
    // Not even beside the database is there room for it.
    mkdirSync(join(bad.folder, 'unstored.json'))
    await Promise.all([bad.create('second'), good.create('second')])
    await before.pool.close()
    expect(readdirSync(join(dataDir, 'journal'))).toHaveLength(2)

    rmdirSync(join(bad.folder, 'unstored.json'))
    accept(bad)
    await recovered(dataDir)
    const house = await House.open(kind, dataDir)
    const [badNow, goodNow] = [bad, good].map((one) => house.known(one.did, one.signingKey))
    expect((await badNow?.verified())?.rkeys).toEqual(['first', 'second'])
    expect((await goodNow?.verified())?.rkeys).toEqual(['first', 'second'])
    await house.pool.close()
  },
)

/** From now on this actor's database refuses a record of that key. */
function refuse(actor: Actor, rkey: string): void {
  change(
    actor,
    `create trigger refuse before insert on stratos_record when new.rkey = '${rkey}'
      begin select raise(abort, 'refused'); end`,
  )
}

function accept(actor: Actor): void {
  change(actor, 'drop trigger refuse')
}

function change(actor: Actor, sql: string): void {
  using database = new Database(actor.database)
  database.run(sql)
}
