import { afterAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { XrpcError } from '../../src/atproto/errors.ts'
import { parseDid, parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { ActorCall } from '../../src/service/calls.ts'
import type { ShardBoot } from '../../src/shard/messages.ts'
import type { View } from '../../src/store/actor.ts'
import { eventually, failureOf, within } from '../kit/wait.ts'
import { a, b, collection, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { House, type Kind, kinds, newDid } from './pools.ts'

const houses: House[] = []
// Before the folder goes.
afterAll(async () => {
  for (const { pool } of houses) await pool.close()
})
const folder = temporaryFolder()

const look: ActorCall = { kind: 'outbox', limit: 1 }
const overloaded = { status: 503, error: 'Overloaded', headers: { 'retry-after': '1' } }

describe.each(kinds)('%s', (kind) => {
  test('of one actor 64 requests are taken at once, and more are refused', async () => {
    const house = await open(kind, 'actor')
    const [actor, neighbour] = [await house.actor(), await house.actor()]
    const calls = Array.from({ length: 70 }, (_, index) => failureOf(actor.create(`${index}`)))
    const other = neighbour.create('one')
    const failures = (await Promise.all(calls)).map((failure) => failure !== undefined)
    expect(failures).toEqual(Array.from({ length: 70 }, (_, index) => index >= 64))
    expect(await calls[69]).toMatchObject(overloaded)
    await other
    // What was refused left nothing behind, and the next one finds room.
    await actor.create('next')
    expect((await actor.verified()).rkeys).toHaveLength(65)
  })

  test('readers do not keep an owner from writing, nor either of them the service itself', async () => {
    const house = await open(kind, 'readers')
    const actor = await house.actor()
    await actor.create('one')
    const reads = Array.from({ length: 70 }, () => failureOf(actor.read('one')))
    const write = actor.create('two')
    const service = house.pool.call(actor.did, 'test', look)
    const names = (await Promise.all(reads)).map((failure) => nameOf(failure))
    expect(names).toEqual(names.map((_, index) => (index < 64 ? undefined : 'Overloaded')))
    await Promise.all([write, service])
  })

  test('of all actors a thousand requests are taken at once, and more are refused', async () => {
    const house = await open(kind, 'all')
    const lent = await house.actor()
    await house.pool.call(lent.did, 'test', { kind: 'lend' })
    const dids = Array.from({ length: 20 }, newDid)
    const calls = Array.from({ length: 1_010 }, (_, index) =>
      failureOf(house.pool.call(dids[index % 20] ?? newDid(), 'test', look)),
    )
    // But a repo that was closed is opened again, and one that was lent is given back.
    await Promise.all([
      house.pool.call(newDid(), 'test', { kind: 'stay' }),
      house.pool.call(lent.did, 'test', { kind: 'return' }),
    ])
    const names = (await Promise.all(calls)).map((failure) => nameOf(failure))
    expect(names.slice(0, 1_000).every((name) => name === 'RepoNotFound')).toBeTrue()
    expect(names.slice(1_000).every((name) => name === 'Overloaded')).toBeTrue()
    expect(nameOf(await failureOf(house.pool.call(newDid(), 'test', look)))).toBe('RepoNotFound')
    await lent.create('one')
  })

  test('of bytes 32 MiB are taken at once, and more are refused', async () => {
    const house = await open(kind, 'bytes')
    const [one, two] = [await house.actor(), await house.actor()]
    const record = post({ extra: 'x'.repeat(17 * 1024 * 1024) })
    const [first, second, small] = await Promise.all([
      failureOf(one.create('big', { record })),
      failureOf(two.create('big', { record })),
      failureOf(two.create('small')),
    ])
    expect(nameOf(first)).toBe('RecordTooLarge')
    expect(second).toMatchObject(overloaded)
    expect(small).toBeUndefined()
    expect(nameOf(await failureOf(two.create('big', { record })))).toBe('RecordTooLarge')
  })

  test('closing answers what is in flight', async () => {
    const house = await House.open(kind, join(folder, `${kind}-closing`))
    const actor = await house.actor()
    const writes = Array.from({ length: 20 }, () => actor.create())
    const closed = house.pool.close()
    expect((await Promise.all(writes)).every(({ commit }) => commit !== undefined)).toBeTrue()
    await closed
    expect(house.died).toEqual([])
    const again = await open(kind, 'closing')
    expect(await again.known(actor.did, actor.signingKey).rkeys()).toHaveLength(20)
  })

  test('targets are found by the boundaries that the asker shares', async () => {
    const house = await open(kind, 'targets')
    const actor = await house.actor()
    await actor.create('one')
    const uris = ['one', 'two'].map((key) => recordUri(actor.did, collection, parseRkey(key)))
    const ask = (view: View) => house.pool.call(actor.did, 'test', { kind: 'targets', uris, view })
    const found = { boundaries: { [uris[0] ?? '']: [a] } }
    expect<object>(await ask('all')).toEqual(found)
    expect<object>(await ask({ boundaries: [a, b] })).toEqual(found)
    expect<object>(await ask({ boundaries: [b] })).toEqual({ boundaries: {} })
  })
})

describe('workers', () => {
  test('share the actors among them, each always owned by the same one', async () => {
    const clockIds = [1, 2, 3, 4]
    const house = await open(
      'worker',
      'shared',
      clockIds.map((clockId) => ({ clockId })),
    )
    const makers = new Map<string, number>()
    for (let index = 0; index < 40; index++) {
      const actor = await house.actor(parseDid(`did:web:actor-${index}.test`))
      const answers = [await actor.create(), await actor.create()]
      // The last two characters of a TID say which shard made it.
      const [maker = '', ...others] = answers.map(({ commit }) => commit?.rev.slice(-2) ?? '')
      expect(others).toEqual([maker])
      makers.set(maker, (makers.get(maker) ?? 0) + 1)
    }
    expect([...makers.keys()].toSorted()).toEqual(['23', '24', '25', '26'])
    // Forty over four: a quarter each, give or take.
    for (const count of makers.values()) expect(count).toBeWithin(2, 21)
  })

  test('that throw outside of a request are reported', async () => {
    const house = await House.open('worker', join(folder, 'throwing'), [{ name: 'shard-7' }])
    const actor = await house.actor()
    await actor.create('one')
    const [worker] = house.workers
    worker?.postMessage('this is no batch')
    const report = await eventually('report', () => house.died[0], { everyMs: 5 })
    expect(report).toMatch(/^shard-7: [^]*JSON Parse error/)
  })

  test('that end by themselves are reported', async () => {
    const house = await House.open('worker', join(folder, 'ending'), [{ name: 'shard-8' }])
    house.workers[0]?.terminate()
    await eventually('report', () => house.died[0], { everyMs: 5 })
    expect(house.died).toEqual(['shard-8: the thread ended'])
  })

  test('that are told to close are not', async () => {
    const house = await House.open('worker', join(folder, 'closed'))
    const ended = Promise.withResolvers<unknown>()
    house.workers[0]?.addEventListener('close', ended.resolve)
    await within(5_000, 'end of the pool', house.pool.close())
    await within(5_000, 'end of the thread', ended.promise)
    expect(house.died).toEqual([])
  })
})

async function open(...[kind, name, over]: [Kind, string, Partial<ShardBoot>[]?]) {
  const house = await House.open(kind, join(folder, `${kind}-${name}`), over)
  houses.push(house)
  return house
}

function nameOf(failure: unknown): string | undefined {
  return failure instanceof XrpcError ? failure.error : undefined
}
