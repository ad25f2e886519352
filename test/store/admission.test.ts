import { beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import type { Admission } from '../../src/store/admission.ts'
import { AllowList } from '../../src/store/allow-list.ts'
import { ServiceStore } from '../../src/store/service.ts'
import type { Sql, SqlValue } from '../../src/store/sql.ts'
import { enrollmentOf, serviceSql } from '../kit/service-store.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const signal = new AbortController().signal
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const carol = parseDid('did:web:carol.test')
const nobody: Admission = { dids: [], pds: [], list: null }

let sql: Sql
let store: ServiceStore

beforeEach(async () => {
  sql = await serviceSql(folder)
  store = new ServiceStore(sql)
  for (const did of [alice, bob]) await store.enroll(enrollmentOf(did), '{}')
  await store.enroll(enrollmentOf(carol, { pdsEndpoint: 'https://carol.test' }), '{}')
})

test('nobody stays where nobody is admitted', async () => {
  expect(await store.enforce(nobody)).toEqual({ active: 0, inactive: 3 })
  expect(await active()).toEqual([])
})

describe('somebody stays who is', () => {
  test('named', async () => {
    await store.enforce({ ...nobody, dids: [bob] })
    expect(await active()).toEqual([bob])
  })

  test('on a PDS that is named', async () => {
    await store.enforce({ ...nobody, pds: ['https://carol.test', 'https://nobody.test'] })
    expect(await active()).toEqual([carol])
  })

  test('on the copy of the list that counts, and of no other', async () => {
    await new AllowList(sql, 'one').replace(copy, new Set([alice]), signal)
    await store.enforce({ ...nobody, list: 'one' })
    expect(await active()).toEqual([alice])
    for (const list of ['other', null]) {
      await store.enforce({ ...nobody, list })
      expect(await active()).toEqual([])
    }
    await store.enforce({ dids: [bob], pds: ['https://carol.test'], list: 'one' })
    expect(await active()).toEqual([alice, bob, carol])
  })

  test('anybody at all where everybody is admitted', async () => {
    await store.enforce(nobody)
    expect(await store.enforce('everybody')).toEqual({ active: 3, inactive: 0 })
    expect(await active()).toEqual([alice, bob, carol])
  })
})

test('each change of somebody is one event, and no change is none', async () => {
  await store.enforce({ ...nobody, dids: [bob, carol] })
  await store.enforce({ ...nobody, dids: [bob, carol] })
  await store.enforce({ ...nobody, dids: [alice, bob] })
  expect(await events()).toEqual([
    { did: alice, action: 'unenroll', time: isoTime },
    { did: alice, action: 'enroll', time: isoTime },
    { did: carol, action: 'unenroll', time: isoTime },
  ])
})

test('a change that is cut off leaves neither rows nor events', async () => {
  await sql.run([
    {
      sql: `create trigger broken before update on enrollment when old.did = '${carol}'
        begin select raise(abort, 'killed'); end`,
      args: [],
    },
  ])
  expect(await failureOf(store.enforce(nobody))).toMatchObject({ message: 'killed' })
  expect(await active()).toEqual([alice, bob, carol])
  expect(await events()).toEqual([])
})

test('one person is looked at alone', async () => {
  await store.enforce({ ...nobody, dids: [alice] }, bob)
  expect(await active()).toEqual([alice, carol])
  await store.enforce('everybody', carol)
  expect(await active()).toEqual([alice, carol])
  await store.enforce('everybody', bob)
  expect(await active()).toEqual([alice, bob, carol])
  expect(await store.enforce(nobody, parseDid('did:web:nobody.test'))).toEqual({
    active: 0,
    inactive: 0,
  })
})

test('somebody who leaves does not become active again, but may become inactive', async () => {
  const leaves = (did: Did) =>
    sql.run([
      {
        sql: `insert into departure (did, "sinceMs", erased, points, "pointsAtMs")
          values ($1, 0, 0, 0, 0)`,
        args: [did],
      },
    ])
  await store.enforce({ ...nobody, dids: [bob] })
  await leaves(alice)
  await leaves(bob)
  await store.enforce('everybody')
  expect(await active()).toEqual([bob, carol])
  await store.enforce(nobody)
  expect(await active()).toEqual([])
})

test('lists of any length count', async () => {
  const many = Array.from({ length: 40_000 }, (_, index) => `did:web:p${index}.test`)
  const pds = many.map((_, index) => `https://p${index}.test`)
  await store.enforce({ dids: [...many, bob], pds: [...pds, 'https://carol.test'], list: null })
  expect(await active()).toEqual([bob, carol])
})

test('texts that mean something in SQL or JSON are texts', async () => {
  const dids = [`'`, `"`, `\\`, `') or 1 = 1 --`, '\u0000', '[]', alice]
  await store.enforce({ dids, pds: [`https://pds.test' or '1`], list: `' or ''='` })
  expect(await active()).toEqual([alice])
})

test('what was read while it was being enforced is not remembered', async () => {
  const seams: (() => Promise<unknown>)[] = []
  const slow = new ServiceStore({
    all: async <Row>(text: string, ...args: readonly SqlValue[]) => {
      const rows = await sql.all<Row>(text, ...args)
      await seams.shift()?.()
      return rows
    },
    run: (batch) => sql.run(batch),
    scrub: () => sql.scrub(),
    close: () => sql.close(),
  })
  expect((await slow.enrollment(bob))?.active).toBeTrue()
  seams.push(() => slow.enforce(nobody))
  expect((await slow.enrollment(alice))?.active).toBeTrue()
  expect((await slow.enrollment(alice))?.active).toBeFalse()
  expect((await slow.enrollment(bob))?.active).toBeFalse()
})

const copy = { digest: 'text', etag: null, fetchedAtMs: 0 }
const isoTime = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)

async function active(): Promise<Did[]> {
  const found = []
  for (const did of [alice, bob, carol]) {
    if ((await store.enrollment(did))?.active === true) found.push(did)
  }
  return found
}

/** After the three people joined. */
async function events() {
  return (await store.events(3, 100)).map(({ did, action, time }) => ({ did, action, time }))
}
