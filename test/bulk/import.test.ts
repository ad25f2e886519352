import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parseNsid, parseRkey, parseTid } from '../../src/atproto/syntax.ts'
import { nextSeq } from '../../src/service/write.ts'
import { type ActorFile, readActorFile } from '../crash/actor-file.ts'
import { readExport } from '../kit/export.ts'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, collection, post, postUri, replyTo } from '../service/posts.ts'
import { type Actor, House, kinds } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { importInto } from './arriving.ts'
import { contentsOf } from './contents.ts'
import { dumpOf } from './dump.ts'
import { foreignPosts, keyOf, pathOf } from './foreign-posts.ts'
import { ForeignRepo } from './foreign-repo.ts'

const folder = temporaryFolder()

describe.each(kinds)('%s', (kind) => {
  let house: House
  beforeAll(async () => {
    house = await House.open(kind, join(folder, kind))
  })
  afterAll(async () => {
    await house.bulk.close()
    await house.pool.close()
  })

  test('a CAR that is cut changes nothing', async () => {
    const actor = await house.actor()
    const before = { database: dumpOf(await actor.stored()), export: await actor.verified() }
    const car = new ForeignRepo(actor.did, foreignPosts(3)).car().slice(0, -1)
    expect(await failureOf(importInto(house, actor, { car }))).toMatchObject({
      status: 400,
      error: 'InvalidCar',
    })
    const after = { database: dumpOf(await actor.stored()), export: await actor.verified() }
    expect(after).toEqual(before)
  })

  test('a repo of nothing changes nothing, and can be followed by one of something', async () => {
    const actor = await house.actor()
    const before = dumpOf(await actor.stored())
    for (const boundaryMap of [[], [['did:web:old.test/a', a] as const]]) {
      const car = new ForeignRepo(actor.did).car()
      const imported = await importInto(house, actor, { car, boundaryMap })
      expect(imported).toEqual({ records: 0, rewritten: 0 })
      expect(dumpOf(await actor.stored())).toBe(before)
    }
    const car = new ForeignRepo(actor.did, foreignPosts(1)).car()
    expect((await importInto(house, actor, { car })).records).toBe(1)
  })

  describe('a repo that was filled', () => {
    let actor: Actor
    let repo: ForeignRepo
    let before: ActorFile
    let file: ActorFile

    beforeAll(async () => {
      actor = await house.actor()
      // What was there once does not count, but for its numbers.
      await actor.create('earlier')
      await actor.remove('earlier')
      before = readActorFile(await actor.stored(), actor.did)
      repo = new ForeignRepo(actor.did, foreignPosts(448))
      repo.put(pathOf('with'), post({ boundary: boundary(a, b), salt: { $bytes: 'AAAA' } }))
      const parent = `at://${actor.did}/${pathOf('with')}`
      repo.put(pathOf('reply'), post({ reply: replyTo(postUri('theirs'), parent) }))
      const imported = await importInto(house, actor, { car: repo.car() })
      expect(imported).toEqual({ records: 450, rewritten: 0 })
      file = readActorFile(await actor.stored(), actor.did)
    })

    test('has just the bytes that came, and verifies by the key of here', async () => {
      const { rev, cids } = await actor.verified()
      expect(rev).toBe(file.head.rev)
      expect(cids).toEqual(repo.cids)
      const contents = contentsOf(actor.database)
      expect(contents.get('with')?.record).toHaveProperty('salt')
      expect(contents.get(keyOf(7))?.record).toEqual(post({ text: 'post 7' }))
      const { withContent } = await readExport(await actor.export(), actor.signingKey)
      expect(withContent).toHaveLength(450)
      expect(file).toMatchObject({ integrity: 'ok', blocks: 450 })
    })

    test('has told of each record once, in order, two hundred at most together', () => {
      const told = file.events.slice(before.events.length)
      expect(file.events.slice(0, before.events.length)).toEqual([...before.events])
      expect(told.map(({ ops }) => ops.length)).toEqual([200, 200, 50])
      let last = before.head.seq
      for (const { seq, rev } of told) {
        expect(seq).toBe(nextSeq(parseTid(rev), last))
        last = seq
      }
      const revs = file.events.map(({ rev }) => rev)
      expect(new Set(revs).size).toBe(revs.length)
      expect(revs).toEqual(revs.toSorted())
      expect(file.head).toMatchObject({ rev: revs.at(-1) ?? '', seq: last })
      const ops = told.flatMap((event) => event.ops)
      const paths = file.records.map(({ rkey }) => pathOf(rkey))
      expect(ops.map(({ path }) => path)).toEqual(paths)
      for (const { action, path, cid, prev, after } of ops) {
        const rkey = path.slice(path.indexOf('/') + 1)
        const names = rkey === 'with' ? [a, b] : [a]
        expect([action, cid, prev, after]).toEqual([
          'create',
          repo.cids.get(rkey) ?? '',
          null,
          names,
        ])
      }
      const of = new Map(told.flatMap((event) => event.ops.map(({ path }) => [path, event.rev])))
      for (const { rkey, rev } of file.records) expect(of.get(pathOf(rkey))).toBe(rev)
    })

    test('has its boundaries and its links, and nothing for the PDS', () => {
      const plain = file.records.map(({ rkey }) => `${rkey} ${a}`)
      expect(file.boundaries).toEqual([...plain, `with ${b}`].toSorted())
      using database = new Database(actor.database, { readonly: true })
      const sql = 'select uri, path, "linkTo" from stratos_backlink order by uri, path'
      const links = database.query(sql).values()
      const uri = `at://${actor.did}/${pathOf('reply')}`
      expect(links).toEqual([
        [uri, 'reply.parent', `at://${actor.did}/${pathOf('with')}`],
        [uri, 'reply.root', postUri('theirs')],
      ])
      expect(file.outbox).toEqual([])
    })

    test('is exported since any rev that it ever had', async () => {
      const revs = [...before.events, ...file.events].map(({ rev }) => rev)
      const counts = []
      for (const rev of [...new Set(revs)].toSorted()) {
        const car = await actor.export({ since: parseTid(rev) })
        counts.push(recordsIn(car, contentsOf(actor.database)))
      }
      expect(counts).toEqual([450, 450, 450, 250, 50, 0])
    })

    test('goes on: with writes, deletes, and no second import', async () => {
      const again = await failureOf(importInto(house, actor, { car: repo.car() }))
      expect(again).toMatchObject({ status: 409, error: 'RepoAlreadyExists' })
      const { commit } = await actor.create('one-more')
      expect((commit?.rev ?? '') > file.head.rev).toBeTrue()
      await actor.remove(keyOf(0))
      const record = post({ text: 'other', boundary: boundary(b) })
      await actor.write({ action: 'put', collection, rkey: parseRkey('with'), record })
      const { cids } = await actor.verified()
      expect(cids.size).toBe(450)
      const { events } = readActorFile(await actor.stored(), actor.did)
      expect(events.filter(({ seq }) => seq > file.head.seq)).toHaveLength(3)
    })
  })

  test('of records whose collections get stubs each is announced', async () => {
    const actor = await house.actor()
    const repo = new ForeignRepo(actor.did, foreignPosts(3))
    repo.put(pathOf('timeless'), post({ createdAt: '1985-04-12T23:20:50.123Z' }))
    await importInto(house, actor, { car: repo.car(), stubs: [collection] })
    const { outbox } = readActorFile(await actor.stored(), actor.did)
    expect(outbox.map(({ rkey }) => rkey)).toEqual([...repo.cids.keys()].toSorted())
    for (const { rkey, record, pending, position } of outbox) {
      expect({ pending, position }).toEqual({ pending: 1, position: expect.any(Number) })
      expect(JSON.parse(record ?? '')).toEqual({
        $type: collection,
        source: {
          vary: 'authenticated',
          subject: { uri: `at://${actor.did}/${pathOf(rkey)}`, cid: repo.cids.get(rkey) },
          service: 'did:web:stratos.test#atproto_pns',
        },
        createdAt: rkey === 'timeless' ? '1985-04-12T23:20:50.123Z' : post()['createdAt'],
      })
    }
    const none = await house.actor()
    const car = new ForeignRepo(none.did, foreignPosts(3)).car()
    await importInto(house, none, { car, stubs: [parseNsid('com.example.thing')] })
    expect(readActorFile(await none.stored(), none.did).outbox).toEqual([])
  })
})

/** How many of these contents are in a CAR. */
function recordsIn(car: Uint8Array, contents: ReturnType<typeof contentsOf>): number {
  const bytes = Buffer.from(car)
  return [...contents.values()].filter(({ content }) => bytes.includes(content)).length
}
