import { afterEach, describe, expect, test } from 'bun:test'
import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { decode, encode } from '../../src/atproto/cbor.ts'
import { parseNsid, parseRkey } from '../../src/atproto/syntax.ts'
import { checkBlobs, distinctCids, namedBlobs } from '../../src/service/blob.ts'
import type { WriteOp, WriteRules } from '../../src/service/write-op.ts'
import type { BlobFacts } from '../../src/store/actor-blobs.ts'
import { makeBlobKey } from '../../src/store/blob-storage.ts'
import { failureOf } from '../kit/wait.ts'
import { type Actor, House } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { a, boundary, collection, post, rules } from './posts.ts'

const folder = temporaryFolder()
const houses: House[] = []
const notFound = { status: 400, error: 'BlobNotFound' }

afterEach(async () => {
  for (const house of houses.splice(0)) await house.pool.close()
})

describe('the blobs of a record', () => {
  test('are found however deep they are, as often as they are named', () => {
    const [one, two] = [facts('one'), facts('two')]
    const record = {
      $type: 'com.example.anything',
      top: named(one),
      list: [[{ deep: [named(two)] }], named(one)],
      map: { $type: 'com.example.more', inner: { blob: named(two) } },
    }
    expect(namedBlobs(record)).toEqual([one, two, one, two])
    expect(distinctCids(namedBlobs(record))).toEqual([one.cid, two.cid])
  })

  test.each([
    ['nothing', null],
    ['a text', 'blob'],
    ['bytes', { $bytes: 'aGVsbG8' }],
    ['a link', { $link: facts('one').cid }],
    ['a type within another', { kind: { type: 'blob' } }],
    ['a list', []],
  ])('are none in %s', (_, value) => {
    expect(namedBlobs({ value })).toEqual([])
  })

  test('are those that were encoded', () => {
    const one = facts('one')
    expect(namedBlobs(decode(encode({ deep: [named(one)] })))).toEqual([one])
  })

  test.each([
    ['that is not here', () => undefined],
    ['of another type', (blob: BlobFacts) => ({ ...blob, mimeType: 'image/jpeg' })],
    ['of another size', (blob: BlobFacts) => ({ ...blob, size: blob.size + 1 })],
  ])('are refused with one %s', async (_, found) => {
    const [good, bad] = [facts('good'), facts('bad')]
    const find = async (cid: Cid) => (cid === good.cid ? good : found(bad))
    expect(await failureOf(checkBlobs([good, good], find))).toBeUndefined()
    expect(await failureOf(checkBlobs([good, bad], find))).toMatchObject(notFound)
  })
})

