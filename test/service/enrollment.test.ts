import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { encode } from '../../src/atproto/cbor.ts'
import { ServiceKey, verifySignature } from '../../src/atproto/keys.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { attest } from '../../src/service/attestation.ts'
import type { Enrollments, EnrollmentRules } from '../../src/service/enrollment.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { textOf } from '../kit/xrpc.ts'
import { newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { Delivering, Person } from './delivering.ts'
import { a, b, c, serviceDid } from './posts.ts'

const folder = temporaryFolder()
const key = ServiceKey.generate()
const nsid = 'zone.stratos.actor.enrollment'
const rkey = 'did:web:localhost:3100'

let world: Delivering
let alice: Did

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = newDid()
})

afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

test('an enrollment that fails leaves nobody enrolled, and a second try succeeds', async () => {
  for (const kind of ['key', 'open']) {
    world.seams.call = (pass) => async (did, requestId, call) => {
      if (call.kind === kind) throw new Error('a fault on the way')
      return await pass(did, requestId, call)
    }
    expect(await failureOf(enroll(made({})))).toEqual(new Error('a fault on the way'))
    expect(await made({}).find(alice)).toBeUndefined()
  }
  world.seams.call = (pass) => pass
  await enroll(made({}))
  await world.quiet()
  expect(await made({}).find(alice)).toMatchObject({ did: alice, active: true, boundaries: [a, c] })
  expect(world.pds.written).toEqual([`put ${rkey}`])
})

test('the PDS record is a signpost with an attestation that verifies', async () => {
  const { signingKey, enrolledAt } = await enroll(made({}))
  await world.quiet()
  const record = world.pds.at(alice, rkey, nsid)
  expect(record).toEqual({
    $type: nsid,
    service: 'http://localhost:3100',
    boundaries: [{ value: a }, { value: c }],
    signingKey,
    attestation: { sig: { $bytes: expect.any(String) }, signingKey: key.did },
    createdAt: enrolledAt,
  })
  expectAttested(record, { boundaries: [a, c], did: alice, signingKey })
})

test('an attestation covers the boundaries in order, whatever order they came in', () => {
  const claim = { did: alice, signingKey: 'did:key:z', boundaries: [c, a, b] }
  const attestation = attest(claim, key)
  expect(attest({ ...claim, boundaries: [a, b, c] }, key)).toEqual(attestation)
  expectAttested({ attestation }, { ...claim, boundaries: [a, b, c] })
  expect(claim.boundaries).toEqual([c, a, b])
})

test('enrolling again keeps key, date and boundaries, and rewrites the PDS record', async () => {
  const first = await enroll(made({}))
  await made({}).setBoundaries(alice, [b], 'test')
  await world.quiet()
  world.pds.remove(alice, rkey, nsid)
  const second = await enroll(made({}), { pdsEndpoint: 'https://moved.test', scope: 'less' })
  await world.quiet()
  const { signingKey, enrolledAt } = first
  expect(second).toMatchObject({ signingKey, enrolledAt, boundaries: [b], scope: 'less' })
  expect(await made({}).find(alice)).toEqual({ ...second, pdsEndpoint: 'https://moved.test' })
  expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries: [{ value: b }] })
})

test('enrolling again puts no new repo in the place of one that was lost', async () => {
  const first = await enroll(made({}))
  await world.restart()
  const { folder: place } = world.house.known(alice, '')
  renameSync(place, `${place}.lost`)
  expect(await failureOf(enroll(made({})))).toMatchObject({ error: 'RepoUnavailable' })
  expect(existsSync(place)).toBeFalse()
  expect(world.log.some((line) => line.includes('enrollment.repo.missing'))).toBeTrue()
  renameSync(`${place}.lost`, place)
  expect(await enroll(made({}))).toEqual(first)
})

test('leaving and enrolling again brings no new budget of writes to the PDS', async () => {
  await world.outbox.stop()
  // 15 points at once: the enrollment record and four stubs.
  world.outbox = world.fresh({ pointsPerHour: 30 })
  await enroll(made({}))
  await new Person(world, world.house.known(alice, '')).post('a', 'b', 'c', 'd')
  await world.quiet()
  expect(world.pds.callsOf(alice)).toHaveLength(5)
  await made({}).unenroll(alice, 'test')
  await enroll(made({}))
  const bob = await world.person()
  await bob.post('one')
  await eventually('of bob', () => (world.pds.callsOf(bob.did).length > 0 ? 1 : undefined))
  expect(world.pds.callsOf(alice)).toHaveLength(5)
})

