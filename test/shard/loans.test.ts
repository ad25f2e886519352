import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds, newDid } from './pools.ts'

const folder = temporaryFolder()
const present = { status: 409, error: 'RepoAlreadyExists' }
const missing = { status: 404, error: 'RepoNotFound' }

describe.each(kinds)('%s', (kind) => {
  let house: House
  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind), [{ handlesMax: 2 }])
  })
  afterAll(async () => {
    await house.pool.close()
    expect(house.died).toEqual([])
  })
  const lend = ({ did }: Pick<Actor, 'did'>) => house.pool.call(did, 'test', { kind: 'lend' })
  const giveBack = ({ did }: Pick<Actor, 'did'>) => house.pool.call(did, 'test', { kind: 'return' })

  test('what is not there, or has records, is not lent', async () => {
    expect(await failureOf(lend({ did: newDid() }))).toMatchObject(missing)
    const actor = await house.actor()
    const created = actor.create('one')
    expect(await failureOf(lend(actor))).toMatchObject(present)
    await created
    await actor.create('two')
    expect((await actor.rkeys()).toSorted()).toEqual(['one', 'two'])
  })

  test('what is lent has its head of after all writes that came before', async () => {
    const actor = await house.actor()
    const made = actor.create('one')
    const removed = actor.remove('one')
    const { head } = await lend(actor)
    const { commit } = await removed
    expect(head).toMatchObject({ rev: commit?.rev ?? '', cid: commit?.cid ?? '', lastBlock: 1 })
    await made
    await giveBack(actor)
  })

  test('what is lent is lent to nobody else until it is back', async () => {
    const actor = await house.actor()
    await lend(actor)
    let isLent = false
    const second = lend(actor).then(() => (isLent = true))
    await actor.rkeys()
    expect(isLent).toBeFalse()
    await giveBack(actor)
    await second
    const write = actor.create('one')
    await giveBack(actor)
    expect(await write).toHaveProperty('commit')
  })

  test('what was not lent cannot be given back', async () => {
    const actor = await house.actor()
    expect(await failureOf(giveBack(actor))).toMatchObject({ status: 500 })
    await actor.create('one')
  })

  test('what is lent stays open, however many others are asked for', async () => {
    const actor = await house.actor()
    await lend(actor)
    const others = await Promise.all([1, 2, 3].map(() => house.actor()))
    for (const other of others) await other.create('one')
    const write = actor.create('one')
    expect(await actor.rkeys()).toEqual([])
    await giveBack(actor)
    await write
    expect(await actor.rkeys()).toEqual(['one'])
  })

  test('whose owner leaves is not lent any more, but where that was taken back', async () => {
    const actor = await house.actor()
    await house.pool.call(actor.did, 'test', { kind: 'leave' })
    expect(await failureOf(lend(actor))).toMatchObject(missing)
    await house.pool.call(actor.did, 'test', { kind: 'stay' })
    await lend(actor)
    const leaving = house.pool.call(actor.did, 'test', { kind: 'leave' })
    const erased = leaving.then(() => house.pool.call(actor.did, 'test', { kind: 'erase' }))
    await giveBack(actor)
    await erased
    expect(await failureOf(lend(actor))).toMatchObject(missing)
  })
})
