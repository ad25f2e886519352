import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { keyHeight } from '../../src/atproto/mst-key.ts'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import type { ProofCall, RowOutcome } from '../../src/service/calls.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import { type Proven, readProof } from '../kit/record-proof.ts'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, collection, post } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds } from './pools.ts'

type Sight = Partial<Pick<ProofCall, 'view' | 'neighbours'>>

const folder = temporaryFolder()
const missing = { missing: true } as const
/** Of a repo whose root holds `middle` alone: a proof of a key shows its side, and the root. */
const [left, leftToo, middle, right] = [
  keyOf('a', 0),
  keyOf('b', 0),
  keyOf('m', 2),
  keyOf('z', 0),
] as const
const keys = [left, leftToo, middle, right]
/** Somebody of the boundary of all records. */
const reader: Sight = { view: { boundaries: [a] }, neighbours: 'stubbed' }

let house: House
beforeAll(async () => {
  house = await House.open('inline', join(folder, 'inline'))
})
afterAll(async () => {
  await house.pool.close()
})

describe('to somebody who does not see whole repos', () => {
  test('what is hidden and what is not there are one, and cost no look at the tree', async () => {
    const dataDir = join(folder, 'tampered')
    const before = await House.open('inline', dataDir)
    const { did, signingKey } = await stubbedActor([], before)
    const ofB = post({ boundary: boundary(b) })
    await before.known(did, '').create('of-b', { record: ofB, stubs: [collection] })
    await before.pool.close()
    const after = await House.open('inline', dataDir)
    const actor = after.known(did, signingKey)
    tamper(actor, "update stratos_repo_root set rev = '2222222222222'")
    for (const rkey of ['of-b', 'absent', 'of-a']) {
      expect(await proof(actor, rkey, reader, after)).toEqual(missing)
    }
    const except = [recordUri(did, collection, parseRkey(left))]
    for (const view of [{ boundaries: [a], except }, { boundaries: [] }]) {
      expect(await proof(actor, left, { ...reader, view }, after)).toEqual(missing)
    }
    // The tree, which what was visible needs, is one that cannot be built any more.
    expect(await failureOf(proof(actor, left, reader, after))).toMatchObject({ status: 500 })
    await after.pool.close()
  })

  type Step = (actor: Actor) => Promise<unknown>
  const settled = settle({ kind: 'settled', pdsCid: 'cid of a stub' })
  const parked = settle({ kind: 'parked', reason: 'refused' })
  const again: Step = (actor) => replace(actor, leftToo, 'new')
  const off: Step = (actor) =>
    house.pool.call(actor.did, 'test', { kind: 'restub', wanted: 'off', after: '' })
  const states: [state: string, steps: Step[], outcome: 'shown' | 'hidden'][] = [
    ['wanted', [], 'shown'],
    ['delivered', [settled], 'shown'],
    ['delivered, and wanted anew', [settled, again], 'shown'],
    ['postponed', [settle({ kind: 'postponed', nextAttemptAtMs: 1 })], 'shown'],
    ['given up', [parked], 'hidden'],
    ['delivered, and its successor given up', [settled, again, parked], 'hidden'],
    ['about to be deleted', [settled, off], 'hidden'],
    ['deleted', [settled, off, settle({ kind: 'settled', pdsCid: null })], 'hidden'],
  ]
  test.each(states)('beside a record whose stub is %s', async (_, steps, outcome) => {
    const actor = await stubbedActor()
    for (const step of steps) await step(actor)
    const shown = await proof(actor, left, reader)
    if (outcome === 'hidden') expect(shown).toEqual(missing)
    else expect(await proven(actor, left, reader)).toMatchObject({ record: { text: left } })
    // Whoever sees whole repos sees it in any case.
    expect(await proven(actor, left)).toMatchObject({ record: { text: left } })
  })

  test('the key of a record without a stub is not shown, not even as a neighbour', async () => {
    for (const bare of keys) {
      const actor = await stubbedActor([bare])
      const shown = []
      for (const key of keys) {
        if (!('missing' in (await proof(actor, key, reader)))) shown.push(key)
      }
      const besides: Record<string, string[]> = {
        [left]: [left, middle, right],
        [leftToo]: [leftToo, middle, right],
        // Its own proof shows no other key.
        [middle]: [middle],
        [right]: [left, leftToo, middle, right],
      }
      expect([bare, shown]).toEqual([bare, besides[bare] ?? []])
    }
  })

  test('a path of more keys than there may be is not shown', async () => {
    const actor = await house.actor()
    const flat = flatKeys(1_002)
    const [last = '', ...others] = flat.toReversed()
    for (let at = 0; at < others.length; at += 200) {
      const ops = others.slice(at, at + 200).map((rkey) => creation(rkey))
      await actor.apply(ops, { stubs: [collection] })
    }
    const [one = ''] = others
    expect(flat).toHaveLength(1_002)
    expect(await proven(actor, one, reader)).toMatchObject({ record: { text: one } })
    await actor.apply([creation(last)], { stubs: [collection] })
    expect(await proof(actor, one, reader)).toEqual(missing)
    expect(await proven(actor, one)).toMatchObject({ record: { text: one } })
  })
})

