import { expect, test } from 'bun:test'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { AllowList } from '../../src/store/allow-list.ts'
import type { Sql } from '../../src/store/sql.ts'
import { serviceSql } from '../kit/service-store.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const carol = parseDid('did:web:carol.test')
const signal = new AbortController().signal
const copy = { digest: 'text', etag: '"1"', fetchedAtMs: 5 }

test('nobody is on a list that was never read', async () => {
  const list = new AllowList(await serviceSql(folder), 'list')
  expect(await list.copy()).toBeUndefined()
  expect(await list.has(alice)).toBeFalse()
  expect(await failureOf(list.renew(copy))).toBeInstanceOf(Error)
})

test('a copy counts for its own list alone', async () => {
  const sql = await serviceSql(folder)
  await new AllowList(sql, 'one').replace(copy, new Set([alice]), signal)
  const other = new AllowList(sql, 'other')
  expect(await other.has(alice)).toBeFalse()
  expect(await other.copy()).toBeUndefined()
  expect(await failureOf(other.renew(copy))).toBeInstanceOf(Error)

  await other.replace(copy, new Set([alice, bob]), signal)
  expect(await present(other)).toEqual([alice, bob])
  expect(await new AllowList(sql, 'one').has(alice)).toBeFalse()
  expect(await new AllowList(sql, 'one').copy()).toBeUndefined()
})

test('a text takes the place of the one before, and an empty one that of all', async () => {
  const list = new AllowList(await serviceSql(folder), 'list')
  const texts = [[alice, bob], [bob, carol], [], [alice], [alice], [carol, alice, bob]]
  for (const [index, dids] of texts.entries()) {
    const next = { digest: `text ${index}`, etag: null, fetchedAtMs: index }
    await list.replace(next, new Set(dids), signal)
    expect(await present(list)).toEqual(dids.toSorted())
    expect(await list.copy()).toEqual(next)
  }
})

test('a renewed copy is as young as it was found unchanged', async () => {
  const list = new AllowList(await serviceSql(folder), 'list')
  await list.replace(copy, new Set([alice]), signal)
  await list.renew({ ...copy, etag: null, fetchedAtMs: 6 })
  expect(await list.copy()).toEqual({ digest: 'text', etag: null, fetchedAtMs: 6 })
  expect(await present(list)).toEqual([alice])
})

test('a replacement that is cut off at any step changes nothing, and is made up for', async () => {
  // Enough people for several steps of each kind.
  const people = Array.from({ length: 3500 }, (_, index) => parseDid(`did:web:p${index}.test`))
  const before = new Set(people.slice(0, 2500))
  const after = new Set(people.slice(1200))
  const other = new Set(people.filter((_, index) => index % 3 === 0))
  const whole = await steps(before, after)
  expect(whole).toBeGreaterThan(4)
  for (let cut = 0; cut < whole; cut++) {
    let left = Infinity
    const sql = await serviceSql(folder, async () => {
      if (left-- === 0) throw new Error('killed')
    })
    const list = new AllowList(sql, 'list')
    await list.replace({ ...copy, digest: 'before' }, new Set(before), signal)
    left = cut
    const failure = await failureOf(
      list.replace({ ...copy, digest: 'after' }, new Set(after), signal),
    )
    expect(failure).toEqual(new Error('killed'))
    expect(await list.copy()).toMatchObject({ digest: 'before' })
    expect(await listed(sql, people)).toEqual(before)
    // The list may have become a third one meanwhile.
    left = Infinity
    const then = cut % 2 === 0 ? after : other
    await list.replace({ ...copy, digest: 'then' }, new Set(then), signal)
    expect(await listed(sql, people)).toEqual(then)
    await sql.close()
  }
})

test('a replacement that is aborted ends with the next step', async () => {
  const stopping = new AbortController()
  let batches = 0
  const sql = await serviceSql(folder, async () => {
    batches += 1
    stopping.abort()
  })
  const list = new AllowList(sql, 'list')
  const dids = Array.from({ length: 5000 }, (_, index) => parseDid(`did:web:p${index}.test`))
  const failure = await failureOf(list.replace(copy, new Set(dids), stopping.signal))
  expect(failure).toMatchObject({ name: 'AbortError' })
  expect(batches).toBe(1)
  expect(await list.copy()).toBeUndefined()
})

test('between its steps the process does other work', async () => {
  const sql = await serviceSql(folder)
  let turns = 0
  const timer = setInterval(() => void (turns += 1), 0)
  const dids = Array.from({ length: 20_000 }, (_, index) => parseDid(`did:web:p${index}.test`))
  await new AllowList(sql, 'list').replace(copy, new Set(dids), signal)
  clearInterval(timer)
  expect(turns).toBeGreaterThan(5)
})

test('of an unchanged list nothing is written but its name', async () => {
  let batches = 0
  const sql = await serviceSql(folder, async () => void (batches += 1))
  const list = new AllowList(sql, 'list')
  await list.replace(copy, new Set([alice, bob]), signal)
  batches = 0
  await list.replace(copy, new Set([bob, alice]), signal)
  expect(batches).toBe(1)
})

async function steps(before: ReadonlySet<Did>, after: ReadonlySet<Did>): Promise<number> {
  let count = 0
  const sql = await serviceSql(folder, async () => void (count += 1))
  const list = new AllowList(sql, 'list')
  await list.replace(copy, new Set(before), signal)
  count = 0
  await list.replace(copy, new Set(after), signal)
  return count
}

async function present(list: AllowList): Promise<Did[]> {
  const found = []
  for (const did of [alice, bob, carol]) if (await list.has(did)) found.push(did)
  return found
}

async function listed(sql: Sql, people: readonly Did[]): Promise<Set<Did>> {
  const list = new AllowList(sql, 'list')
  const found = new Set<Did>()
  for (const did of people) if (await list.has(did)) found.add(did)
  return found
}
