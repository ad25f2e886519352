import { Database } from 'bun:sqlite'
import { afterEach, describe, expect, test } from 'bun:test'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { parseRkey } from '../../src/atproto/syntax.ts'
import type { BlobCall } from '../../src/service/blob-calls.ts'
import type { WriteOp } from '../../src/service/write-op.ts'
import type { UploadedBlob } from '../../src/store/actor-blobs.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { makeBlobKey } from '../../src/store/blob-storage.ts'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, collection, post } from '../service/posts.ts'
import { journalBytes, recovered } from '../store/journaled.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, type Kind, kinds } from './pools.ts'

const folder = temporaryFolder()
const houses: House[] = []
afterEach(async () => {
  for (const { pool } of houses.splice(0)) await pool.close()
})
const nothing = { moves: [], gone: [], lost: [] }

describe.each(kinds)('%s', (kind) => {
  test('rows of blobs outlive a restart', async () => {
    const { house, actor, add, rest } = await opened(kind)
    const [one, two] = [await add('one'), await add('two')]
    await actor.write(naming('r', one))
    await house.pool.close()
    await rest(async (next) => {
      expect(await next.work()).toEqual({
        moves: [{ cid: one.cid, tempKey: one.tempKey }],
        gone: [],
      })
      expect(await next.call({ kind: 'blob-use' })).toEqual({ usedBytes: 6, temporary: 2 })
      const { keys } = await next.call({ kind: 'expire-blobs', beforeMs: 0 })
      expect(keys.toSorted()).toEqual([one.tempKey, two.tempKey].toSorted())
    })
  })
})

describe('a journal', () => {
  test('brings what records name to the database that lacks it', async () => {
    const { house, actor, add, left } = await opened()
    const [one, two] = [await add('one'), await add('two')]
    await actor.write(naming('kept', one))
    await actor.write(naming('changed', one))
    await actor.write(naming('changed', two))
    await actor.write(naming('gone', two))
    await actor.remove('gone')
    expect(journalBytes(house.dataDir).toString()).toContain('"prevBlobs"')
    const copy = left()
    await house.pool.close()
    expect(named(actor, copy)).toContain(`gone ${two.cid}`)
    await recovered(copy)
    expect(named(actor, copy)).toEqual([`changed ${two.cid}`, `kept ${one.cid}`])
  })

  test('of before there were blobs is read as ever', async () => {
    const { house, actor, left } = await opened()
    await actor.create('one')
    await actor.create('two')
    await actor.remove('two')
    expect(journalBytes(house.dataDir).toString()).not.toContain('lobs"')
    const copy = left()
    await house.pool.close()
    await recovered(copy)
    expect(named(actor, copy)).toEqual([])
  })
})

describe('a database of before there were rows of blobs', () => {
  test('gets them for the records that it has, at its first use', async () => {
    const { house, actor, add, rest } = await opened()
    const [one, two] = [await add('one'), await add('two')]
    await actor.write(naming('first', one))
    await actor.write({ ...naming('twice', two), record: pictures(two, two, one) })
    await actor.create('plain')
    await actor.stored()
    const before = named(actor, house.dataDir)
    await house.pool.close()
    using database = new Database(actor.database)
    database.run('delete from stratos_record_blob')
    database.run('delete from stratos_blob')
    database.run(`insert into stratos_due (name) values ('record-blobs')`)
    database.close()
    await rest(async (next) => {
      const missing = await next.missing()
      expect(missing.map(({ cid }) => cid)).toEqual([one.cid, two.cid].toSorted())
    })
    expect(named(actor, house.dataDir)).toEqual(before)
  })
})

describe('what was done of the work', () => {
  test('counts only for the bytes that it was done to', async () => {
    const { actor, add, call, work } = await opened()
    const one = await add('one')
    await actor.write(naming('r', one))
    const { moves } = await work()
    const anew = await add('one')
    await call({ kind: 'blob-worked', ...nothing, moves })
    await call({ kind: 'blob-worked', ...nothing, lost: moves })
    await call({ kind: 'blob-worked', ...nothing, gone: [one.cid] })
    expect((await work()).moves).toEqual([{ cid: one.cid, tempKey: anew.tempKey }])
  })

  test('forgets no row whose blob is named again', async () => {
    const { actor, add, call, work } = await opened()
    const one = await add('one')
    await actor.write(naming('r', one))
    await call({ kind: 'blob-worked', ...nothing, moves: (await work()).moves })
    await call({ kind: 'blob-worked', ...nothing, gone: [one.cid] })
    expect(await work()).toEqual({ moves: [], gone: [] })
    await actor.write(naming('again', one))
  })

  test('is given in pages', async () => {
    const { actor, add, call, work } = await opened()
    for (let index = 0; index < 130; index++) {
      await actor.write(naming(`r${index}`, await add(String(index))))
    }
    const first = await work()
    expect(first.moves).toHaveLength(100)
    await call({ kind: 'blob-worked', ...nothing, moves: first.moves })
    expect((await work()).moves).toHaveLength(30)
  })
})