test('boundaries that the service no longer has are neither found nor published', async () => {
  await enroll(made({}))
  const fewer = made({ boundaries: [a, b] })
  expect((await fewer.find(alice))?.boundaries).toEqual([a])
  const { signingKey } = await enroll(fewer)
  await world.quiet()
  const record = world.pds.at(alice, rkey, nsid)
  expect(record).toMatchObject({ boundaries: [{ value: a }] })
  expectAttested(record, { boundaries: [a], did: alice, signingKey })
  // The row keeps them, for the day on which the operator brings the boundary back.
  expect((await made({}).find(alice))?.boundaries).toEqual([a, c])
})

describe('somebody inactive', () => {
  beforeEach(async () => {
    await enroll(made({}))
    await world.quiet()
    await world.store.enforce({ dids: [], pds: [], list: null })
  })

  test('is a member, but not found', async () => {
    expect(await made({}).find(alice)).toBeUndefined()
    const fewer = made({ boundaries: [a, b] })
    expect(await fewer.member(alice)).toMatchObject({ active: false, boundaries: [a] })
    expect(await fewer.member(newDid())).toBeUndefined()
  })

  test('is found again once they sign in again', async () => {
    await enroll(made({}))
    expect(await made({}).find(alice)).toMatchObject({ active: true, boundaries: [a, c] })
  })

  test('has their boundaries set, and is attested to have them once they are active', async () => {
    expect(await made({}).setBoundaries(alice, [b], 'test')).toEqual([b])
    expect(await made({}).member(alice)).toMatchObject({ active: false, boundaries: [b] })
    await made({}).queueDueRecords('test')
    await world.quiet()
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({
      boundaries: [{ value: a }, { value: c }],
    })
    await world.store.enforce('everybody')
    await made({}).queueDueRecords('test')
    await world.quiet()
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries: [{ value: b }] })
  })
})

test('where boundaries are not published, the record names none and its attestation covers none', async () => {
  const quiet = made({ publishBoundaries: false })
  const enrollment = await enroll(quiet)
  await world.quiet()
  const record = world.pds.at(alice, rkey, nsid)
  expect(record).not.toHaveProperty('boundaries')
  const { signingKey } = enrollment
  expectAttested(record, { boundaries: [], did: alice, signingKey })
  // What is answered to those who may know is whole.
  expectAttested(
    { attestation: quiet.attestation(enrollment) },
    { boundaries: [a, c], did: alice, signingKey },
  )
})

describe('setting boundaries', () => {
  test('of somebody who is not enrolled is refused', async () => {
    const failure = await failureOf(made({}).setBoundaries(alice, [a], 'test'))
    expect(failure).toMatchObject({ status: 404, error: 'NotEnrolled' })
  })

  test('to one that the service lacks is refused and changes nothing', async () => {
    await enroll(made({}))
    for (const name of ['a', `${serviceDid}/x`, '']) {
      const failure = await failureOf(made({}).setBoundaries(alice, [b, name], 'test'))
      expect(failure).toMatchObject({ status: 400, error: 'InvalidRequest' })
    }
    expect((await made({}).find(alice))?.boundaries).toEqual([a, c])
  })

  test('counts at once and rewrites the PDS record', async () => {
    const enrollments = made({})
    await enroll(enrollments)
    expect(await enrollments.setBoundaries(alice, [c, b, c], 'test')).toEqual([b, c])
    expect((await enrollments.find(alice))?.boundaries).toEqual([b, c])
    await world.quiet()
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({
      boundaries: [{ value: b }, { value: c }],
    })
    expect(await enrollments.setBoundaries(alice, [], 'test')).toEqual([])
    await world.quiet()
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries: [] })
  })

  test('twice at once leaves both sides with the last', async () => {
    const enrollments = made({})
    await enroll(enrollments)
    const sets = [[a], [b], [a, b], [c]]
    await Promise.all(sets.map((names) => enrollments.setBoundaries(alice, names, 'test')))
    await world.quiet()
    expect((await enrollments.find(alice))?.boundaries).toEqual([c])
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries: [{ value: c }] })
  })

  test('that cannot be queued for the PDS counts here, and is queued later', async () => {
    const enrollments = made({})
    await enroll(enrollments)
    await world.quiet()
    world.seams.call = (pass) => async (did, requestId, call) => {
      if (call.kind === 'queue') throw new Error('killed in between')
      return await pass(did, requestId, call)
    }
    expect(await enrollments.setBoundaries(alice, [b], 'test')).toEqual([b])
    expect(world.log.some((line) => line.includes('enrollment.record.not-queued'))).toBeTrue()
    expect((await enrollments.find(alice))?.boundaries).toEqual([b])
    world.seams.call = (pass) => pass
    await made({}).queueDueRecords('test')
    await world.quiet()
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries: [{ value: b }] })
    expect(await world.store.recordsDue()).toEqual([])
  })
})

