import { MemoryBlockstore, readCarWithRoot, Repo, verifyDiffCar } from '@atproto/repo'
import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { join } from 'node:path'
import { parseRkey, parseTid, type Tid } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { repoCar } from '../../src/bulk/repo-car.ts'
import { assert } from '../../src/lib/assert.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import { failureOf } from '../kit/wait.ts'
import { ActorSnapshot } from '../../src/store/actor-snapshot.ts'
import { collection, post } from '../service/posts.ts'
import { type Actor, House } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type FoundCar, readCar } from './found-car.ts'

const folder = temporaryFolder()
let house: House

beforeAll(async () => {
  house = await House.open('inline', join(folder, 'since'))
})
afterAll(async () => {
  await house.bulk.close()
  await house.pool.close()
})

interface Move {
  readonly key: string
  /** Null for no record. */
  readonly text: number | null
}

/** Few contents, so that one comes back, and stands at several keys. */
const move = fc.record({
  key: fc.nat(39).map((number) => `key-${number}`),
  text: fc.option(fc.nat(3)),
})
const histories = fc.record({
  before: fc.nat(120),
  commits: fc.array(fc.array(move, { minLength: 1, maxLength: 6 }), { maxLength: 12 }),
})

test('with the blocks of any earlier export, what came since then makes the repo of now', async () => {
  await fc.assert(
    fc.asyncProperty(histories, async ({ before, commits }) => {
      const history = await History.of(before)
      for (const moves of commits) await history.commit(moves)
      await history.check()
    }),
    { numRuns: 25 },
  )
}, 120_000)

test('what came since then stands in the order of the tree', async () => {
  const actor = await house.actor()
  await create(actor, { from: 0, count: 200 })
  const since = revOf(await create(actor, { from: 200, count: 100 }))
  await create(actor, { from: 300, count: 40 })
  const { cids, inOrder, nodes } = await readCar(await actor.export({ since }))
  expect(cids).toEqual(inOrder)
  expect(cids.length - nodes.size).toBe(41)
})

describe('the whole repo is sent', () => {
  let actor: Actor
  let whole: Uint8Array
  let revs: Tid[]

  beforeAll(async () => {
    actor = await house.actor()
    revs = [parseTid((await readCar(await actor.export())).rev)]
    for (const from of [0, 1, 2, 3]) revs.push(revOf(await create(actor, { from, count: 1 })))
    whole = await actor.export()
  })

  test('since a rev that this repo never had: later than all, before all, in between', async () => {
    const [, second = never, third = never] = revs
    const between = nextTid({ nowMs: 0, clockId: 0, after: second })
    expect(between < third).toBeTrue()
    const later = nextTid({ nowMs: Date.now() + 60_000, clockId: 0, after: revs.at(-1) })
    for (const since of [later, never, between]) {
      expect(await actor.export({ since })).toEqual(whole)
    }
    expect(await actor.export({ since: second })).not.toEqual(whole)
  })

  test('where more records changed since than are looked at', async () => {
    const [, since = never] = revs
    const changed = await carOf(actor, { since, changesMax: 3 })
    expect(changed.length).toBeLessThan(whole.length)
    expect(await carOf(actor, { since, changesMax: 2 })).toEqual(whole)
    // Of one record any number.
    for (let count = 0; count < 4; count++) {
      const record = post({ text: `changed ${count}` })
      await actor.write({ action: 'put', collection, rkey: parseRkey('post-3'), record })
    }
    const { blocks } = await readCar(await carOf(actor, { since, changesMax: 3 }))
    expect(blocks.size).toBeLessThan((await readCar(await actor.export())).blocks.size)
    whole = await actor.export()
  })

  test('where the events that tell of it are not kept', async () => {
    using database = new Database(await actor.stored())
    const [, , since = never, kept = never] = revs
    database.run('delete from stratos_seq where rev <= ?', [since])
    expect(await actor.export({ since })).toEqual(whole)
    expect(await actor.export({ since: kept })).not.toEqual(whole)
    database.run('delete from stratos_seq')
    expect(await actor.export({ since: kept })).toEqual(whole)
    // The rev of now needs none.
    const { root, rev } = await readCar(whole)
    expect((await readCar(await actor.export({ since: parseTid(rev) }))).cids).toEqual([root])
  })
})

test('events that were altered give an error, and no other repo', async () => {
  const altered = {
    'an event that is no JSON':
      "update stratos_seq set event = '{' where seq = (select max(seq) from stratos_seq)",
    'a CID that is none': `update stratos_seq
      set event = replace(event, '"prev":null', '"prev":"bafy"') where seq = (select max(seq) from stratos_seq)`,
  }
  for (const [name, sql] of Object.entries(altered)) {
    const actor = await house.actor()
    const since = revOf(await create(actor, { from: 0, count: 1 }))
    await create(actor, { from: 1, count: 1 })
    using database = new Database(await actor.stored())
    expect(database.run(sql).changes).toBe(1)
    expect({ name, error: await failureOf(actor.export({ since })) }).toMatchObject({
      name,
      error: { status: 500 },
    })
    expect((await actor.verified()).rkeys).toHaveLength(2)
  }
})

