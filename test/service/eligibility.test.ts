import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { Eligibility, type EligibilityRules } from '../../src/service/eligibility.ts'
import { ExternalList } from '../../src/service/external-list.ts'
import { ListSource } from '../../src/service/list-source.ts'
import { AllowList } from '../../src/store/allow-list.ts'
import { ServiceStore } from '../../src/store/service.ts'
import type { Sql } from '../../src/store/sql.ts'
import { ListServer } from '../kit/list-server.ts'
import { enrollmentOf, serviceSql } from '../kit/service-store.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { Clock, loopbackFetch } from '../remote/directory.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const closed: EligibilityRules = {
  enrollmentMode: 'allowlist',
  allowedDids: [],
  allowedPds: [],
  allowListEnforce: 'enrollment',
}
const continuous: EligibilityRules = { ...closed, allowListEnforce: 'continuous' }
const elsewhere = 'https://elsewhere.test'
const minuteMs = 60_000

let server: ListServer
let sql: Sql
let store: ServiceStore
let clock: Clock
let log: string[]
let running: Eligibility[]

beforeEach(async () => {
  server = new ListServer()
  sql = await serviceSql(folder)
  store = new ServiceStore(sql)
  clock = new Clock()
  log = []
  running = []
})

afterEach(async () => {
  await Promise.all(running.map((eligibility) => eligibility.stop()))
  await server[Symbol.asyncDispose]()
})

describe('nobody may enroll', () => {
  test('where nothing is configured: the service is closed', async () => {
    expect(await denial(made(closed), alice)).toBe('ServiceClosed')
  })

  test('who is on none of the lists', async () => {
    const listed = { ...closed, allowedDids: [bob], allowedPds: ['https://in.test'] }
    expect(await denial(made(listed), alice)).toBe('NotInAllowlist')
    expect(await denial(made({ ...closed, allowedDids: [bob] }), alice)).toBe('NotInAllowlist')
    expect(await denial(made({ ...closed, allowedPds: [elsewhere] }), alice)).toBeUndefined()
  })

  test.each(['', 'https://in.test.evil', 'https://in', 'https://in.test/', 'https://IN.test'])(
    'on a PDS that only looks like one that is named: %j',
    async (pds) => {
      const listed = { ...closed, allowedPds: ['https://in.test'] }
      expect(await denial(made(listed), alice, pds)).toBe('NotInAllowlist')
    },
  )

  test('who is not on the external list, which says so', async () => {
    server.set(bob)
    const eligibility = await started(closed)
    const failure = await failureOf(eligibility.check(alice, elsewhere))
    expect(failure).toMatchObject({ status: 403, error: 'EnrollmentDenied', headers: {} })
    expect(failure).toMatchObject({ fields: { reason: 'NotInAllowlist' } })
    expect(String(failure)).toContain('is not on the list')
  })

  test('while the external list was never read, and they are told to come back', async () => {
    server.status = 500
    const failure = await failureOf((await started(closed)).check(alice, elsewhere))
    expect(failure).toMatchObject({ status: 403, fields: { reason: 'NotInAllowlist' } })
    expect(failure).toMatchObject({ headers: { 'retry-after': '60' } })
    expect(String(failure)).toContain('try again later')
  })

  test('who is not on the copy of a list that cannot be read now, and they are told so, too', async () => {
    server.set(bob)
    const eligibility = await started(closed)
    server.status = 500
    clock.ms += minuteMs
    const failure = await failureOf(eligibility.check(alice, elsewhere))
    expect(String(failure)).toContain('try again later')
    expect(await denial(eligibility, bob)).toBeUndefined()
  })

  test('by the copy of a list that is no longer configured, or not the one that is', async () => {
    server.set(alice)
    await (await started(closed)).stop()
    expect(await denial(made(closed), alice)).toBe('ServiceClosed')
    server.status = 500
    expect(await denial(await started(closed, 'other'), alice)).toBe('NotInAllowlist')
  })
})