describe('a quota', () => {
  test('is refused by one byte, and counts no blob twice', async () => {
    const { actor, add, call } = await opened()
    const one = await add('12345', 10)
    await add('67890', 10)
    expect(await failureOf(add('!', 10))).toMatchObject({ status: 400, error: 'QuotaExceeded' })
    await add('12345', 10)
    await actor.write(naming('r', one))
    await add('12345', 10)
    expect(await call({ kind: 'blob-use' })).toEqual({ usedBytes: 10, temporary: 2 })
  })

  test('of none takes nothing but what is there', async () => {
    const { add } = await opened()
    await add('one')
    await add('one', 0)
    expect(await failureOf(add('two', 0))).toMatchObject({ error: 'QuotaExceeded' })
    await add('', 3)
  })
})

test('a view sees what the records name that it sees, page by page', async () => {
  const { actor, add, call } = await opened()
  const [one, two, both] = [await add('one'), await add('two'), await add('both')]
  await actor.write({ ...naming('a', one), record: pictures(one, both) })
  const inB = { boundary: boundary(b) }
  await actor.write({ ...naming('b', two), record: { ...pictures(two, both), ...inB } })
  const list = async (boundaries: readonly string[], after = '', limit = 100) => {
    const query = { after, limit, except: [], view: { boundaries } }
    return (await call({ kind: 'blobs', ...query })).cids
  }
  expect(await list([a])).toEqual([one.cid, both.cid].toSorted())
  expect(await list([b])).toEqual([two.cid, both.cid].toSorted())
  expect(await list([])).toEqual([])
  const all = [one.cid, two.cid, both.cid].toSorted()
  expect(await list([a, b])).toEqual(all)
  const paged: Cid[] = []
  for (
    let page = await list([a, b], '', 1);
    page.length > 0;
    page = await list([a, b], page[0], 1)
  ) {
    paged.push(...page)
  }
  expect(paged).toEqual(all)
})

async function opened(kind: Kind = 'inline') {
  const house = await House.open(kind, join(folder, crypto.randomUUID()))
  houses.push(house)
  const actor = await house.actor()
  return {
    house,
    actor,
    ...asker(house, actor),
    add: async (content: string, quotaBytes = 1_000) => {
      const uploaded = facts(content)
      await house.pool.call(actor.did, 'test', { kind: 'add-blob', uploaded, quotaBytes })
      return uploaded
    },
    /** The data folder as a kill at this moment would leave it. */
    left: () => {
      const copy = `${house.dataDir}-${crypto.randomUUID()}`
      cpSync(house.dataDir, copy, { recursive: true })
      return copy
    },
    /** What the next process finds. */
    rest: async (task: (next: ReturnType<typeof asker>) => Promise<void>) => {
      const next = await House.open(kind, house.dataDir)
      await task(asker(next, actor))
      await next.pool.close()
    },
  }
}

function asker({ pool }: House, { did }: Actor) {
  const call = <Kind extends BlobCall['kind']>(ask: Extract<BlobCall, { kind: Kind }>) =>
    pool.call(did, 'test', ask)
  const work = () => pool.call(did, 'test', { kind: 'blob-work' })
  const query = { after: '', limit: 100, except: [], view: 'all' } as const
  const missing = async () =>
    (await pool.call(did, 'test', { kind: 'missing-blobs', ...query })).missing
  return { call, work, missing }
}

function facts(content: string): UploadedBlob {
  const bytes = Buffer.from(content)
  const cid = cidToString(cidForRaw(bytes))
  const temporary = { tempKey: makeBlobKey(), uploadedAtMs: 1_000 }
  return { cid, mimeType: 'image/png', size: bytes.length, ...temporary }
}

function pictures(...blobs: readonly UploadedBlob[]) {
  const images = blobs.map(({ cid, mimeType, size }) => ({
    image: { $type: 'blob', ref: { $link: cid }, mimeType, size },
    alt: '',
  }))
  return post({ embed: { $type: 'app.bsky.embed.images', images } })
}

function naming(rkey: string, blob: UploadedBlob) {
  const record = pictures(blob)
  return { action: 'put', collection, rkey: parseRkey(rkey), record } satisfies WriteOp
}

/** Which records name which blobs, by the rows of a data folder. */
function named(actor: Actor, dataDir: string): string[] {
  using database = new Database(join(actorFolder(dataDir, actor.did), 'stratos.sqlite'))
  const sql = 'select "recordUri", "blobCid" from stratos_record_blob order by 1, 2'
  return database
    .query<{ recordUri: string; blobCid: string }, []>(sql)
    .all()
    .map(({ recordUri, blobCid }) => `${recordUri.split('/').at(-1)} ${blobCid}`)
}