describe('adding and removing a boundary', () => {
  const change = (boundary: string) => ({ did: alice, boundary, requestId: 'test' })

  test('of somebody who is not enrolled is refused', async () => {
    for (const act of ['addBoundary', 'removeBoundary'] as const) {
      const failure = await failureOf(made({})[act](change(a)))
      expect(failure).toMatchObject({ status: 404, error: 'NotEnrolled' })
    }
  })

  test('that the service lacks is refused and changes nothing', async () => {
    await enroll(made({}))
    const fewer = made({ boundaries: [a, b] })
    for (const act of ['addBoundary', 'removeBoundary'] as const) {
      for (const name of ['a', `${serviceDid}/x`, '', c]) {
        const failure = await failureOf(fewer[act](change(name)))
        expect(failure).toMatchObject({ status: 400, error: 'InvalidRequest' })
      }
    }
    expect((await made({}).find(alice))?.boundaries).toEqual([a, c])
  })

  test('beyond as many as a person is in is refused, lost ones counted', async () => {
    const many = Array.from({ length: 50 }, (_, index) => `${serviceDid}/${index}`)
    await enroll(made({ boundaries: many, newBoundaries: many }))
    const enrollments = made({ boundaries: [a, ...many.slice(25)] })
    const failure = await failureOf(enrollments.addBoundary(change(a)))
    expect(failure).toMatchObject({ status: 400, error: 'InvalidRequest' })
    expect((await world.store.enrollment(alice))?.boundaries).toEqual(many.toSorted())
    await enrollments.removeBoundary(change(many[49] ?? ''))
    expect(await enrollments.addBoundary(change(a))).toContain(a)
  })

  test('counts at once and rewrites the PDS record', async () => {
    const enrollments = made({})
    await enroll(enrollments)
    expect(await enrollments.addBoundary(change(b))).toEqual([a, b, c])
    expect((await enrollments.find(alice))?.boundaries).toEqual([a, b, c])
    expect(await enrollments.removeBoundary(change(a))).toEqual([b, c])
    expect((await enrollments.find(alice))?.boundaries).toEqual([b, c])
    await world.quiet()
    const boundaries = [{ value: b }, { value: c }]
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries })
  })

  test('that changes nothing writes nothing', async () => {
    const enrollments = made({})
    await enroll(enrollments)
    await world.quiet()
    const written = [...world.pds.written]
    const statements: string[] = []
    world.seams.run = async (sql) => void statements.push(sql)
    expect(await enrollments.addBoundary(change(a))).toEqual([a, c])
    expect(await enrollments.removeBoundary(change(b))).toEqual([a, c])
    expect(await enrollments.setBoundaries(alice, [c, a], 'test')).toEqual([a, c])
    expect(statements).toEqual([])
    await world.quiet()
    expect(world.pds.written).toEqual(written)
  })

  test('keeps those that the service no longer has, and setting drops them', async () => {
    await enroll(made({}))
    const fewer = made({ boundaries: [a, b] })
    expect(await fewer.addBoundary(change(b))).toEqual([a, b])
    expect(await fewer.removeBoundary(change(a))).toEqual([b])
    expect((await made({}).find(alice))?.boundaries).toEqual([b, c])
    expect(await fewer.setBoundaries(alice, [b], 'test')).toEqual([b])
    expect((await made({}).find(alice))?.boundaries).toEqual([b])
  })

  test('many times at once loses none of them', async () => {
    const enrollments = made({ newBoundaries: [] })
    await enroll(enrollments)
    await Promise.all([a, b, c].map((name) => enrollments.addBoundary(change(name))))
    expect((await enrollments.find(alice))?.boundaries).toEqual([a, b, c])
    await Promise.all([a, c].map((name) => enrollments.removeBoundary(change(name))))
    expect((await enrollments.find(alice))?.boundaries).toEqual([b])
    await world.quiet()
    expect(world.pds.at(alice, rkey, nsid)).toMatchObject({ boundaries: [{ value: b }] })
  })
})

function made(over: Partial<EnrollmentRules>): Enrollments {
  return world.enrollments(key, { serviceDid: 'did:web:localhost%3A3100', ...over })
}

function enroll(enrollments: Enrollments, over: { pdsEndpoint?: string; scope?: string } = {}) {
  const person = { did: alice, pdsEndpoint: world.pds.url, scope: 'atproto', ...over }
  return enrollments.enroll({ ...person, oauthSession: '{}', requestId: 'test' })
}

function expectAttested(
  record: object | undefined,
  claim: { boundaries: string[]; did: string; signingKey: string },
): void {
  const attestation: unknown = Reflect.get(record ?? {}, 'attestation')
  const sig: unknown = Reflect.get(Object(attestation), 'sig')
  const bytes = encode(claim)
  const signature = Uint8Array.fromBase64(textOf(Object(sig), '$bytes'))
  expect(verifySignature({ didKey: key.did, bytes, sig: signature })).toBeTrue()
}
