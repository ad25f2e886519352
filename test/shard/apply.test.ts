import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { join } from 'node:path'
import { decode } from '../../src/atproto/cbor.ts'
import { type AtUri, parseNsid, parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import { linksOf } from '../../src/service/targets.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, collection, post, replyTo } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House } from './pools.ts'

let house: House
// Before the folder goes.
afterAll(async () => {
  await house.pool.close()
})
const folder = temporaryFolder()

beforeAll(async () => {
  house = await House.open('inline', join(folder, 'data'))
})
describe('a batch that is refused', () => {
  const fine = { action: 'create', collection, rkey: parseRkey('fine'), record: post() } as const
  test.each<[string, WriteOp, object]>([
    ['by a key that is taken', creation('taken'), { status: 409 }],
    ['by a record that is not there', update('absent'), { status: 404, error: 'RecordNotFound' }],
    ['by a bad record', creation('new', { text: 1 }), { error: 'InvalidRecord' }],
    ['by a boundary', creation('new', { boundary: boundary(`${a}x`) }), { status: 400 }],
    ['by a swap', { ...update('taken'), swapRecord: null }, { error: 'InvalidSwap' }],
    [
      'by a collection',
      { ...creation('new'), collection: parseNsid('app.bsky.feed.post') },
      { error: 'InvalidCollection' },
    ],
  ])('%s changes nothing, whatever stands before and after it', async (_, bad, refusal) => {
    const actor = await house.actor()
    await actor.create('taken')
    const before = await dump(actor)
    expect(await failureOf(actor.apply([fine, bad, creation('after')]))).toMatchObject(refusal)
    expect(await dump(actor)).toEqual(before)
    // And its memory is as its rows are.
    await actor.create('fine')
    expect((await actor.verified()).rkeys).toEqual(['fine', 'taken'])
  })
})

describe('a batch', () => {
  test('is one commit, with an answer for each operation in order', async () => {
    const actor = await house.actor()
    await actor.create('old')
    const { seq } = await headOf(actor)
    const { results, commit } = await actor.apply([
      creation('new'),
      update('old', { text: 'changed' }),
      { action: 'delete', collection, rkey: parseRkey('old') },
      { action: 'delete', collection, rkey: parseRkey('absent') },
    ])
    expect(results).toMatchObject([
      { action: 'create', uri: uriOf(actor, 'new'), validationStatus: 'valid' },
      { action: 'update', uri: uriOf(actor, 'old'), validationStatus: 'valid' },
      { action: 'delete' },
      { action: 'delete' },
    ])
    const head = await headOf(actor)
    expect(head).toMatchObject({ rev: commit?.rev })
    expect(head.seq).toBeGreaterThan(seq)
    expect((await actor.verified()).rkeys).toEqual(['new'])
  })

  test('of nothing that changes anything makes no commit', async () => {
    const actor = await house.actor()
    await actor.create('one', { record: post({ text: 'same' }) })
    const before = await dump(actor)
    const { results, commit } = await actor.apply([
      update('one', { text: 'same' }),
      { action: 'put', collection, rkey: parseRkey('one'), record: post({ text: 'same' }) },
      { action: 'delete', collection, rkey: parseRkey('absent') },
    ])
    expect(commit).toBeUndefined()
    expect(results.map(({ action }) => action)).toEqual(['update', 'update', 'delete'])
    expect(await dump(actor)).toEqual(before)
  })

  test('may answer what it has just written, and nothing that it has just deleted', async () => {
    const actor = await house.actor()
    const first = uriOf(actor, 'first')
    const reply = creation('second', { reply: replyTo(first) })
    await actor.apply([creation('first'), reply])
    const gone = { action: 'delete', collection, rkey: parseRkey('first') } as const
    const third = creation('third', { reply: replyTo(first) })
    const targets = { [first]: [a] }
    const failure = await failureOf(actor.apply([gone, third], { targets }))
    expect(failure).toMatchObject({ error: 'CrossNamespaceReply' })
    const hidden = await failureOf(
      actor.apply([gone, creation('first'), third], { targets, takendown: [first] }),
    )
    expect(hidden).toMatchObject({ error: 'CrossNamespaceReply' })
    // A reply within a batch reaches no further than what it answers.
    const wide = creation('wide', { reply: replyTo(first), boundary: boundary(a, b) })
    expect(await failureOf(actor.apply([gone, creation('first'), wide]))).toMatchObject({
      error: 'ReplyBoundaryEscalation',
    })
  })
})

describe('replacing a record', () => {
  test('gives it a new salt where it says something else', async () => {
    const actor = await house.actor()
    await actor.create('one', { record: post({ text: 'first' }) })
    const saltOf = async () => (await actor.read('one'))?.value['salt']
    const before = await saltOf()
    await actor.write(update('one', { text: 'second' }))
    expect(await saltOf()).not.toEqual(before)
    const { cid } = await actor.write(update('one', { text: 'third', salt: before }))
    expect((await actor.read('one'))?.cid).toEqual(cid)
    expect(await saltOf()).toEqual(before)
  })

  test('that answers what is gone may only make it reach fewer', async () => {
    const actor = await house.actor()
    const target = uriOf(actor, 'gone')
    const reply = { reply: replyTo(target), boundary: boundary(a, b) }
    await actor.create('reply', { record: post(reply), targets: { [target]: [a, b] } })
    const narrow = { ...reply, boundary: boundary(a), text: 'edited' }
    await actor.write(update('reply', narrow))
    for (const change of [reply, { ...narrow, reply: replyTo(uriOf(actor, 'other')) }]) {
      expect(await failureOf(actor.write(update('reply', change)))).toMatchObject({
        error: 'CrossNamespaceReply',
      })
    }
  })
})

test('whatever several clients do, the repo is what its event log says', async () => {
  const keys = ['a', 'b', 'c', 'd']
  const op = fc.record({
    action: fc.constantFrom('create', 'put', 'update', 'delete'),
    rkey: fc.constantFrom(...keys),
    text: fc.constantFrom('x', 'y', 'z'),
    wide: fc.boolean(),
    answers: fc.option(fc.constantFrom(...keys)),
    lostSwap: fc.boolean(),
  })
  const calls = fc.array(fc.array(op, { minLength: 1, maxLength: 4 }), {
    minLength: 1,
    maxLength: 12,
  })
  const check = fc.asyncProperty(calls, async (batches) => {
    const actor = await house.actor()
    const send = (ops: readonly WriteOp[]) => actor.apply(ops, { stubs: [collection] })
    const asked = batches.map((batch) =>
      send(
        batch.map(({ action, rkey, text, wide, answers, lostSwap }) => {
          const key = parseRkey(rkey)
          if (action === 'delete') return { action, collection, rkey: key }
          const reply = answers === null ? {} : { reply: replyTo(uriOf(actor, answers)) }
          const record = post({ text, boundary: wide ? boundary(a, b) : boundary(a), ...reply })
          const swap = action !== 'create' && lostSwap ? { swapRecord: null } : {}
          return { action, collection, rkey: key, record, ...swap }
        }),
      ),
    )
    await Promise.allSettled(asked)
    await expectLogTellsAll(actor)
  })
  await fc.assert(check, { numRuns: 60 })
}, 60_000)

/** Replays the events of an actor, and compares what they make with tree, rows and links. */
async function expectLogTellsAll(actor: Actor): Promise<void> {
  using database = new Database(await actor.stored(), { readonly: true })
  const all = <Row>(sql: string) => database.query<Row, []>(sql).all()
  const records = new Map<string, string>()
  const boundaries = new Map<string, readonly string[]>()
  let rev = ''
  let seq = 0
  type Event = { seq: number; rev: string; event: string }
  for (const event of all<Event>('select seq, rev, event from stratos_seq order by seq')) {
    expect(event.seq).toBeGreaterThan(seq)
    expect(event.rev > rev).toBeTrue()
    ;({ rev, seq } = event)
    for (const op of JSON.parse(event.event).ops) {
      expect(op.prev).toBe(records.get(op.path) ?? null)
      expect(op.before).toEqual(boundaries.get(op.path) ?? [])
      expect(op.action === 'create').toBe(!records.has(op.path))
      if (op.cid === null) records.delete(op.path)
      else records.set(op.path, op.cid)
      boundaries.set(op.path, op.after)
    }
  }
  const { cids, rev: last } = await house.known(actor.did, actor.signingKey).verified()
  expect(last).toBe(rev)
  const inTree = [...cids].map(([rkey, cid]): [string, string] => [`${collection}/${rkey}`, cid])
  expect(records).toEqual(new Map(inTree))
  type Row = { uri: AtUri; content: Uint8Array }
  const rows = all<Row>(`select r.uri, b.content from stratos_record r
    join stratos_repo_block b on b.id = r."blockId" order by r.uri`)
  const links = rows.flatMap(({ uri, content }) =>
    linksOf(decode(content)).map(({ path, uri: linkTo }) => ({ uri, path, linkTo })),
  )
  expect(all('select uri, path, "linkTo" from stratos_backlink order by uri, path')).toEqual(
    links.toSorted((one, other) => (one.uri + one.path < other.uri + other.path ? -1 : 1)),
  )
  expect(all<{ count: number }>('select count(*) as count from stratos_repo_block')).toEqual([
    { count: records.size },
  ])
  // What the PDS is to be told is the last state of each key that was ever written.
  const wanted = all<{ rkey: string; record: string | null }>(
    'select rkey, record from stratos_outbox where pending = 1',
  )
  for (const { rkey, record } of wanted) {
    const cid: unknown = record === null ? undefined : JSON.parse(record).source.subject.cid
    expect(cid).toBe(records.get(`${collection}/${rkey}`))
  }
}

function creation(rkey: string, over: Readonly<Record<string, unknown>> = {}) {
  return { action: 'create', collection, rkey: parseRkey(rkey), record: post(over) } as const
}

function update(rkey: string, over: Readonly<Record<string, unknown>> = {}) {
  return { action: 'update', collection, rkey: parseRkey(rkey), record: post(over) } as const
}

function uriOf(actor: Actor, rkey: string): AtUri {
  return recordUri(actor.did, collection, parseRkey(rkey))
}

async function headOf(actor: Actor) {
  using database = new Database(await actor.stored(), { readonly: true })
  return Object(database.query('select seq, rev from stratos_repo_root').get())
}

async function dump(actor: Actor): Promise<object[]> {
  using database = new Database(await actor.stored(), { readonly: true })
  const names = [
    'record',
    'record_boundary',
    'repo_block',
    'repo_root',
    'seq',
    'outbox',
    'backlink',
  ]
  return names.map((name) => database.query(`select * from stratos_${name}`).all())
}
