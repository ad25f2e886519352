import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { StubTaker } from '../crash/stub-taker.ts'
import { signIn } from '../kit/sign-in.ts'
import type { Subscriber } from '../kit/subscriber.ts'
import { opsAfter, opsOf, Streaming } from './stream-readers.ts'

setDefaultTimeout(60_000)

let streaming: Streaming
let pds: StubTaker

beforeAll(async () => {
  pds = new StubTaker()
  streaming = await Streaming.start({ alice: ['a'] })
  const { did, handle, key } = streaming.stratos.person('alice')
  const account = { didKey: key.did(), handle, pds: pds.signIn.url }
  streaming.stratos.directory.accounts.set(did, account)
  // What was read of the document before would be believed for a while.
  await streaming.stratos.terminate()
  await streaming.run({ STRATOS_ENROLLMENT_MODE: 'open' })
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
  await pds?.[Symbol.asyncDispose]()
})

test('of whoever leaves and is back readers get what is new, once and in order', async () => {
  const did = streaming.did('alice')
  for (const rkey of ['one', 'two']) await streaming.write('alice', rkey)
  using own = await streaming.own('alice', { cursor: 0 })
  using view = await streaming.open({ did, cursor: 0 })
  using all = await streaming.following()
  for (const reader of [own, view, all]) await opsAfter(reader, 2)
  const cursor = own.commits.at(-1)?.seq ?? 0
  await streaming.leave('alice')
  for (const reader of [own, view]) expect((await reader.end())[0]).toBe(1008)
  await all.message('#enrollment', ({ action }) => action === 'unenroll')
  expect((await signIn(streaming.stratos, 'alice', { pds: pds.signIn })).status).toBe(200)
  for (const rkey of ['three', 'four']) await streaming.write('alice', rkey)
  using ownBack = await streaming.own('alice', { cursor })
  using viewBack = await streaming.open({ did, cursor })
  using allBack = await streaming.following({ [did]: cursor })
  const back = [ownBack, viewBack, allBack]
  for (const reader of back) {
    expect(await opsAfter(reader, 2)).toEqual(['create three +', 'create four +'])
    expect(reader.bodies('#info')[0]).toMatchObject({ name: 'OutdatedCursor' })
    expectOrder(reader, cursor)
  }
  // Who was there all the time is told that all is gone, and then as if they had never been here.
  await opsAfter(all, 4)
  const names = ['one', 'two', 'three', 'four'].map((rkey) => `create ${rkey} +`)
  expect(opsOf(all)).toEqual(names)
  expectOrder(all, 0)
  const mine = all.told.filter(({ body }) => body['did'] === did)
  const turns = mine.flatMap(({ type, body }) => (type === '#enrollment' ? [body['action']] : []))
  expect(turns).toEqual(['enroll', 'unenroll', 'enroll'])
  const left = mine.findIndex(({ body }) => body['action'] === 'unenroll')
  expect(mine.slice(left + 1).map(({ type }) => type)[0]).toBe('#enrollment')
  expect(mine.slice(left).every(({ body }) => Number(body['seq']) !== cursor)).toBe(true)
})

function expectOrder(reader: Subscriber, after: number): void {
  const seqs = reader.commits.map(({ seq }) => seq)
  expect(seqs).toEqual([...new Set(seqs)].toSorted((left, right) => left - right))
  expect(seqs[0]).toBeGreaterThan(after)
}
