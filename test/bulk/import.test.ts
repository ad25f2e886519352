import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { failureOf } from '../kit/wait.ts'
import { collection, post } from '../service/posts.ts'
import { type Actor, House, kinds } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { importInto } from './arriving.ts'
import { dumpOf } from './dump.ts'
import { ForeignRepo } from './foreign-repo.ts'

const folder = temporaryFolder()

describe.each(kinds)('%s', (kind) => {
  let house: House
  let actor: Actor

  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
    actor = await house.actor()
  })
  afterAll(async () => {
    await house.bulk.close()
    await house.pool.close()
  })

  test('a CAR that is cut changes nothing', async () => {
    const before = await present(actor)
    const repo = new ForeignRepo(actor.did, posts(3))
    const failure = await failureOf(importInto(house, actor, { car: repo.car().slice(0, -1) }))
    expect(failure).toMatchObject({ status: 400, error: 'InvalidCar' })
    expect(await present(actor)).toEqual(before)
  })

  test('a repo that was filled verifies by the key of here, and goes on', async () => {
    const repo = new ForeignRepo(actor.did, posts(450))
    const before = await actor.verified()
    const imported = await importInto(house, actor, { car: repo.car() })
    expect(imported).toEqual({ records: 450, rewritten: 0 })
    const { rev, cids } = await actor.verified()
    expect(rev > before.rev).toBeTrue()
    expect(cids).toEqual(new Map(repo.cids))
    const { commit } = await actor.create('one-more')
    expect(commit?.rev ?? '').toBe((await actor.verified()).rev)
  })
})

/** All that there is of somebody. */
async function present(actor: Actor) {
  return { database: dumpOf(await actor.stored()), export: await actor.verified() }
}

function posts(count: number): Record<string, unknown> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => {
      const text = `post ${index}`
      return [`${collection}/${String(index).padStart(6, '0')}`, post({ text })]
    }),
  )
}
