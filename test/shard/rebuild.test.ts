import { beforeAll, describe, expect, test } from 'bun:test'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { putPosts } from '../../bench/kit/posts.ts'
import { encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidToBytes, cidToString } from '../../src/atproto/cid.ts'
import { signCommit } from '../../src/atproto/commit.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { Actors, type OpenActor } from '../../src/shard/actors.ts'
import { Repos } from '../../src/shard/repos.ts'
import { RepoCorrupt } from '../../src/store/repo-corrupt.ts'
import type { RecordOp } from '../../src/store/actor-change.ts'
import { ActorStore } from '../../src/store/actor.ts'
import type { Sql, SqlValue, Statement } from '../../src/store/sql.ts'
import { seedBoot } from '../kit/seed.ts'
import { failureOf } from '../kit/wait.ts'
import { collection, serviceDid } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { House, newDid } from './pools.ts'

const pageSize = 2_000
/** Three pages of entries, of which the last is one record. */
const count = 2 * pageSize + 1
const folder = temporaryFolder()
const seeded = join(folder, 'seeded')
const [large, small] = [newDid(), newDid()]

beforeAll(async () => {
  const house = await House.open('inline', seeded)
  for (const did of [large, small]) await house.actor(did)
  await house.pool.close()
  for (const [did, records] of [
    [large, count],
    [small, pageSize],
  ] as const) {
    await putPosts({ dataDir: seeded, did, count: records }, () => ['x'])
  }
})

describe('a write between the pages of a rebuild', () => {
  test('overtakes it: the tree is that of the newest head', async () => {
    await using at = await Seam.open('overtaken')
    at.probe.afterPage = async (page) => {
      if (page === 2) await at.commit('zz')
    }
    const tree = await at.repos.tree(at.actor)
    expect(cidToString(tree.rootCid())).toBe(cidToString(at.tree.rootCid()))
    expect(tree.size).toBe(count + 1)
    expect(at.probe.pages).toBe(6)
    expect(await at.repos.tree(at.actor)).toBe(tree)
    expect(at.probe.pages).toBe(6)
  })

  test('and every time again ends it without a tree', async () => {
    await using at = await Seam.open('always')
    at.probe.afterPage = async (page) => {
      if (page % 3 === 0) await at.commit(`z${page}`)
    }
    const failure = await failureOf(at.repos.tree(at.actor))
    expect(String(failure)).toContain('changed under each')
    expect(at.probe.pages).toBe(9)
    at.probe.afterPage = async () => {}
    expect((await at.repos.tree(at.actor)).size).toBe(count + 3)
  })

  test('that brings its own tree has the last word', async () => {
    await using at = await Seam.open('kept')
    at.probe.afterPage = async (page) => {
      if (page !== 3) return
      await at.commit('zz')
      at.repos.keep(large, at.tree)
    }
    expect(await at.repos.tree(at.actor)).toBe(at.tree)
    expect(await at.repos.tree(at.actor)).toBe(at.tree)
    expect(at.probe.pages).toBe(3)
  })

  test.each(['inline', 'worker'] as const)('in a shard (%s) waits for its end', async (kind) => {
    const house = await House.open(kind, copied(`shard-${kind}`))
    const [actor, other] = [large, small].map((did) => house.known(did, ''))
    const absent = { kind: 'prove', collection, rkey: parseRkey('absent') } as const
    const prove = { ...absent, view: 'all', neighbours: 'all' } as const
    const order: string[] = []
    const ended = (name: string) => () => void order.push(name)
    await Promise.all([
      house.pool.call(large, 'test', prove).then(ended('proof of the large one')),
      actor?.create('zz').then(ended('write of the large one')),
      other?.read('none').then(ended('read of another')),
    ])
    expect(order).toEqual(['read of another', 'proof of the large one', 'write of the large one'])
    await house.pool.close()
  })
})

test('what is forgotten in the middle is built again, and the old one not kept', async () => {
  await using at = await Seam.open('forgotten')
  at.probe.afterPage = async (page) => {
    if (page === 3) at.repos.forget(large)
  }
  const wanted = [1, 2].map(() => at.repos.tree(at.actor))
  const trees = [...(await Promise.all(wanted)), await at.repos.tree(at.actor)]
  expect(at.probe.pages).toBe(6)
  expect(new Set(trees).size).toBe(1)
  expect(trees[0]?.size).toBe(count)
})

test('all who want the tree of an actor share one rebuild', async () => {
  await using at = await Seam.open('shared')
  const wanted = [1, 2, 3].map(() => at.repos.tree(at.actor))
  at.probe.afterPage = async () => void wanted.push(at.repos.tree(at.actor))
  await Promise.all(wanted)
  expect(wanted).toHaveLength(6)
  expect(new Set(await Promise.all(wanted)).size).toBe(1)
  expect(at.probe.pages).toBe(3)
})

