import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { basic, SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import type { Answer, Call } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

// Tests of this file run one after the other on what the ones before used up.
const failuresPerMinute = 5
const operatorTriesPerMinute = 20
const listDomains = 'zone.stratos.server.listDomains'
const setBoundaries = 'zone.stratos.admin.setBoundaries'
const createRecord = 'zone.stratos.repo.createRecord'
const invalid: Refusal = [401, 'InvalidToken']
const tooMany: Refusal = [429, 'RateLimitExceeded']

let stratos: SeededStratos

beforeAll(async () => {
  const env = { STRATOS_AUTH_FAILURES_PER_MINUTE: String(failuresPerMinute) }
  stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
})
afterAll(async () => {
  await stratos?.stop()
})

test('calls without a credential, and refusals of known callers, use nothing up', async () => {
  for (let count = 0; count < failuresPerMinute * 2; count++) {
    expectRefusal(await write({}), [401, 'AuthMissing'])
    const call = { authorization: stratos.person('alice').bearer }
    expectRefusal(await operate(call), [403, 'Forbidden'])
  }
})

test('an operator’s tries are counted by themselves, as Basic and as Bearer', async () => {
  for (let count = 0; count < operatorTriesPerMinute; count++) {
    const wrong = count % 2 === 0 ? basic('admin', `wrong ${count}`) : `Bearer wrong-${count}`
    expectRefusal(await operate({ authorization: wrong }), invalid)
  }
  for (const wrong of [basic('admin', 'wrong'), basic('root', 'wrong'), 'Bearer wrong']) {
    const answer = await operate({ authorization: wrong })
    expectRefusal(answer, tooMany)
    expectWait(answer)
  }
  // Others at this address are not locked out by it.
  const authorization = stratos.person('alice').bearer
  expect(await write({ authorization })).toMatchObject({ status: 200 })
})

test('when the tries are used up the right password still works', async () => {
  for (const authorization of [stratos.adminBasic, `Bearer ${stratos.adminPassword}`]) {
    expect(await operate({ authorization })).toMatchObject({ status: 200 })
  }
})

test('an address that fails too often is refused before any credential is looked at', async () => {
  for (let count = 0; count < failuresPerMinute; count++) {
    const answer = await stratos.call(listDomains, { authorization: `Bearer wrong-${count}` })
    expectRefusal(answer, invalid)
  }
  const alice = stratos.person('alice')
  // Of somebody for whom the service itself has no reason to look.
  const stranger = stratos.person('stranger')
  const token = await serviceToken(stranger, { aud: stratos.did, lxm: createRecord })
  const credentials = ['Bearer wrong', `Bearer ${token}`, alice.bearer, 'DPoP x', 'nothing']
  for (const authorization of credentials) {
    const answer = await expectNoChange(stratos, tooMany, () => write({ authorization }))
    expectWait(answer)
  }
  expect(stratos.directory.asked).not.toContain(stranger.did)
})

test('and the operator is still let in, by Basic and by Bearer', async () => {
  for (const authorization of [stratos.adminBasic, `Bearer ${stratos.adminPassword}`]) {
    expect(await operate({ authorization })).toMatchObject({ status: 200 })
  }
})

test('and so is who shows no credential', async () => {
  expect(await stratos.call(listDomains)).toMatchObject({ status: 200 })
})

test('an address cannot be pretended', async () => {
  for (const name of ['x-forwarded-for', 'x-real-ip', 'forwarded']) {
    const call = { headers: { [name]: '192.0.2.1' }, authorization: 'Bearer wrong' }
    expectRefusal(await stratos.call(listDomains, call), tooMany)
  }
})

function write(call: Call): Promise<Answer> {
  const { did } = stratos.person('alice')
  const record = privatePost('a post', [stratos.boundary('a')])
  const input = { repo: did, collection: postCollection, record }
  return stratos.call(createRecord, { ...call, input })
}

function operate(call: Call): Promise<Answer> {
  const { did } = stratos.person('alice')
  const input = { did, boundaries: [stratos.boundary('a')] }
  return stratos.call(setBoundaries, { ...call, input })
}

function expectWait({ headers }: Answer): void {
  const seconds = Number(headers.get('retry-after'))
  expect(seconds).toBeWithin(1, 61)
}
