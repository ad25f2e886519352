import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { type Did, parseRkey } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { enrollmentCollection } from '../../src/atproto/enrollment.ts'
import type { Enrollments } from '../../src/service/enrollment.ts'
import type { RepoNumbers } from '../../src/store/departure.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, stubs } from './delivering.ts'
import { a, c, collection, serviceDid } from './posts.ts'

const folder = temporaryFolder()
const key = ServiceKey.generate()
const dayMs = 24 * 3_600_000
let world: Delivering
let alice: Did

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = newDid()
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

describe('leaving', () => {
  test('changes nothing for whoever is not enrolled, as often as they ask', async () => {
    await enrollments().unenroll(alice, 'test')
    await enrollments().unenroll(alice, 'test')
    expect(await world.departures.departed(alice)).toBeUndefined()
    expect(await world.store.events(0, 10)).toEqual([])
    expect(await world.store.outboxDirty()).toEqual([])
  })

  test('that cannot be stored leaves the person in, with everything', async () => {
    await enrolled('one')
    world.seams.run = async (sql) => {
      if (sql.startsWith('delete from enrollment where')) throw new Error('disk full')
    }
    expect(await failureOf(enrollments().unenroll(alice, 'test'))).toEqual(new Error('disk full'))
    world.seams.run = async () => undefined
    expect(await enrollments().find(alice)).toMatchObject({ active: true, boundaries: [a, c] })
    await post('two')
    await world.quiet()
    expect(stubsOf(alice)).toEqual(['one', 'two'])
  })

  test('ends membership, data and key at once, and then what is on the PDS', async () => {
    await enrolled('one', 'two')
    const before = await headOf(alice)
    await world.outbox.stop()
    await enrollments().unenroll(alice, 'test')
    expect(await enrollments().find(alice)).toBeUndefined()
    expect(existsSync(actor().folder)).toBeFalse()
    expect(await world.departures.departed(alice)).toEqual(before)
    expect((await world.store.events(0, 10)).map(({ action }) => action)).toEqual([
      'enroll',
      'unenroll',
    ])
    // The session is kept for the job.
    expect(await world.store.oauthSession(alice)).toBe('{}')
    expect(stubsOf(alice)).toEqual(['one', 'two'])

    await world.restart()
    await world.outbox.start()
    await world.quiet()
    expectNothingLeft()
    expect(world.revoked).toEqual([alice])
    expect(await world.store.oauthSession(alice)).toBeUndefined()
    expect(await world.departures.departure(alice)).toBeUndefined()
  })

  test('takes with it a stub that was on its way, and one that was not acknowledged', async () => {
    await enrolled()
    const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>()
    const { promise: left, resolve: leave } = Promise.withResolvers<void>()
    world.pds.before = async ({ method, rkey }) => {
      if (method !== 'put' || rkey !== 'late') return undefined
      arrive()
      await left
      return undefined
    }
    await post('late')
    await arrived
    await enrollments().unenroll(alice, 'test')
    leave()
    await world.quiet()
    expect(world.pds.written).toContain('put late')
    expectNothingLeft()
  })

  test('leaves alone what another program put at a key of ours', async () => {
    await enrolled('one')
    world.pds.place(alice, 'one', { $type: collection, text: 'by hand' })
    await enrollments().unenroll(alice, 'test')
    await world.quiet()
    expect(world.pds.keysOf(alice)).toEqual([`${collection}/one`])
    expect(await world.departures.departure(alice)).toBeUndefined()
  })

  test('is possible where the repo was lost, with numbers above all that it had', async () => {
    await enrolled('one')
    const { seq, rev } = await headOf(alice)
    await world.restart()
    renameSync(actor().folder, `${actor().folder}.lost`)
    await enrollments().unenroll(alice, 'test')
    const numbers = await world.departures.departed(alice)
    expect(numbers?.seq).toBeGreaterThan(seq)
    expect((numbers?.rev ?? '') > rev).toBeTrue()
    await world.quiet()
    expect(world.pds.keysOf(alice)).toEqual([`${collection}/one`])
    await enroll()
    expect((await headOf(alice)).seq).toBeGreaterThan(numbers?.seq ?? Infinity)
  })

  test('closes the repo to a write that comes too late', async () => {
    await enrolled('one')
    const slow = Promise.withResolvers<void>()
    world.seams.run = async (sql) => {
      if (sql.startsWith('delete from enrollment where')) await slow.promise
    }
    const leaving = enrollments().unenroll(alice, 'test')
    await eventually('closed repo', async () => {
      const failure = await failureOf(actor().read('one'))
      return failure === undefined ? undefined : failure
    })
    expect(await failureOf(actor().create('two', { stubs }))).toMatchObject({
      status: 404,
      error: 'RepoNotFound',
    })
    slow.resolve()
    await leaving
    await world.quiet()
    expectNothingLeft()
  })
})