const never = parseTid('2222222222222')

/** As one commit. */
async function create(actor: Actor, { from, count }: { from: number; count: number }) {
  return await actor.apply(
    Array.from({ length: count }, (_, index) => ({
      action: 'create',
      collection,
      rkey: parseRkey(`post-${from + index}`),
      record: post({ text: `post ${from + index}` }),
    })),
  )
}

function revOf({ commit }: { readonly commit?: { readonly rev: Tid } | undefined }): Tid {
  assert(commit !== undefined, 'what differs makes a commit')
  return commit.rev
}

async function carOf(
  actor: Actor,
  wanted: { readonly since: Tid; readonly changesMax: number },
): Promise<Uint8Array> {
  await using snapshot = await ActorSnapshot.open(await actor.stored(), actor.did)
  const { signingKey } = actor
  const around = { hold: () => undefined, rest: () => Promise.resolve() }
  const pieces = repoCar(snapshot, { ...wanted, ...around, view: 'all', signingKey })
  return new Uint8Array(Bun.concatArrayBuffers(await Array.fromAsync(pieces)))
}

/** A repo, and for each of its revs the whole export of then. */
class History {
  readonly #actor: Actor
  readonly #texts = new Map<string, number>()
  readonly #past: { readonly car: Uint8Array; readonly found: FoundCar }[] = []
  /** By path: after how many commits it was written last. */
  readonly #written = new Map<string, number>()

  private constructor(actor: Actor) {
    this.#actor = actor
  }

  static async of(before: number): Promise<History> {
    const history = new History(await house.actor())
    await history.#keep()
    const keys = Array.from({ length: before }, (_, index) => `old-${index}`)
    await history.commit(keys.map((key) => ({ key, text: 9 })))
    return history
  }

  async commit(moves: readonly Move[]): Promise<void> {
    const ops = moves.flatMap((one) => this.#op(one) ?? [])
    if (ops.length === 0) return
    revOf(await this.#actor.apply(ops))
    await this.#keep()
  }

  #op({ key, text }: Move): WriteOp | undefined {
    const rkey = parseRkey(key)
    const now = this.#texts.get(key) ?? null
    if (text === now) return undefined
    this.#written.set(`${collection}/${key}`, this.#past.length)
    if (text === null) {
      this.#texts.delete(key)
      return { action: 'delete', collection, rkey }
    }
    this.#texts.set(key, text)
    const record = post({ text: String(text), salt: { $bytes: 'AAAAAAAAAAAAAAAAAAAAAA' } })
    return { action: now === null ? 'create' : 'update', collection, rkey, record }
  }

  async #keep(): Promise<void> {
    const car = await this.#actor.export()
    this.#past.push({ car, found: await readCar(car) })
  }

  async check(): Promise<void> {
    const now = this.#past.at(-1)?.found
    assert(now !== undefined, 'there is a first commit')
    for (const [index, { car, found: old }] of this.#past.entries()) {
      const sent = await this.#actor.export({ since: parseTid(old.rev) })
      const found = await readCar(sent)
      expect(found.root).toBe(now.root)
      expect(found.cids[0]).toBe(now.root)
      expect(found.cids.toSorted()).toEqual(found.inOrder.toSorted())
      if (old.rev === now.rev) expect(found.cids).toEqual([now.root])
      const both = new Set([...old.cids, ...found.cids])
      expect(now.cids.filter((cid) => !both.has(cid))).toEqual([])
      // Of the tree, exactly what is new; of records, nothing from then or before.
      expect(found.nodes).toEqual(now.nodes.difference(old.nodes))
      const later = new Set(
        [...now.leaves].flatMap(([path, cid]) =>
          (this.#written.get(path) ?? 0) > index ? [cid] : [],
        ),
      )
      const records = found.cids.filter((cid) => cid !== now.root && !found.nodes.has(cid))
      expect(records.filter((cid) => !later.has(cid))).toEqual([])
      await this.#checkByOthers(car, sent)
    }
  }

  async #checkByOthers(old: Uint8Array, sent: Uint8Array): Promise<void> {
    const { root, blocks } = await readCarWithRoot(old)
    const repo = await Repo.load(new MemoryBlockstore(blocks), root)
    const { did, signingKey } = this.#actor
    const { commit } = await verifyDiffCar(repo, sent, did, signingKey)
    expect<string>(commit.rev).toBe(this.#past.at(-1)?.found.rev ?? '')
  }
}
