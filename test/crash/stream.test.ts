import { expect, test } from 'bun:test'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { openActorDatabase } from '../../src/store/actor-database.ts'
import { ActorEvents } from '../../src/store/actor-events.ts'
import { asSync, refOf, Streaming } from '../api/stream-readers.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { seedBoot } from '../kit/seed.ts'
import { recordSubject, setTakedown } from '../kit/takedown.ts'
import { listOf, textOf } from '../kit/xrpc.ts'
import { type Dice, timesOf, withDice } from './dice.ts'
import { RepoTakedowns } from './repo-takedowns.ts'
import { StreamReader } from './stream-reader.ts'

const rounds = timesOf('STRATOS_TEST_STREAMS', 8)
const names = ['p0', 'p1', 'p2']
const writesOfRound = 60
/** How long it writes at most before it is ended. */
const writingMs = 1_500

/**
 * Writes of all kinds, records that move between boundaries, takedowns of records and of whole repos,
 * readers that come and go or are sent away, and a service that is killed under all of them.
 */
test(
  'every reader gets all that is for them, once and in order, over kills and disconnects',
  async () => {
    await withDice(async (dice) => {
      const people = Object.fromEntries(names.map((name) => [name, ['a', 'b']]))
      await using streaming = await Streaming.start(people)
      const takedowns = new RepoTakedowns(streaming.stratos)
      const readers = readersOf(streaming, takedowns)
      for (const reader of readers) await reader.connect()
      const model = { streaming, takedowns, readers, dice }
      for (let round = 0; round < rounds; round++) {
        const isLast = round === rounds - 1
        await oneRound(model, { round, isLast })
        for (const reader of readers) reader.disconnect()
        if (!isLast) await streaming.run()
        await takedowns.liftAll()
        for (const reader of readers) await reader.connect()
      }
      await expectAgreement(model)
      for (const reader of readers) reader.disconnect()
    })
  },
  Math.max(60_000, rounds * 10_000),
)

interface Model {
  readonly streaming: Streaming
  readonly takedowns: RepoTakedowns
  readonly readers: readonly StreamReader[]
  readonly dice: Dice
}

/** Ends with the end of the service; the last one when all is written. */
async function oneRound(
  model: Model,
  { round, isLast }: { readonly round: number; readonly isLast: boolean },
): Promise<void> {
  const { streaming, takedowns, readers, dice } = model
  const over = Promise.withResolvers<void>()
  const ending = { isOver: false, over: over.promise }
  const end = () => {
    ending.isOver = true
    over.resolve()
  }
  const writing = names.map((name) => untilOver(write(model, { name, round }), ending))
  const reading = readers.map((reader) => untilOver(comeAndGo(reader, dice, ending), ending))
  const all = Promise.all([...writing, ...reading])
  if (isLast) {
    await Promise.race([Promise.all(writing), all])
    end()
  } else {
    await Promise.race([Bun.sleep(dice.below(writingMs)), all])
    takedowns.isOver = true
    end()
    await (dice.oneIn(3) ? streaming.stratos.terminate() : streaming.stratos.kill())
  }
  await all
  takedowns.isOver = false
}

test('what was pruned is said to be missing, once, and the rest comes', async () => {
  await using streaming = await Streaming.start({ p0: ['a'] })
  const did = streaming.stratos.person('p0').did
  for (const rkey of ['one', 'two', 'three', 'four']) await streaming.write('p0', rkey)
  using before = await streaming.own('p0', { cursor: 0 })
  const all = await before.commitsOf(5)
  await streaming.stratos.terminate()
  const { dataFolder } = streaming.stratos
  expect(actorFolder(dataFolder, did)).toContain(did)
  const behind = await openActorDatabase(did, seedBoot(dataFolder, streaming.stratos.did))
  // All but the newest are older than that.
  expect(await new ActorEvents(behind, did).prune('9999-01-01T00:00:00.000Z', 3)).toBe(3)
  await behind.close()
  await streaming.run()
  for (const cursor of [all[0]?.seq ?? 0, all[1]?.seq ?? 0]) {
    using reader = await streaming.own('p0', { cursor })
    expect((await reader.commitsOf(2)).map(({ seq }) => seq)).toEqual(
      all.slice(3).map(({ seq }) => seq),
    )
    expect(reader.told[0]).toMatchObject({ type: '#info', body: { name: 'OutdatedCursor' } })
    expect(reader.bodies('#info')).toHaveLength(1)
    using service = await streaming.following({ [did]: cursor })
    await service.commitsOf(2)
    expect(service.bodies('#info')).toEqual([{ name: 'OutdatedCursor', did }])
  }
  using kept = await streaming.own('p0', { cursor: all[2]?.seq ?? 0 })
  await kept.commitsOf(2)
  expect(kept.bodies('#info')).toEqual([])
})

function readersOf(streaming: Streaming, takedowns: RepoTakedowns): StreamReader[] {
  const { stratos, ofA, ofAll } = streaming
  const ofRepos = names.flatMap((name) => {
    const did = streaming.did(name)
    const at = (cursors: Readonly<Record<string, number>>) => ({ did, cursor: cursors[did] ?? 0 })
    const domain = stratos.boundary('b')
    return [
      new StreamReader(`owner ${name}`, (cursors) =>
        takedowns.opened(name, () => streaming.own(name, at(cursors))),
      ),
      new StreamReader(`operator ${name}`, (cursors) =>
        streaming.open(at(cursors), stratos.adminBasic),
      ),
      new StreamReader(`view of a ${name}`, async (cursors) =>
        takedowns.opened(name, async () => streaming.open(at(cursors), await streaming.token(ofA))),
      ),
      new StreamReader(`domain b ${name}`, (cursors) =>
        takedowns.opened(name, () => streaming.open({ ...at(cursors), domain }, asSync)),
      ),
    ]
  })
  return [
    ...ofRepos,
    new StreamReader('service', async (cursors) =>
      streaming.following(cursors, await streaming.token(ofAll)),
    ),
    new StreamReader('service of a', async (cursors) =>
      streaming.following(cursors, await streaming.token(ofA)),
    ),
  ]
}