describe('to somebody who sees whole repos', () => {
  test('a key that is not there is proven to be absent', async () => {
    const empty = await house.actor()
    expect(await proven(empty, 'absent')).toMatchObject({ record: undefined, blocks: 2 })
    const actor = await stubbedActor()
    for (const rkey of ['0', `${left}0`, 'n', 'zz']) {
      expect(await proven(actor, rkey)).toMatchObject({ record: undefined })
    }
    await actor.remove(left)
    expect(await proven(actor, left)).toMatchObject({ record: undefined })
  })

  test('one that is there and taken from the view is not', async () => {
    const actor = await stubbedActor()
    const except = [recordUri(actor.did, collection, parseRkey(left))]
    const view = { boundaries: 'all', except } as const
    expect(await proof(actor, left, { view })).toEqual(missing)
    expect(await proof(actor, left, { view: { boundaries: [b] } })).toEqual(missing)
    await actor.remove(left)
    expect(await proven(actor, left, { view })).toMatchObject({ record: undefined })
  })

  test('content that was altered is not proven', async () => {
    const own = await House.open('inline', join(folder, 'altered'))
    const actor = await own.actor()
    await actor.create('one')
    await actor.stored()
    tamper(actor, "update stratos_repo_block set content = cast(x'a0' as blob)")
    const call = { kind: 'prove', collection, rkey: parseRkey('one') } as const
    const asked = own.pool.call(actor.did, 'test', { ...call, view: 'all', neighbours: 'all' })
    expect(await failureOf(asked)).toMatchObject({ status: 500, error: 'InternalServerError' })
    expect(own.log.at(-1)).toContain('RepoCorrupt')
    await own.pool.close()
  })
})

describe.each(kinds)('%s', (kind) => {
  test('a proof has commit, path and record, and tells how far the repo is', async () => {
    const own = await House.open(kind, join(folder, `facts-${kind}`))
    const actor = await stubbedActor([], own)
    const { cid, rev } = await own.pool.call(actor.did, 'test', { kind: 'head' })
    const found = await proof(actor, left, {}, own)
    expect(found).toMatchObject({ rev })
    // Commit, a root, a node without records below it, the one of the record, and the record.
    const facts = { record: { text: left }, blocks: 5, root: cid }
    expect(await proven(actor, left, {}, own)).toMatchObject(facts)
    expect(await proven(actor, left, reader, own)).toMatchObject(facts)
    expect(await proven(actor, middle, reader, own)).toMatchObject({ blocks: 3, root: cid })
    await own.pool.close()
  })

  test('while the repo is written to, each proof is of one state of it', async () => {
    const own = await House.open(kind, join(folder, `torn-${kind}`))
    const actor = await stubbedActor([], own)
    const [writes, proofs]: [ReturnType<typeof replace>[], ReturnType<typeof proof>[]] = [[], []]
    writes.push(replace(actor, left, 'first'))
    await writes[0]
    for (let round = 0; round < 20; round++) {
      for (const step of [1, 2]) {
        writes.push(replace(actor, left, `${round}-${step}`))
        proofs.push(proof(actor, left, {}, own), proof(actor, left, reader, own))
      }
      const others = [actor.create(`new-${round}`, { stubs: [collection] }), actor.remove(right)]
      await Promise.all([...others, proofs.at(-1)])
      await actor.create(right, { stubs: [collection] })
    }
    const versions = await Promise.all(writes)
    const seen = new Set<string>()
    for (const found of await Promise.all(proofs)) {
      if (!('bytes' in found)) throw new Error('every proof is given')
      // The record as it was at the commit of the proof.
      const version = versions.findLast(({ commit }) => (commit?.rev ?? 'none') <= found.rev)
      const claim = { did: actor.did, collection, rkey: left, cid: version?.cid ?? '' }
      const { record } = await readProof(found.bytes, claim, actor.signingKey)
      expect(record).toHaveProperty('text')
      seen.add(found.rev)
    }
    expect(proofs).toHaveLength(80)
    expect(seen.size).toBeGreaterThan(10)
    await own.pool.close()
  })
})

