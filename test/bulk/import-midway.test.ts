import { afterEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { Database } from 'bun:sqlite'
import { parseNsid, parseRkey, parseTid } from '../../src/atproto/syntax.ts'
import { readActorFile } from '../crash/actor-file.ts'
import { Gate } from '../kit/gate.ts'
import { failureOf } from '../kit/wait.ts'
import { post, postUri, replyTo } from '../service/posts.ts'
import { type Actor, House, kinds } from '../shard/pools.ts'
import { page } from '../shard/followed.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { importInto } from './arriving.ts'
import { dumpOf } from './dump.ts'
import { foreignPosts, keyOf, pathOf } from './foreign-posts.ts'
import { ForeignRepo } from './foreign-repo.ts'

const folder = temporaryFolder()
const busy = { status: 503, error: 'Overloaded' }
const fault = { status: 500, error: 'InternalServerError', message: 'Internal Server Error' }

describe.each(kinds)('%s: while an import stands before its end', (kind) => {
  let houses = 0
  let house: House
  afterEach(async () => {
    await house.bulk.close()
    await house.pool.close()
    expect(house.died).toEqual([])
  })

  /** An import that has written all its records and now asks about the last of them. */
  async function held(count = 10) {
    house = await House.open(kind, join(folder, `${kind}-${houses++}`))
    const actor = await house.actor()
    const before = dumpOf(await actor.stored())
    const gate = new Gate()
    const end = importInto(house, actor, {
      car: repoFor(actor, count).car(),
      targets: async () => {
        await gate.pass()
        return {}
      },
    })
    // Whoever waits for it is told later.
    end.catch(() => undefined)
    await gate.reached
    return { actor, before, gate, end }
  }

  test('writes wait, and are decided on what it left', async () => {
    const { actor, gate, end } = await held()
    const log: string[] = []
    const note = async <T>(name: string, promise: Promise<T>) => {
      const result = await promise
      log.push(name)
      return result
    }
    const taken = note('taken', failureOf(actor.create(keyOf(3))))
    const created = note('created', actor.create('new'))
    const removed = note('removed', actor.remove(keyOf(4)))
    const imported = note('imported', end)
    await house.pool.call(actor.did, 'test', { kind: 'outbox', limit: 1 })
    expect(log).toEqual([])
    gate.open()
    expect(await imported).toEqual({ records: 10, rewritten: 0 })
    expect(await taken).toMatchObject({ status: 409, error: 'RecordAlreadyExists' })
    const [{ commit: first }, { commit: last }] = [await created, await removed]
    expect((first?.rev ?? '') < (last?.rev ?? '')).toBeTrue()
    const { rev, rkeys } = await actor.verified()
    expect(rev).toBe(last?.rev ?? '')
    const rest = Array.from({ length: 10 }, (_, index) => keyOf(index))
    expect(rkeys).toEqual([...rest.filter((rkey) => rkey !== keyOf(4)), 'new'].toSorted())
  })

  test('writes past their bound are refused', async () => {
    const { actor, gate, end } = await held()
    const writes = Array.from({ length: 70 }, (_, index) => failureOf(actor.create(`w-${index}`)))
    expect(await writes[69]).toMatchObject(busy)
    gate.open()
    await end
    const failures = (await Promise.all(writes)).filter((failure) => failure !== undefined)
    expect(failures).toHaveLength(6)
    expect((await actor.verified()).rkeys).toHaveLength(74)
  })

  test('readers find the repo as it was before, and others write, read and export', async () => {
    const { actor, gate, end } = await held()
    expect(await actor.rkeys()).toEqual([])
    expect(await actor.read(keyOf(1))).toBeUndefined()
    expect((await actor.verified()).rkeys).toEqual([])
    const other = await house.actor()
    await other.create('one')
    expect((await other.verified()).rkeys).toEqual(['one'])
    const second = await importInto(house, await house.actor(), { car: new Uint8Array(0) }).catch(
      (error: unknown) => error,
    )
    expect(second).toMatchObject({ status: 400, error: 'InvalidCar' })
    gate.open()
    await end
    expect((await actor.verified()).rkeys).toHaveLength(10)
    expect(await actor.read(keyOf(1))).toMatchObject({ value: { text: 'post 1' } })
  })

  test('what the PDS did and has to do is noted afterwards', async () => {
    house = await House.open(kind, join(folder, `${kind}-${houses++}`))
    const actor = await house.actor()
    const call = (ask: Parameters<House['pool']['call']>[2]) =>
      house.pool.call(actor.did, 'test', ask)
    const collection = parseNsid('zone.stratos.actor.enrollment')
    const entry = (rkey: string) => ({ collection, rkey: parseRkey(rkey), record: '{}' })
    await call({ kind: 'queue', outbox: ['one', 'two'].map(entry) })
    const { rows } = await house.pool.call(actor.did, 'test', { kind: 'outbox', limit: 9 })
    const gate = new Gate()
    const end = importInto(house, actor, {
      car: repoFor(actor, 3).car(),
      targets: async () => {
        await gate.pass()
        return {}
      },
    })
    await gate.reached
    const [row] = rows
    const budget = { points: 7, atMs: 1_000 }
    const outcome = { kind: 'settled', pdsCid: 'cid' } as const
    const told = [
      call({ kind: 'queue', outbox: [entry('three')] }),
      ...(row === undefined ? [] : [call({ kind: 'report', row, outcome, budget })]),
    ]
    expect(await house.pool.call(actor.did, 'test', { kind: 'outbox', limit: 9 })).toEqual({ rows })
    gate.open()
    await Promise.all([end, ...told])
    const after = await house.pool.call(actor.did, 'test', { kind: 'outbox', limit: 9 })
    expect<string[]>(after.rows.map(({ rkey }) => rkey)).toEqual(['two', 'three'])
    expect(after.budget).toEqual(budget)
  })

  const ends = {
    'its owner leaves': [(did: Actor['did']) => house.bulk.stop(did), { status: 404 }],
    'its owner is another one now': [(did: Actor['did']) => house.bulk.interrupt(did), busy],
    'the service stops': [() => void house.bulk.close(), busy],
  } as const
  test.each(Object.entries(ends))(
    'it ends when %s, and nothing is changed',
    async (_, [act, how]) => {
      const { actor, before, gate, end } = await held(300)
      act(actor.did)
      gate.open()
      expect(await failureOf(end)).toMatchObject(how)
      expect(dumpOf(await actor.stored())).toBe(before)
      await actor.create('next')
      expect(await actor.rkeys()).toEqual(['next'])
    },
  )

  test('a departure finds the numbers of before, and nothing stays', async () => {
    const { actor, gate, end } = await held()
    const { seq, rev } = readActorFile(actor.database, actor.did).head
    const numbers = { seq, rev: parseTid(rev) }
    house.bulk.stop(actor.did)
    const leaving = house.pool.call(actor.did, 'test', { kind: 'leave' })
    gate.open()
    expect(await failureOf(end)).toMatchObject({ status: 404, error: 'RepoNotFound' })
    expect((await leaving).numbers).toEqual(numbers)
    await house.pool.call(actor.did, 'test', { kind: 'erase' })
    const late = await failureOf(importInto(house, actor, { car: repoFor(actor, 3).car() }))
    expect(late).toMatchObject({ status: 404, error: 'RepoNotFound' })
  })

  test('it cannot say more after that it failed for what it asked', async () => {
    house = await House.open(kind, join(folder, `${kind}-${houses++}`))
    const actor = await house.actor()
    const before = dumpOf(await actor.stored())
    const targets = async () => {
      throw new Error('on purpose')
    }
    const car = repoFor(actor, 3).car()
    expect(await failureOf(importInto(house, actor, { car, targets }))).toMatchObject({
      message: 'on purpose',
    })
    expect(dumpOf(await actor.stored())).toBe(before)
    expect(await importInto(house, actor, { car })).toEqual({ records: 3, rewritten: 0 })
  })
})

describe.each(kinds)('%s: an import', (kind) => {
  const open = async (name: string) => {
    const house = await House.open(kind, join(folder, `${kind}-${name}`))
    const actor = await house.actor()
    return { house, actor }
  }
  const close = async (house: House) => {
    await house.bulk.close()
    await house.pool.close()
  }

  test.each([
    ['its record', `before insert on stratos_record when new.rkey = '${keyOf(250)}'`],
    ['its event', 'before insert on stratos_seq when (select count(*) from stratos_seq) = 2'],
    ['its head', 'before update on stratos_repo_root'],
  ])('that cannot write %s changes nothing, and can be tried again', async (what, when) => {
    const { house, actor } = await open(what.replace(' ', '-'))
    const change = (sql: string) => {
      using database = new Database(actor.database)
      database.run(sql)
    }
    change(`create trigger refuse ${when} begin select raise(abort, 'refused'); end`)
    const before = dumpOf(await actor.stored())
    const car = repoFor(actor, 450).car()
    expect(await failureOf(importInto(house, actor, { car }))).toMatchObject(fault)
    expect(dumpOf(await actor.stored())).toBe(before)
    const log = house.log.join('\n')
    if (kind === 'inline') expect(log).toContain('refused')
    expect(log).not.toContain('post 1')
    change('drop trigger refuse')
    expect(await importInto(house, actor, { car })).toEqual({ records: 450, rewritten: 0 })
    expect((await actor.verified()).rkeys).toHaveLength(450)
    await close(house)
  })

  test('of which the head is not what it was lent as changes nothing', async () => {
    const { house, actor } = await open('stale')
    const before = dumpOf(await actor.stored())
    const lend = async () => {
      const { head, vouched } = await house.pool.call(actor.did, 'test', { kind: 'lend' })
      return { vouched, head: { ...head, rev: parseTid('3kabcdefghi22') } }
    }
    const car = repoFor(actor, 3).car()
    expect(await failureOf(importInto(house, actor, { car, lend }))).toMatchObject(fault)
    expect(dumpOf(await actor.stored())).toBe(before)
    await close(house)
  })

  test('is logged after what readers were told to go on from, whatever the time is', async () => {
    const { house, actor } = await open('vouched')
    const seq = (Date.now() + 3_600_000) * 1000
    await house.pool.call(actor.did, 'test', { kind: 'vouch', seq })
    const car = repoFor(actor, 450).car()
    expect(await importInto(house, actor, { car })).toMatchObject({ records: 450 })
    expect((await page(house, actor, { after: seq })).seqs).toEqual([seq + 1, seq + 2, seq + 3])
    await close(house)
  })

  test('into a repo with records is refused, also where the last write just came', async () => {
    const { house, actor } = await open('present')
    const car = repoFor(actor, 3).car()
    const [, failure] = await Promise.all([
      actor.create('one'),
      failureOf(importInto(house, actor, { car })),
    ])
    expect(failure).toMatchObject({ status: 409, error: 'RepoAlreadyExists' })
    expect((await actor.verified()).rkeys).toEqual(['one'])
    await actor.remove('one')
    expect((await importInto(house, actor, { car })).records).toBe(3)
    const again = await failureOf(importInto(house, actor, { car }))
    expect(again).toMatchObject({ status: 409, error: 'RepoAlreadyExists' })
    await close(house)
  })

  test('that is called off before it was lent the repo gives that back', async () => {
    const { house, actor } = await open('early')
    const gate = new Gate()
    let back = 0
    const end = failureOf(
      importInto(house, actor, {
        car: repoFor(actor, 3).car(),
        lend: async () => {
          await gate.pass()
          return await house.pool.call(actor.did, 'test', { kind: 'lend' })
        },
        giveBack: async () => {
          back += 1
          await house.pool.call(actor.did, 'test', { kind: 'return' })
        },
      }),
    )
    await gate.reached
    house.bulk.interrupt(actor.did)
    gate.open()
    expect(await end).toMatchObject(busy)
    expect(back).toBe(1)
    await actor.create('one')
    expect((await actor.verified()).rkeys).toEqual(['one'])
    await close(house)
  })

  test('of many at once each ends by itself', async () => {
    const { house } = await open('many')
    const actors = await Promise.all([1, 2, 3].map(() => house.actor()))
    const ends = actors.map((actor, index) =>
      importInto(house, actor, { car: repoFor(actor, 100 * (index + 1)).car() }),
    )
    const counts = (await Promise.all(ends)).map(({ records }) => records)
    expect(counts).toEqual([100, 200, 300])
    for (const [index, actor] of actors.entries()) {
      expect((await actor.verified()).rkeys).toHaveLength(100 * (index + 1))
    }
    await close(house)
  })

  test('is the only one of its repo', async () => {
    const { house, actor } = await open('twice')
    const car = repoFor(actor, 3).car()
    const first = importInto(house, actor, { car })
    const second = failureOf(importInto(house, actor, { car }))
    expect(await second).toMatchObject({ message: expect.stringContaining('one import at a time') })
    expect((await first).records).toBe(3)
    await close(house)
  })
})

/** Posts of which the last answers somebody else. */
function repoFor(actor: Actor, count: number): ForeignRepo {
  const repo = new ForeignRepo(actor.did, foreignPosts(count - 1))
  repo.put(pathOf(keyOf(count - 1)), post({ reply: replyTo(postUri('theirs')) }))
  return repo
}
