import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import type { Answer } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

// Tests of this file run one after the other on what the ones before used up. The window is a day,
// so that none of it comes back between them.
const limit = 8
const windowSeconds = 86_400
const cooldownSeconds = 600
const createRecord = 'zone.stratos.repo.createRecord'
const deleteRecord = 'zone.stratos.repo.deleteRecord'
const tooMany: Refusal = [429, 'RateLimitExceeded']
const settings = {
  STRATOS_WRITE_RATE_MAX_WRITES: String(limit),
  STRATOS_WRITE_RATE_WINDOW_MS: String(windowSeconds * 1000),
  STRATOS_WRITE_RATE_COOLDOWN_MS: String(cooldownSeconds * 1000),
}

let stratos: SeededStratos

beforeAll(async () => {
  const people = { alice: ['a'], bob: ['a'], carol: ['a'] }
  stratos = await SeededStratos.start({ people, env: settings })
})
afterAll(async () => {
  await stratos?.stop()
})

test('what others attempt on a repo costs its owner nothing', async () => {
  for (const name of ['bob', 'stranger']) {
    expectRefusal(await create(name, { repo: did('alice') }), [403, 'Forbidden'])
    expectRefusal(await remove(name, { repo: did('alice') }), [403, 'Forbidden'])
  }
  expectRefusal(await create('stranger'), [403, 'NotEnrolled'])
})

test('each write tells its author what remains', async () => {
  const first = await create('alice', { rkey: 'first' })
  expect(first.status).toBe(200)
  expectStanding(first, limit - 1)
  const twin = await stratos.callAs('alice', 'com.atproto.repo.createRecord', {
    input: inputOf('alice', { rkey: 'second' }),
  })
  expectStanding(twin, limit - 2)
  expectStanding(await remove('alice', { rkey: 'first' }), limit - 3)
  // Deleting what is not there is an attempt like any other.
  expectStanding(await remove('alice', { rkey: 'first' }), limit - 4)
})

test('a refused write costs as much as one that is taken', async () => {
  const refused: [object, Refusal][] = [
    [{ record: { text: 'without a boundary' } }, [400, 'MissingBoundary']],
    [{ rkey: 'second' }, [409, 'RecordAlreadyExists']],
  ]
  for (const [more, refusal] of refused) expectRefusal(await create('alice', more), refusal)
  expectStanding(await create('alice'), limit - 7)
})

test('beyond the limit every write is refused, says until when, and changes nothing', async () => {
  expectStanding(await create('alice'), 0)
  for (const attempt of [
    () => create('alice'),
    () => remove('alice', { rkey: 'second' }),
    () => remove('alice', { rkey: 'missing' }),
    () => create('alice', { record: {} }),
  ]) {
    const answer = await expectNoChange(stratos, tooMany, attempt)
    expectStanding(answer, 0)
    // Until the first writes are out of the window, which is longer than the cooldown.
    const seconds = Number(answer.headers.get('retry-after'))
    expect(seconds).toBeWithin(windowSeconds - 60, windowSeconds * 1.1)
  }
})

test('and reading is not, nor what others write', async () => {
  const params = { repo: did('alice'), collection: postCollection, rkey: 'second' }
  const read = await stratos.callAs('alice', 'zone.stratos.repo.getRecord', { params })
  expect(read.status).toBe(200)
  expect(read.headers.get('ratelimit-limit')).toBeNull()
  expectStanding(await create('bob'), limit - 1)
})

test('counted in points, creating costs three and deleting one', async () => {
  await restart({ STRATOS_WRITE_RATE_POINTS: 'true' })
  expectStanding(await create('carol', { rkey: 'first' }), limit - 3)
  expectStanding(await remove('carol', { rkey: 'first' }), limit - 4)
  expectStanding(await create('carol'), limit - 7)
  expectRefusal(await create('carol'), tooMany)
  // There is a point left, but whoever went over the limit waits.
  expectRefusal(await remove('carol', { rkey: 'missing' }), tooMany)
})

test('a write that costs more than the whole limit is told so, and is not to be tried again', async () => {
  await restart({ STRATOS_WRITE_RATE_POINTS: 'true', STRATOS_WRITE_RATE_MAX_WRITES: '2' })
  const answer = await expectNoChange(stratos, [400, 'InvalidRequest'], () => create('bob'))
  expect(answer.body['message']).toContain('3 points')
  expect(answer.headers.get('retry-after')).toBeNull()
  expect(await remove('bob', { rkey: 'missing' })).toMatchObject({ status: 200 })
})

test('whoever waited may write again', async () => {
  await restart({
    STRATOS_WRITE_RATE_MAX_WRITES: '1',
    STRATOS_WRITE_RATE_WINDOW_MS: '1000',
    STRATOS_WRITE_RATE_COOLDOWN_MS: '0',
  })
  const until = (status: number) =>
    eventually(`answer ${status}`, async () => {
      const answer = await create('alice')
      return answer.status === status ? answer : undefined
    })
  const refused = await until(429)
  expect(Number(refused.headers.get('retry-after'))).toBeWithin(1, 3)
  expect(refused.headers.get('ratelimit-policy')).toBe('1;w=1')
  expect((await until(200)).headers.get('ratelimit-remaining')).toBe('0')
})

async function restart(env: Readonly<Record<string, string>>): Promise<void> {
  await stratos.terminate()
  await stratos.run({ ...settings, ...env })
}

function did(name: string): string {
  return stratos.person(name).did
}

function inputOf(name: string, more: object) {
  const record = privatePost('a post', [stratos.boundary('a')])
  return { repo: did(name), collection: postCollection, record, ...more }
}

function create(name: string, more: object = {}): Promise<Answer> {
  return stratos.callAs(name, createRecord, { input: inputOf(name, more) })
}

function remove(name: string, more: object): Promise<Answer> {
  const input = { repo: did(name), collection: postCollection, rkey: 'none', ...more }
  return stratos.callAs(name, deleteRecord, { input })
}

function expectStanding({ headers }: Answer, remaining: number): void {
  expect(headers.get('ratelimit-limit')).toBe(String(limit))
  expect(headers.get('ratelimit-policy')).toBe(`${limit};w=${windowSeconds}`)
  expect(headers.get('ratelimit-remaining')).toBe(String(remaining))
  const resetSeconds = Number(headers.get('ratelimit-reset')) - Date.now() / 1000
  expect(resetSeconds).toBeWithin(windowSeconds - 60, windowSeconds * 1.1)
}
