import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { Identities } from '../../src/remote/identity.ts'
import { followMoves, Troubles } from '../../src/service/moves.ts'
import { eventually } from '../kit/wait.ts'
import { Clock, Directory, loopbackFetch } from '../remote/directory.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, type Person } from './delivering.ts'
import { refuse } from './pds-server.ts'

const folder = temporaryFolder()
const log = createLog('info', (line) => void world.log.push(line))
const elsewhere = 'https://elsewhere.test'
let world: Delivering
const moved: Did[] = []
let alice: Did
let directory: Directory
let clock: Clock
let identities: Identities
let troubles: Troubles

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  directory = new Directory()
  clock = new Clock()
  alice = directory.add({ pds: elsewhere })
  const enrolledAt = new Date().toISOString()
  const facts = { signingKey: 'did:key:z', boundaries: [], rkey: 'a', enrolledAt, scope: 'atproto' }
  await world.store.enroll({ did: alice, pdsEndpoint: world.pds.url, ...facts }, '{}')
  await world.store.clearOutbox(alice)
  identities = new Identities({
    plcUrl: directory.url,
    fetch: loopbackFetch,
    now: clock.now,
    onResolved: followMoves({
      store: world.store,
      moved: async (did) => void moved.push(did),
      log,
    }),
  })
  troubles = new Troubles({ identities, now: clock.now, log })
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
  await directory[Symbol.asyncDispose]()
})

function movedTo(pdsEndpoint: string): Promise<true> {
  const look = async () => (await world.store.enrollment(alice))?.pdsEndpoint === pdsEndpoint
  return eventually('move', async () => (await look()) || undefined, { everyMs: 2 })
}

function asked(count: number): Promise<true> {
  const look = () => (directory.asked.length === count ? true : undefined)
  return eventually(`${count} look-ups`, look, { everyMs: 2 })
}

describe('an enrollment', () => {
  test('follows its account, once, and a log says so', async () => {
    await movedTo(world.pds.url)
    expect(await identities.pdsEndpoint(alice)).toBe(elsewhere)
    await movedTo(elsewhere)
    await eventually('look at admission', () => (moved.includes(alice) ? true : undefined))
    clock.ms += 60_000
    await identities.pdsEndpoint(alice, { fresh: true })
    const lines = world.log.filter((line) => line.includes('enrollment.moved'))
    expect(lines).toHaveLength(1)
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      did: alice,
      from: world.pds.url,
      to: elsewhere,
    })
  })

  test('is not made for somebody who has none', async () => {
    const stranger = directory.add({ pds: elsewhere })
    await identities.pdsEndpoint(stranger)
    expect(await world.store.enrollment(stranger)).toBeUndefined()
  })

  test('that cannot be stored hinders nobody who reads the document', async () => {
    world.seams.run = () => Promise.reject(new Error('disk full'))
    expect(await identities.pdsEndpoint(alice)).toBe(elsewhere)
    await eventually('log', () => world.log.find((line) => line.includes('disk full')))
    world.seams.run = async () => undefined
    clock.ms += 60_000
    await identities.pdsEndpoint(alice, { fresh: true })
    await movedTo(elsewhere)
  })
})

describe('an account whose PDS gives trouble', () => {
  test('is looked up anew, past what is remembered, and not again for five minutes', async () => {
    await identities.pdsEndpoint(alice)
    directory.accounts.set(alice, { pds: 'https://third.test' })
    troubles.troubled(alice)
    troubles.troubled(alice)
    await movedTo('https://third.test')
    clock.ms += 5 * 60_000 - 1
    troubles.troubled(alice)
    clock.ms += 1
    troubles.troubled(alice)
    await asked(3)
  })

  test('that cannot be looked up is tried again later, and a log says so', async () => {
    directory.broken = { status: 500 }
    troubles.troubled(alice)
    await eventually('log', () => world.log.find((line) => line.includes('move.not-known')))
    expect(world.log.join()).not.toContain('"level":"error"')
    directory.broken = undefined
    clock.ms += 5 * 60_000
    troubles.troubled(alice)
    await movedTo(elsewhere)
  })

  test('waits its turn while many others are looked up', async () => {
    const gate = Promise.withResolvers<void>()
    directory.gate = gate.promise
    const others = Array.from({ length: 8 }, () => directory.add({ pds: elsewhere }))
    for (const did of others) troubles.troubled(did)
    await asked(8)
    troubles.troubled(alice)
    gate.resolve()
    await eventually('room', () => {
      troubles.troubled(alice)
      return directory.asked.length === 9 ? true : undefined
    })
    await movedTo(elsewhere)
  })
})

describe('of deliveries, trouble is', () => {
  let bob: Person

  beforeEach(async () => {
    bob = await world.person()
  })

  test('a lost session', async () => {
    world.signedOut.add(bob.did)
    await bob.post('one')
    await eventually('trouble', () => world.troubled.at(0), { everyMs: 2 })
    expect(world.troubled).toEqual([bob.did])
  })

  test('a refusal, and a PDS that cannot be used', async () => {
    const refusals = [refuse(400, 'InvalidRequest'), refuse(401, 'AccountDeactivated')]
    world.pds.before = () => refusals.shift()
    await bob.post('one', 'two')
    await world.quiet()
    expect(world.troubled).toEqual([bob.did, bob.did])
  })

  test('no success, and nothing that somebody else put in our place', async () => {
    world.pds.place(bob.did, 'one', { $type: 'zone.stratos.feed.post', mine: true })
    await bob.post('one', 'two')
    await world.quiet()
    expect(world.pds.written).toEqual(['put two'])
    expect(world.troubled).toEqual([])
  })
})