test('rows that do not make the signed tree are refused, to all and every time', async () => {
  await using at = await Seam.open('corrupt')
  const sql = `delete from stratos_record where uri in
    (select uri from stratos_record order by uri desc limit 1)`
  await at.actor.behind.run([{ sql, args: [], rows: 1 }])
  const failures = await Promise.all([1, 2].map(() => failureOf(at.repos.tree(at.actor))))
  for (const failure of failures) expect(failure).toBeInstanceOf(RepoCorrupt)
  expect(await failureOf(at.repos.tree(at.actor))).toBeInstanceOf(RepoCorrupt)
})

test('between pages other work has its turn', async () => {
  await using at = await Seam.open('turns')
  let turns = 0
  const count = (): void => {
    turns += 1
    next = setImmediate(count)
  }
  let next = setImmediate(count)
  await at.repos.tree(at.actor)
  clearImmediate(next)
  expect(turns).toBeGreaterThanOrEqual(2)
})

test('a tree of one page is made without a rest', async () => {
  await using at = await Seam.open('small', small)
  let rested = false
  setImmediate(() => (rested = true))
  expect((await at.repos.tree(at.actor)).size).toBe(pageSize)
  expect(rested).toBeFalse()
})

/** A repo as a shard holds it open, with nothing built yet and its reads observed. */
class Seam implements AsyncDisposable {
  readonly repos = new Repos(64 * 1024 * 1024)
  readonly actor: OpenActor
  readonly probe: Probe
  /** The one that the last commit of this test signs. */
  tree = Mst.empty
  readonly #end: () => Promise<void>

  private constructor(actor: OpenActor, end: () => Promise<void>) {
    this.probe = new Probe(actor.behind)
    this.actor = { ...actor, store: new ActorStore(this.probe, actor.did) }
    this.#end = end
  }

  static async open(name: string, did = large): Promise<Seam> {
    const boot = seedBoot(copied(name), serviceDid)
    const actors = new Actors({ ...boot, onClosed: () => {} })
    const [opened, ended] = [Promise.withResolvers<OpenActor>(), Promise.withResolvers<void>()]
    const used = actors.use(did, async (actor) => {
      opened.resolve(actor)
      await ended.promise
    })
    return new Seam(await opened.promise, async () => {
      ended.resolve()
      await used
      await actors.close()
    })
  }

  /** Adds a record, as a write does that has the tree. */
  async commit(key: string): Promise<void> {
    const { did, key: signingKey, behind } = this.actor
    const store = new ActorStore(behind, did)
    const found = await store.head()
    if (found === undefined) throw new Error('an open actor has a head')
    const { commit: _, ...before } = found
    const rkey = parseRkey(key)
    const content = encode({ text: key })
    const cid = cidForCbor(content)
    const pages = await Array.fromAsync(store.entries())
    const entries = pages.flat().map((row) => [keyOf(row), cidToBytes(row.cid)] as const)
    this.tree = Mst.fromSorted(entries).set(keyOf({ collection, rkey }), cid)
    const rev = nextTid({ nowMs: Date.now(), clockId: 1, after: before.rev })
    const signed = signCommit({ did, data: this.tree.rootCid(), rev }, signingKey)
    const after = {
      cid: cidToString(signed.cid),
      rev,
      seq: before.seq + 1,
      lastBlock: before.lastBlock + 1,
    }
    const put = { cid: cidToString(cid), content, blockId: after.lastBlock, links: [] }
    const op: RecordOp = {
      action: 'create',
      uri: recordUri(did, collection, rkey),
      collection,
      rkey,
      put,
      before: [],
      after: ['x'],
    }
    const time = new Date().toISOString()
    await store.apply([{ did, before, after, commit: signed.bytes, time, ops: [op], outbox: [] }])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end()
  }
}

/** A database whose pages of entries are counted, with work to be done after each. */
class Probe implements Sql {
  pages = 0
  afterPage: (page: number) => Promise<void> = async () => {}
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  async all<Row>(sql: string, ...args: readonly SqlValue[]): Promise<Row[]> {
    const rows = await this.#sql.all<Row>(sql, ...args)
    if (sql.includes('where uri > $1') && rows.length > 0) {
      this.pages += 1
      await this.afterPage(this.pages)
    }
    return rows
  }

  async run(batch: readonly Statement[]): Promise<void> {
    await this.#sql.run(batch)
  }

  async scrub(): Promise<void> {
    await this.#sql.scrub()
  }

  async close(): Promise<void> {
    await this.#sql.close()
  }
}

function keyOf(row: { readonly collection: string; readonly rkey: string }): string {
  return `${row.collection}/${row.rkey}`
}

function copied(name: string): string {
  const copy = join(folder, name)
  cpSync(seeded, copy, { recursive: true })
  return copy
}