test('a proof waits for the write before it, and the write after it waits for the proof', async () => {
  const actor = await house.actor()
  const order: string[] = []
  const ended = (name: string) => () => void order.push(name)
  await Promise.all([
    actor.create('one').then(ended('write')),
    proven(actor, 'one', {}).then(ended('proof')),
  ])
  expect(order).toEqual(['write', 'proof'])
})

/** An actor with a record in boundary `a` at each of the keys, and stubs wanted for all but `bare`. */
async function stubbedActor(bare: readonly string[] = [], at = house): Promise<Actor> {
  const actor = await at.actor()
  const stubbed = keys.filter((key) => !bare.includes(key))
  await actor.apply(stubbed.map(creation), { stubs: [collection] })
  if (bare.length > 0) await actor.apply(bare.map(creation))
  return actor
}

function creation(key: string): WriteOp {
  const record = post({ text: key, boundary: boundary(a) })
  return { action: 'create', collection, rkey: parseRkey(key), record }
}

function replace(actor: Actor, key: string, text: string) {
  const record = post({ text, boundary: boundary(a) })
  const op = { action: 'update', collection, rkey: parseRkey(key), record } as const
  return actor.write(op, { stubs: [collection] })
}

function proof({ did }: Actor, rkey: string, sight: Sight = {}, at = house) {
  const { view = 'all', neighbours = 'all' } = sight
  const call = { kind: 'prove', collection, rkey: parseRkey(rkey), view, neighbours } as const
  return at.pool.call(did, 'test', call)
}

/** What others read in a proof, of the record that is there now or of none. */
async function proven(actor: Actor, rkey: string, sight: Sight = {}, at = house): Promise<Proven> {
  const found = await proof(actor, rkey, sight, at)
  if (!('bytes' in found)) throw new Error(`no proof of ${rkey}`)
  const cid = (await actor.read(rkey))?.cid ?? null
  const { did, signingKey } = actor
  return await readProof(found.bytes, { did, collection, rkey, cid }, signingKey)
}

/** Reports what became of the stub of `leftToo`. */
function settle(outcome: RowOutcome) {
  return async ({ did }: Actor): Promise<void> => {
    const { rows } = await house.pool.call(did, 'test', { kind: 'outbox', limit: 100 })
    const row = rows.find(({ rkey }) => rkey === leftToo)
    if (row === undefined) throw new Error(`no row of ${leftToo} is pending`)
    const budget = { points: 1, atMs: 0 }
    await house.pool.call(did, 'test', { kind: 'report', row, outcome, budget })
  }
}

function tamper({ database: path }: Actor, sql: string): void {
  using database = new Database(path)
  expect(database.run(sql).changes).toBe(1)
}

/** A key that begins so and has the height. */
function keyOf(start: string, height: number): string {
  for (let at = 0; ; at++) {
    if (keyHeight(`${collection}/${start}${at}`) === height) return `${start}${at}`
  }
}

function flatKeys(count: number): string[] {
  const all = Array.from({ length: 2 * count }, (_, at) => `flat-${at}`)
  return all.filter((key) => keyHeight(`${collection}/${key}`) === 0).slice(0, count)
}
