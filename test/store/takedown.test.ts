import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseCid } from '../../src/atproto/cid.ts'
import { type AtUri, type Did, parseDid, parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { migrateSqlite } from '../../src/store/migrate.ts'
import type { Sql, SqlValue } from '../../src/store/sql.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'
import {
  recordTakedownsMax,
  TakedownStore,
  type TakedownSubject,
} from '../../src/store/takedown.ts'
import { failureOf } from '../kit/wait.ts'
import { collection } from './changes.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const cid = parseCid('bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq')
const otherCid = parseCid('bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a')
let sqlite: Sqlite
let store: TakedownStore

beforeEach(async () => {
  const path = join(folder, `${crypto.randomUUID()}.sqlite`)
  sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  store = new TakedownStore(sqlite)
})

afterEach(async () => {
  await sqlite.close()
})

test('more records than there may be of one repo are refused and change nothing', async () => {
  for (let index = 0; index < recordTakedownsMax; index++) {
    expect(await apply(record(alice, `${index}`))).toBeTrue()
  }
  const before = await store.of(alice)
  expect(before.records).toHaveLength(recordTakedownsMax)
  const oneMore = record(alice, 'one-more')
  expect(await apply(oneMore)).toBeFalse()
  expect(await store.of(alice)).toEqual(before)
  expect(await store.find(uriOf(oneMore))).toBeUndefined()
  // Those that are there can be applied again, the repo itself and other repos for the first time.
  for (const subject of [record(alice, '7'), repo(alice), record(bob, 'one')]) {
    expect(await apply(subject)).toBeTrue()
  }
  expect(await apply(oneMore)).toBeFalse()
  await store.lift(record(alice, '7'))
  expect(await apply(oneMore)).toBeTrue()
})

test('nothing is taken down that nobody took down', async () => {
  const one = record(alice, 'one')
  await apply(one)
  expect(await store.of(bob)).toEqual({ repo: false, records: [], blobs: [] })
  expect(await store.find(bob)).toBeUndefined()
  expect(await store.find(alice)).toBeUndefined()
  expect(await store.lift(repo(alice))).toBeFalse()
  expect(await store.lift(record(alice, 'two'))).toBeFalse()
  expect(await store.of(alice)).toEqual({ repo: false, records: [uriOf(one)], blobs: [] })
})

test('a repo and its records are taken down and let up apart', async () => {
  const [one, two] = [record(alice, 'one'), record(alice, 'two')]
  await apply(two)
  await apply(repo(alice))
  await apply(one)
  expect(await store.of(alice)).toEqual({
    repo: true,
    records: [uriOf(one), uriOf(two)],
    blobs: [],
  })
  expect(await store.lift(repo(alice))).toBeTrue()
  expect(await store.of(alice)).toEqual({
    repo: false,
    records: [uriOf(one), uriOf(two)],
    blobs: [],
  })
  expect(await store.lift(two)).toBeTrue()
  expect(await store.lift(two)).toBeFalse()
  expect(await store.of(alice)).toEqual({ repo: false, records: [uriOf(one)], blobs: [] })
  await apply(repo(alice))
  await store.lift(one)
  expect(await store.of(alice)).toEqual({ repo: true, records: [], blobs: [] })
})

test('a second time keeps the first time and takes the new name and CID', async () => {
  const subject = record(alice, 'one')
  const appliedAt = new Date(5).toISOString()
  await store.apply(subject, { ref: undefined, nowMs: 5 })
  expect(await store.find(uriOf(subject))).toEqual({ cid, ref: null, appliedAt })
  await store.apply({ ...subject, cid: otherCid }, { ref: 'case 1', nowMs: 6 })
  expect(await store.find(uriOf(subject))).toEqual({ cid: otherCid, ref: 'case 1', appliedAt })
  await store.apply(subject, { ref: undefined, nowMs: 7 })
  expect(await store.find(uriOf(subject))).toEqual({ cid, ref: 'case 1', appliedAt })
  await store.lift(subject)
  await store.apply(subject, { ref: undefined, nowMs: 8 })
  const later = new Date(8).toISOString()
  expect(await store.find(uriOf(subject))).toEqual({ cid, ref: null, appliedAt: later })
})

test('another store of the same rows finds what this one wrote', async () => {
  await apply(record(alice, 'one'))
  await apply(repo(bob))
  const other = new TakedownStore(sqlite)
  expect(await other.of(alice)).toEqual(await store.of(alice))
  expect(await other.of(bob)).toEqual({ repo: true, records: [], blobs: [] })
})

test('what is known is not read again', async () => {
  const { slow, reads } = watched()
  await slow.of(alice)
  await slow.of(alice)
  expect(reads()).toBe(1)
  await slow.apply(repo(bob), { ref: undefined, nowMs: 1 })
  const before = reads()
  await slow.of(alice)
  expect(reads()).toBe(before)
})

test('what was read while a takedown was being stored is not remembered', async () => {
  const { slow, seams } = watched()
  // The rows have been read, and the takedown is stored before the reader goes on.
  seams.push(async () => void (await slow.apply(repo(alice), { ref: undefined, nowMs: 1 })))
  expect(await slow.of(alice)).toEqual({ repo: false, records: [], blobs: [] })
  expect(await slow.of(alice)).toEqual({ repo: true, records: [], blobs: [] })
  await slow.lift(repo(alice))
  expect(await slow.of(alice)).toEqual({ repo: false, records: [], blobs: [] })
})

test('a takedown that could not be stored is not remembered as none, either', async () => {
  const { slow, failures } = watched()
  await slow.of(alice)
  failures.push(new Error('the answer was lost'))
  const failure = await failureOf(slow.apply(repo(alice), { ref: undefined, nowMs: 1 }))
  expect(failure).toHaveProperty('message', 'the answer was lost')
  expect(await slow.of(alice)).toEqual({ repo: true, records: [], blobs: [] })
})

/** A store whose reads can be counted, and held between the rows and whoever asked for them. */
function watched() {
  const seams: (() => Promise<void>)[] = []
  const failures: Error[] = []
  let reads = 0
  const sql: Sql = {
    all: async <Row>(text: string, ...args: readonly SqlValue[]) => {
      const rows = await sqlite.all<Row>(text, ...args)
      reads += 1
      await seams.shift()?.()
      const failure = failures.shift()
      if (failure !== undefined) throw failure
      return rows
    },
    run: (batch) => sqlite.run(batch),
    scrub: () => sqlite.scrub(),
    close: () => sqlite.close(),
  }
  return { slow: new TakedownStore(sql), seams, failures, reads: () => reads }
}

function apply(subject: TakedownSubject): Promise<boolean> {
  return store.apply(subject, { ref: undefined, nowMs: 1 })
}

function repo(did: Did) {
  return { kind: 'repo', did } as const
}

function record(did: Did, rkey: string) {
  const uri = recordUri(did, collection, parseRkey(rkey))
  return { kind: 'record', did, uri, cid } as const
}

function uriOf(subject: { readonly uri: AtUri }): AtUri {
  return subject.uri
}