describe('somebody may enroll', () => {
  test('who is named, without a look at the external list', async () => {
    const rules = { ...closed, allowedDids: [alice], allowedPds: ['https://in.test'] }
    const eligibility = made(rules, 'list')
    expect(await denial(eligibility, alice)).toBeUndefined()
    expect(await denial(eligibility, bob, 'https://in.test')).toBeUndefined()
    expect(server.requests).toEqual([])
  })

  test('who is on the external list', async () => {
    server.set(alice)
    const eligibility = made(closed, 'list')
    await eligibility.start()
    await eventually('admission', async () =>
      (await denial(eligibility, alice)) === undefined ? true : undefined,
    )
  })

  test('who was added to it since it was read', async () => {
    const eligibility = await started(closed)
    server.set(alice)
    expect(await denial(eligibility, alice)).toBe('NotInAllowlist')
    clock.ms += minuteMs
    expect(await denial(eligibility, alice)).toBeUndefined()
    expect(server.requests).toHaveLength(2)
  })

  test('whoever they are, where the service is open', async () => {
    expect(await denial(made({ ...closed, enrollmentMode: 'open' }), alice)).toBeUndefined()
  })
})

describe('where eligibility counts continuously', () => {
  beforeEach(async () => {
    for (const did of [alice, bob]) await store.enroll(enrollmentOf(did), '{}')
  })

  test('the configuration counts once the service has started', async () => {
    await made({ ...continuous, allowedDids: [bob] }).start()
    expect(await active()).toEqual([bob])
    await made({ ...continuous, allowedPds: ['https://pds.test'] }).start()
    expect(await active()).toEqual([alice, bob])
    await made(continuous).start()
    expect(await active()).toEqual([])
    await made({ ...continuous, enrollmentMode: 'open' }).start()
    expect(await active()).toEqual([alice, bob])
    expect(log.filter((line) => line.includes('enrollment.enforced'))).toHaveLength(4)
  })

  test('a list that was never read is read before anybody is served', async () => {
    server.set(alice)
    await made(continuous, 'list').start()
    expect(await active()).toEqual([alice])
    expect(server.requests).toHaveLength(1)
  })

  test('a list that was never read and cannot be keeps nobody in', async () => {
    server.status = 500
    await made(continuous, 'list').start()
    expect(await active()).toEqual([])
  })

  test('the copy counts at the start, without waiting for the list', async () => {
    server.set(alice)
    await (await started(closed)).stop()
    const open = Promise.withResolvers<void>()
    server.gate = open.promise
    server.set(bob)
    await made(continuous, 'list').start()
    expect(await active()).toEqual([alice])
    open.resolve()
    await eventually('new list', async () => ((await active())[0] === bob ? true : undefined))
  })

  test('who leaves the list turns inactive, and is active again when back', async () => {
    server.set(alice, bob)
    const eligibility = await started(continuous)
    const read = async () => {
      clock.ms += minuteMs
      await denial(eligibility, parseDid('did:web:somebody.test'))
    }
    expect(await active()).toEqual([alice, bob])
    server.set(bob)
    await read()
    expect(await active()).toEqual([bob])
    // A list that breaks turns nobody out, and lets nobody back.
    for (const body of ['', '<p>', `${alice}\nalice`]) {
      server.body = body
      await read()
      expect(await active()).toEqual([bob])
    }
    server.set(alice)
    await read()
    expect(await active()).toEqual([alice])
    server.body = '# nobody'
    await read()
    expect(await active()).toEqual([])
    server.set(alice, bob)
    await read()
    expect(await active()).toEqual([alice, bob])
  })

  test('who enrolled while the list changed is looked at once more', async () => {
    server.set(alice, bob)
    const eligibility = await started(continuous)
    await eligibility.check(alice, elsewhere)
    server.set(bob)
    clock.ms += minuteMs
    await denial(eligibility, parseDid('did:web:somebody.test'))
    await store.enroll(enrollmentOf(alice), '{}')
    expect(await active()).toEqual([alice, bob])
    await eligibility.enforce(alice)
    expect(await active()).toEqual([bob])
  })

  test('who moved to another PDS is looked at anew', async () => {
    const eligibility = made({ ...continuous, allowedPds: ['https://pds.test'] })
    await eligibility.start()
    const move = (pds: string) =>
      store.enroll(enrollmentOf(alice, { pdsEndpoint: pds }), '{}').then(() => alice)
    await eligibility.enforce(await move(elsewhere))
    expect(await active()).toEqual([bob])
    await eligibility.enforce(await move('https://pds.test'))
    expect(await active()).toEqual([alice, bob])
  })
})