describe('a write that names a blob', () => {
  test.each<[string, (blob: BlobFacts) => BlobFacts]>([
    ['that was never uploaded', () => facts('never')],
    ['of another type', (blob) => ({ ...blob, mimeType: 'image/jpeg' })],
    ['of another size', (blob) => ({ ...blob, size: blob.size + 1 })],
  ])('%s changes nothing', async (_, over) => {
    const { actor, upload, state } = await world()
    const blob = await upload('one')
    const other = await upload('two')
    await actor.write(put('kept', blob))
    const before = await state()
    const bad = over(blob)
    for (const op of [create('new', bad), put('kept', bad), put('other', bad)]) {
      expect(await failureOf(actor.write(op))).toMatchObject(notFound)
      const batch = actor.apply([create('first', other), op, remove('kept')])
      expect(await failureOf(batch)).toMatchObject(notFound)
    }
    expect(await state()).toEqual(before)
  })

  test('that is taken down changes nothing', async () => {
    const { actor, upload, state } = await world()
    const blob = await upload('one')
    await actor.write(create('before', blob))
    const before = await state()
    const takendownBlobs = [blob.cid]
    for (const op of [create('new', blob), put('before', blob, 'changed')]) {
      expect(await failureOf(actor.write(op, { takendownBlobs }))).toMatchObject(notFound)
    }
    expect(await state()).toEqual(before)
    await actor.write(remove('before'), { takendownBlobs })
    expect((await state()).named).toEqual([])
  })

  test('whose swap is refused changes nothing', async () => {
    const { actor, upload, state } = await world()
    const [one, two] = [await upload('one'), await upload('two')]
    const { cid: swapRecord } = await actor.write(create('here', one))
    const before = await state()
    const refused: WriteOp[] = [
      { ...put('here', two), swapRecord: null },
      { ...put('here', two), swapRecord: facts('x').cid },
      { ...remove('here'), swapRecord: facts('x').cid },
      { ...put('there', two), swapRecord },
    ]
    for (const op of refused) {
      expect(await failureOf(actor.write(op))).toMatchObject({ error: 'InvalidSwap' })
    }
    const swapCommit = facts('x').cid
    const late = actor.write(create('there', two), { swapCommit })
    expect(await failureOf(late)).toMatchObject({ error: 'InvalidSwap' })
    expect(await state()).toEqual(before)
    await actor.write({ ...put('here', two), swapRecord })
    expect((await state()).named).toEqual([two.cid])
  })

  test('of which the last record went is refused until it is uploaded anew', async () => {
    const { actor, upload, moved } = await world()
    const blob = await upload('one')
    await actor.write(create('here', blob))
    await moved()
    await actor.write(remove('here'))
    expect(await failureOf(actor.write(create('again', blob)))).toMatchObject(notFound)
    await upload('one')
    await actor.write(create('again', blob))
  })
})

describe('records', () => {
  test('share blobs, and the last one that goes lets go of them', async () => {
    const { actor, upload, moved, work } = await world()
    const [one, two] = [await upload('one'), await upload('two')]
    await actor.write(create('first', one, 'twice', one))
    await actor.write(create('second', one, 'both', two))
    await moved()
    await actor.write(remove('second'))
    expect(await work()).toEqual({ moves: [], gone: [two.cid] })
    await actor.write(remove('first'))
    expect((await work()).gone).toEqual([one.cid, two.cid].toSorted())
  })

  test('swap theirs', async () => {
    const { actor, upload, state, work } = await world()
    const [one, two] = [await upload('one'), await upload('two')]
    await actor.write(create('a', one))
    await actor.write(create('b', two))
    await actor.apply([put('a', two), put('b', one)])
    expect((await state()).named).toEqual([one.cid, two.cid].toSorted())
    await actor.write(put('a', one))
    expect((await state()).named).toEqual([one.cid])
    expect((await work()).moves.map(({ cid }) => cid)).toEqual([one.cid])
  })

  test('that are written over and over in one commit leave what the last one names', async () => {
    const { actor, upload, state } = await world()
    const [one, two] = [await upload('one'), await upload('two')]
    await actor.apply([
      create('a', one),
      put('a', two, 'changed'),
      remove('a'),
      create('a', one),
      put('a', one, 'changed again', two),
      create('b', two),
      remove('b'),
    ])
    expect((await state()).named).toEqual([one.cid, two.cid].toSorted())
  })

  test('take over a blob from one that goes in the same commit', async () => {
    const { actor, upload, moved, work } = await world()
    const blob = await upload('one')
    await actor.write(create('old', blob))
    await moved()
    await actor.apply([remove('old'), create('new', blob)])
    expect(await work()).toEqual({ moves: [], gone: [] })
  })

  test('that come and go in one tick are decided one after the other', async () => {
    const { actor, upload, state } = await world()
    const blob = await upload('one')
    const writes = Array.from({ length: 20 }, (_, index) => [
      actor.write(create(`r${index}`, blob)),
      actor.write(remove(`r${index}`)),
    ])
    await Promise.all(writes.flat())
    expect((await state()).named).toEqual([])
    await actor.write(create('last', blob))
    expect((await state()).named).toEqual([blob.cid])
  })

  test('without a change make no commit, be their blob here or not', async () => {
    const { actor, upload } = await world()
    const blob = await upload('one')
    const { cid } = await actor.write(create('here', blob))
    const takendownBlobs = [blob.cid]
    const again = await actor.write(put('here', blob), { takendownBlobs })
    expect([again.cid, again.commit]).toEqual([cid, undefined])
  })

  test('of a lexicon that nobody knows name theirs, however deep', async () => {
    const collections = ['com.example.*']
    const { actor, upload, state } = await world({ ...rules, collections })
    const [one, two] = [await upload('one'), await upload('two')]
    const deep = (blob: BlobFacts) => ({
      action: 'create' as const,
      collection: parseNsid('com.example.anything'),
      record: { boundary: boundary(a), list: [[{ deep: { $type: 'x', blob: named(blob) } }]] },
      validate: false,
    })
    await actor.write(deep(one))
    const bad = { ...two, size: two.size + 1 }
    expect(await failureOf(actor.write(deep(bad)))).toMatchObject(notFound)
    expect((await state()).named).toEqual([one.cid])
  })

  test('say whether bytes are touched by them', async () => {
    const { actor, upload } = await world()
    const blob = await upload('one')
    expect((await actor.write(create('plain'))).touchesBlobs).toBeUndefined()
    expect((await actor.write(create('here', blob))).touchesBlobs).toBeTrue()
    expect((await actor.write(put('here', undefined, 'none'))).touchesBlobs).toBeTrue()
    expect((await actor.write(remove('here'))).touchesBlobs).toBeUndefined()
  })
})