describe('a job of somebody who left', () => {
  test('waits for a session that is lost, and is given up after 30 days', async () => {
    await enrolled('one', 'two')
    world.signedOut.add(alice)
    await enrollments().unenroll(alice, 'test')
    await eventually('lost session', () =>
      world.outbox.counts().actors.parked === 1 ? 1 : undefined,
    )
    await world.leaving.giveUp(Date.now() + 29 * dayMs)
    expect(await world.departures.departure(alice)).toMatchObject({ erased: true })
    await world.leaving.giveUp(Date.now() + 31 * dayMs)
    expect(await world.departures.departure(alice)).toBeUndefined()
    expect(await world.store.oauthSession(alice)).toBeUndefined()
    const told = world.log.find((line) => line.includes('departure.unfinished')) ?? ''
    expect(JSON.parse(told)).toMatchObject({
      did: alice,
      left: 3,
      first: [`${enrollmentCollection}/${serviceDid}`, `${collection}/one`, `${collection}/two`],
    })
  })

  test('is given up soon after others that are too late, and not once the service stops', async () => {
    await world.outbox.stop()
    const people = 13
    for (let count = 0; count < people; count++) {
      alice = newDid()
      await enroll()
      await enrollments().unenroll(alice, 'test')
    }
    const late = Date.now() + 31 * dayMs
    await world.leaving.giveUp(late, () => world.revoked.length === 2)
    expect(world.revoked).toHaveLength(2)
    // A round is short, as each may wait long for a PDS that is gone.
    await world.leaving.giveUp(late)
    expect(world.revoked).toHaveLength(people - 1)
    await world.leaving.giveUp(late)
    expect(new Set(world.revoked).size).toBe(people)
  })

  test('keeps a refused key until the person or time helps, and deletes the others', async () => {
    await enrolled('one', 'two')
    world.pds.before = ({ method, rkey }) =>
      method === 'delete' && rkey === 'one'
        ? Response.json({ error: 'InvalidRequest', message: 'no' }, { status: 400 })
        : undefined
    await enrollments().unenroll(alice, 'test')
    await eventually('parked key', () => (world.outbox.counts().rows.parked === 1 ? 1 : undefined))
    const one = async () => ((await world.departures.keys(alice)).length === 1 ? 1 : undefined)
    await eventually('rest', one)
    expect(stubsOf(alice)).toEqual(['one'])
    expect(await world.store.oauthSession(alice)).toBe('{}')
  })
})

describe('coming back', () => {
  test('continues seq and rev, with a new key and the boundaries of a new member', async () => {
    const first = await enrolled('one')
    await enrollments().setBoundaries(alice, [a], 'test')
    const before = await headOf(alice)
    await enrollments().unenroll(alice, 'test')
    await world.quiet()
    const second = await enroll()
    expect(second.signingKey).not.toBe(first.signingKey)
    expect(second.boundaries).toEqual([a, c])
    const after = await headOf(alice)
    expect(after.seq).toBeGreaterThan(before.seq)
    expect(after.rev > before.rev).toBeTrue()
    const verified = await world.house.known(alice, second.signingKey).verified()
    expect(verified).toMatchObject({ rkeys: [], rev: after.rev })
    await world.quiet()
    expect(world.pds.keysOf(alice)).toEqual([`${enrollmentCollection}/${serviceDid}`])
  })

  test('takes over what the departure had not deleted yet', async () => {
    await enrolled('one', 'two')
    world.signedOut.add(alice)
    await enrollments().unenroll(alice, 'test')
    world.signedOut.delete(alice)
    await enroll()
    await post('three')
    await world.quiet()
    expect(await world.departures.departure(alice)).toBeUndefined()
    expect(stubsOf(alice)).toEqual(['three'])
    expect(world.pds.at(alice, serviceDid, enrollmentCollection)).toMatchObject({
      signingKey: (await enrollments().find(alice))?.signingKey,
    })
    expect(world.revoked).toEqual([])
  })

  test('at the very end of the departure leaves nothing of that to end', async () => {
    await enrolled('one')
    // A sign-in has its turn with the session, and the end of the departure the next one.
    world.beforeEnding = async () => {
      world.beforeEnding = async () => undefined
      await enroll()
    }
    await enrollments().unenroll(alice, 'test')
    await eventually('return', async () => await enrollments().find(alice))
    await world.outbox.stop()
    expect(world.revoked).toEqual([])
    expect(await world.store.oauthSession(alice)).toBe('{}')
    const actions = (await world.store.events(0, 10)).map(({ action }) => action)
    expect(actions).toEqual(['enroll', 'unenroll', 'enroll'])
  })

  test('before the last note of a departure takes the person in for good', async () => {
    await enrolled('one')
    world.seams.run = async (sql) => {
      if (!sql.startsWith('update departed')) return
      world.seams.run = async () => undefined
      await enroll()
    }
    await enrollments().unenroll(alice, 'test')
    await eventually('return', async () => await enrollments().find(alice))
    await world.quiet()
    expect(await world.store.oauthSession(alice)).toBe('{}')
    expect((await world.store.events(0, 10)).at(-1)).toMatchObject({ action: 'enroll' })
    expect(world.pds.keysOf(alice)).toEqual([`${enrollmentCollection}/${serviceDid}`])
  })

  test('that fails half-way leaves the departure at its work', async () => {
    await enrolled('one')
    world.signedOut.add(alice)
    await enrollments().unenroll(alice, 'test')
    world.seams.run = async (sql) => {
      if (sql.startsWith('insert into enrollment')) throw new Error('killed')
    }
    expect(await failureOf(enroll())).toEqual(new Error('killed'))
    world.seams.run = async () => undefined
    world.signedOut.delete(alice)
    await world.restart()
    await world.outbox.start()
    await world.quiet()
    expect(world.pds.keysOf(alice)).toEqual([])
    await enroll()
    await world.quiet()
    expect(world.pds.keysOf(alice)).toEqual([`${enrollmentCollection}/${serviceDid}`])
  })
})