describe('where eligibility counts continuously, a PDS that an account only names', () => {
  const company = { ...continuous, allowedPds: ['https://pds.test', 'https://pds2.test'] }

  beforeEach(async () => {
    await store.enroll(enrollmentOf(bob), '{}')
  })

  test('makes nobody active again', async () => {
    const eligibility = made(company)
    await store.enroll(enrollmentOf(alice, { pdsEndpoint: elsewhere }), '{}')
    await eligibility.start()
    await store.movedTo(alice, 'https://pds.test')
    await eligibility.enforce(alice)
    await eligibility.enforce()
    expect(await active()).toEqual([bob])
    // Until they sign in there.
    await store.enroll(enrollmentOf(alice), '{}')
    await eligibility.enforce(alice)
    expect(await active()).toEqual([alice, bob])
  })

  test('keeps nobody who leaves the list', async () => {
    await store.enroll(enrollmentOf(alice, { pdsEndpoint: elsewhere }), '{}')
    const before = made({ ...company, allowedDids: [alice] })
    await before.start()
    await store.movedTo(alice, 'https://pds.test')
    await before.enforce(alice)
    expect(await active()).toEqual([alice, bob])
    await made(company).start()
    expect(await active()).toEqual([bob])
  })

  test('keeps whoever signed in at another one that admits, and not who left both', async () => {
    const eligibility = made(company)
    await eligibility.start()
    await store.movedTo(bob, 'https://pds2.test')
    await eligibility.enforce(bob)
    expect(await active()).toEqual([bob])
    await store.movedTo(bob, elsewhere)
    await eligibility.enforce(bob)
    expect(await active()).toEqual([])
  })
})

test('where eligibility counts at enrollment, nobody turns inactive or active by a list', async () => {
  for (const did of [alice, bob]) await store.enroll(enrollmentOf(did), '{}')
  await store.enforce({ dids: [bob], pds: [], list: null })
  server.set(alice)
  const eligibility = await started(closed)
  await eligibility.enforce()
  await eligibility.enforce(alice)
  expect(await active()).toEqual([bob])
  // Until they sign in again.
  await store.enroll(enrollmentOf(alice), '{}')
  await eligibility.enforce(alice)
  expect(await active()).toEqual([alice, bob])
})

function made(rules: EligibilityRules, listId?: string): Eligibility {
  const parts = { store, log: createLog('info', (line) => void log.push(line)) }
  const list =
    listId === undefined
      ? {}
      : {
          list: new ExternalList({
            source: new ListSource({ uri: server.uri, fetch: loopbackFetch, now: clock.now }),
            store: new AllowList(sql, listId),
            log: parts.log,
            now: clock.now,
          }),
        }
  const eligibility = new Eligibility(rules, { ...parts, ...list })
  running.push(eligibility)
  return eligibility
}

/** With an external list, read once. */
async function started(rules: EligibilityRules, listId = 'list'): Promise<Eligibility> {
  const before = server.requests.length
  const eligibility = made(rules, listId)
  await eligibility.start()
  await eventually('first reading', async () => {
    const copy = await new AllowList(sql, listId).copy()
    const isRead = server.requests.length > before && copy?.fetchedAtMs === clock.ms
    return isRead || log.some((line) => line.includes('not-read')) ? true : undefined
  })
  return eligibility
}

/** The reason of a refusal, if there is one. */
async function denial(eligibility: Eligibility, did: Did, pds = elsewhere): Promise<unknown> {
  const failure = await failureOf(eligibility.check(did, pds))
  if (failure === undefined) return undefined
  expect(failure).toMatchObject({ status: 403, error: 'EnrollmentDenied' })
  const fields: unknown = Reflect.get(Object(failure), 'fields')
  return Reflect.get(Object(fields), 'reason')
}

async function active(): Promise<Did[]> {
  const found = []
  for (const did of [alice, bob])
    if ((await store.enrollment(did))?.active === true) found.push(did)
  return found
}