function facts(content: string, mimeType = 'image/png'): BlobFacts {
  const bytes = Buffer.from(content)
  return { cid: cidToString(cidForRaw(bytes)), mimeType, size: bytes.length }
}

function named({ cid, mimeType, size }: BlobFacts) {
  return { $type: 'blob', ref: { $link: cid }, mimeType, size }
}

function record(text: string, blobs: readonly (BlobFacts | undefined)[]) {
  const images = blobs.flatMap((blob) =>
    blob === undefined ? [] : [{ image: named(blob), alt: '' }],
  )
  return post({
    text,
    ...(images.length === 0 ? {} : { embed: { $type: 'app.bsky.embed.images', images } }),
  })
}

function create(rkey: string, blob?: BlobFacts, text = 'text', more?: BlobFacts): WriteOp {
  const content = record(text, [blob, more])
  return { action: 'create', collection, rkey: parseRkey(rkey), record: content }
}

function put(rkey: string, blob?: BlobFacts, text = 'text', more?: BlobFacts) {
  const content = record(text, [blob, more])
  return { action: 'put', collection, rkey: parseRkey(rkey), record: content } as const
}

function remove(rkey: string) {
  return { action: 'delete', collection, rkey: parseRkey(rkey) } as const
}

/** Somebody with an empty repo, of whose blobs only the rows matter here. */
async function world(over: WriteRules = rules) {
  const house = await House.open('inline', `${folder}/${crypto.randomUUID()}`, [{ rules: over }])
  houses.push(house)
  const actor: Actor = await house.actor()
  const { did } = actor
  const work = () => house.pool.call(did, 'test', { kind: 'blob-work' })
  return {
    actor,
    work,
    upload: async (content: string) => {
      const uploaded = { ...facts(content), tempKey: makeBlobKey(), uploadedAtMs: 0 }
      const ask = { kind: 'add-blob', uploaded, quotaBytes: 1_000 } as const
      await house.pool.call(did, 'test', ask)
      return facts(content)
    },
    /** All that should be moved is. */
    moved: async () => {
      const { moves } = await work()
      await house.pool.call(did, 'test', { kind: 'blob-worked', moves, gone: [], lost: [] })
    },
    /** What stands in the repo, and which blobs are named by it. */
    state: async () => {
      const view = 'all' as const
      const query = { after: '', limit: 100, view, except: [] }
      const { cids } = await house.pool.call(did, 'test', { kind: 'blobs', ...query })
      const head = await house.pool.call(did, 'test', { kind: 'head' })
      return { head, rkeys: await actor.rkeys(), named: cids }
    },
  }
}