test('a kill at any step of leaving is made good after the restart', async () => {
  for (let step = 1; ; step++) {
    alice = newDid()
    await enrolled('one', 'two')
    const lastSeq = (await headOf(alice)).seq
    const killed = await killedAt(step, async () => {
      await enrollments().unenroll(alice, 'test')
      await world.quiet()
    })
    await world.restart()
    const again = enrollments()
    await again.eraseDue('test')
    await world.outbox.start()
    // What was not acknowledged may not have happened; a second try brings it about.
    if (killed) await again.unenroll(alice, 'test')
    await world.quiet()
    expect({ step, keys: world.pds.keysOf(alice) }).toEqual({ step, keys: [] })
    expect(existsSync(actor().folder)).toBeFalse()
    expect(await world.departures.departure(alice)).toBeUndefined()
    expect(await world.store.oauthSession(alice)).toBeUndefined()
    expect(await world.departures.departed(alice)).toMatchObject({ seq: lastSeq })
    expect((await world.store.events(0, 1_000)).filter(({ did }) => did === alice)).toEqual([])
    if (killed) continue
    // Enrollment record and two stubs, each deleted and noted, and all that comes before and after.
    expect(step).toBeGreaterThan(25)
    return
  }
}, 60_000)

test('a kill at any step of coming back is made good by a second try', async () => {
  for (let step = 1; ; step++) {
    alice = newDid()
    await enrolled('one')
    const { seq } = await headOf(alice)
    world.signedOut.add(alice)
    await enrollments().unenroll(alice, 'test')
    world.signedOut.delete(alice)
    const killed = await killedAt(step, async () => {
      await enroll()
      await world.quiet()
    })
    await world.restart()
    await world.outbox.start()
    if (killed) await enroll()
    await world.quiet()
    const keys = [`${enrollmentCollection}/${serviceDid}`]
    expect({ step, keys: world.pds.keysOf(alice) }).toEqual({ step, keys })
    expect((await headOf(alice)).seq).toBeGreaterThan(seq)
    expect(await world.departures.departure(alice)).toBeUndefined()
    if (killed) continue
    expect(step).toBeGreaterThan(20)
    return
  }
}, 60_000)

/** Runs a task of which nothing happens any more from a step on; says whether it came so far. */
async function killedAt(step: number, task: () => Promise<void>): Promise<boolean> {
  const dead = Promise.withResolvers<'killed'>()
  let count = 0
  world.seams.step = async () => {
    count += 1
    if (count >= step) {
      dead.resolve('killed')
      throw new Error('killed')
    }
  }
  const ended = task().then(
    () => 'done',
    () => 'killed',
  )
  const outcome = await Promise.race([ended, dead.promise])
  await world.outbox.stop()
  world.seams.step = async () => undefined
  return outcome === 'killed'
}

function enrollments(): Enrollments {
  return world.enrollments(key)
}

async function enroll() {
  const person = { did: alice, pdsEndpoint: world.pds.url, scope: 'atproto', oauthSession: '{}' }
  return await enrollments().enroll({ ...person, requestId: 'test' })
}

/** Somebody who joined and wrote, with everything delivered. */
async function enrolled(...rkeys: readonly string[]) {
  const enrollment = await enroll()
  await post(...rkeys)
  await world.quiet()
  return enrollment
}

async function post(...rkeys: readonly string[]): Promise<void> {
  const release = await world.outbox.hold(alice)
  for (const rkey of rkeys) await actor().create(parseRkey(rkey), { stubs })
  release()
}

function actor() {
  return world.house.known(alice, '')
}

async function headOf(did: Did): Promise<RepoNumbers> {
  using database = new Database(await world.house.known(did, '').stored(), { readonly: true })
  const row = database.query<RepoNumbers, []>('select seq, rev from stratos_repo_root').get()
  return row ?? { seq: 0, rev: nextTid({ nowMs: 0, clockId: 0 }) }
}

function stubsOf(did: Did): string[] {
  const paths = world.pds.keysOf(did).map((path) => path.split('/'))
  return paths.flatMap(([nsid, rkey = '']) => (nsid === collection ? [rkey] : []))
}

function expectNothingLeft(): void {
  expect([world.pds.keysOf(alice), existsSync(actor().folder)]).toEqual([[], false])
}