interface Ending {
  readonly isOver: boolean
  readonly over: Promise<void>
}

/** What the end of a service breaks off is no failure. */
async function untilOver(task: Promise<void>, ending: Ending) {
  try {
    await task
  } catch (error) {
    if (!ending.isOver || (error instanceof Error && error.message.includes('was told')))
      throw error
  }
}

async function comeAndGo(reader: StreamReader, dice: Dice, ending: Ending): Promise<void> {
  for (let times = dice.below(4); times > 0; times--) {
    await Bun.sleep(dice.below(100))
    reader.disconnect()
    await reader.connect()
  }
  // And then only when they are sent away.
  for (;;) {
    await Promise.race([reader.ended(), ending.over])
    if (ending.isOver) return
    reader.disconnect()
    await reader.connect()
  }
}

async function write(
  { streaming, takedowns, readers, dice }: Model,
  { name, round }: { readonly name: string; readonly round: number },
): Promise<void> {
  const sentAway = readers.filter(
    (reader) => reader.name.endsWith(name) && !reader.name.startsWith('operator'),
  )
  for (let count = 0; count < writesOfRound; count++) {
    const rkey = `k${dice.below(12)}`
    const text = `${round} ${count}`
    const bare = dice.one([['a'], ['b'], ['a', 'b']])
    if (dice.oneIn(5)) await streaming.remove(name, rkey)
    else if (dice.oneIn(4)) await several(streaming, { name, dice, round }, count)
    else if (dice.oneIn(30)) await takedowns.aWhile(name, sentAway)
    else {
      const ref = refOf(await streaming.write(name, rkey, { text, in: bare }))
      if (!dice.oneIn(8)) continue
      for (const applied of [true, false]) {
        await setTakedown(streaming.stratos, recordSubject(ref), { applied })
      }
    }
  }
}

interface Writer {
  readonly name: string
  readonly dice: Dice
  readonly round: number
}

/** One commit that makes a record, changes it and makes and deletes another. */
async function several(streaming: Streaming, { name, dice, round }: Writer, count: number) {
  const at = (kind: string, rkey: string, bare?: readonly string[]) => ({
    $type: `com.atproto.repo.applyWrites#${kind}`,
    collection: postCollection,
    rkey,
    ...(bare === undefined
      ? {}
      : {
          value: privatePost(
            kind,
            bare.map((one) => streaming.stratos.boundary(one)),
          ),
        }),
  })
  const [one, two] = [`s${round}-${count}`, `t${round}-${count}`]
  await streaming.apply(name, [
    at('create', one, dice.one([['a'], ['b']])),
    at('update', one, dice.one([['a'], ['b']])),
    at('create', two, ['a', 'b']),
    at('delete', two),
  ])
}

/** Against readers who come only now, and against what is listed. */
async function expectAgreement({ streaming, takedowns, readers }: Model) {
  for (const name of names) await streaming.write(name, 'the-end', { in: ['a', 'b'] })
  const fresh = readersOf(streaming, takedowns)
  for (const [index, reader] of fresh.entries()) {
    const known = readers[index]
    await reader.connect()
    for (const name of names) {
      const did = streaming.did(name)
      const reads = reader.name.endsWith(name) || reader.name.startsWith('service')
      if (!reads) continue
      await reader.until(did, 'the-end')
      await known?.until(did, 'the-end')
      expect(known?.events.get(did)).toEqual(reader.events.get(did) ?? [])
    }
    reader.disconnect()
  }
  for (const name of names) await expectListed(streaming, name, fresh)
}

/** The state that a stream adds up to is the one that is listed. */
async function expectListed(
  streaming: Streaming,
  name: string,
  readers: readonly StreamReader[],
): Promise<void> {
  const did = streaming.did(name)
  const nsid = 'zone.stratos.sync.listRepoOps'
  const credentials: Readonly<Record<string, string>> = {
    [`owner ${name}`]: streaming.stratos.person(name).bearer,
    [`view of a ${name}`]: await streaming.token(streaming.ofA, nsid),
    service: await streaming.token(streaming.ofAll, nsid),
  }
  for (const reader of readers) {
    const authorization = credentials[reader.name]
    if (authorization === undefined) continue
    const { body } = await streaming.listOps({ did, limit: 1000 }, authorization)
    const listed = listOf(body, 'ops').map((op) => {
      return `${textOf(op, 'collection')}/${textOf(op, 'rkey')} ${textOf(op, 'cid')}`
    })
    expect(stateOf(reader.events.get(did) ?? [])).toEqual(listed)
  }
}

function stateOf(events: readonly string[]): string[] {
  const state = new Map<string, string>()
  for (const event of events) {
    const { ops }: { readonly ops: readonly string[] } = JSON.parse(event)
    for (const op of ops) {
      const [action, path = '', cid = ''] = op.split(' ')
      const isThere = state.has(path)
      expect([action, isThere]).toEqual([action, action !== 'create'])
      if (action === 'delete') state.delete(path)
      else state.set(path, cid)
    }
  }
  return [...state].map(([path, cid]) => `${path} ${cid}`).toSorted()
}
