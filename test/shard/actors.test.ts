import { afterEach, describe, expect, jest, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { cidForRaw } from '../../src/atproto/cid.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { type Did, parseRkey } from '../../src/atproto/syntax.ts'
import { Actors } from '../../src/shard/actors.ts'
import { Repos } from '../../src/shard/repos.ts'
import { seedBoot } from '../kit/seed.ts'
import { failureOf } from '../kit/wait.ts'
import { a, collection, post, serviceDid } from '../service/posts.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, kinds, newDid } from './pools.ts'

const folder = temporaryFolder()

describe.each(kinds)('%s', (kind) => {
  test('an unknown actor is refused, whatever is asked, and leaves no trace', async () => {
    const dataDir = join(folder, `${kind}-unknown`)
    const house = await House.open(kind, dataDir)
    const did = newDid()
    const rkey = parseRkey('one')
    const row = { collection, rkey, position: 1 }
    const budget = { points: 0, atMs: 0 }
    const create = { action: 'create', collection, record: post() } as const
    const asks = [
      {
        kind: 'write',
        ops: [create],
        boundaries: [a],
        targets: {},
        stubs: [],
        takendown: [],
        takendownBlobs: [],
      },
      { kind: 'read', collection, rkey, view: 'all' },
      { kind: 'list', collection, limit: 10, order: 'ascending', view: 'all' },
      { kind: 'targets', uris: [], view: 'all' },
      { kind: 'settle' },
      { kind: 'queue', outbox: [] },
      { kind: 'outbox', limit: 1 },
      { kind: 'report', row, outcome: { kind: 'settled', pdsCid: null }, budget },
      { kind: 'restub', wanted: 'off', after: '' },
      { kind: 'leave' },
    ] as const
    for (const ask of asks) {
      const failure = await failureOf(house.pool.call(did, 'test', ask))
      expect(failure).toMatchObject({ status: 404, error: 'RepoNotFound' })
    }
    expect(existsSync(join(dataDir, 'actors'))).toBeFalse()
    await house.pool.close()
  })

  test('a key alone is no repo', async () => {
    const house = await House.open(kind, join(folder, `${kind}-key`))
    const did = newDid()
    const { signingKey } = await house.pool.call(did, 'test', { kind: 'key' })
    const actor = house.known(did, signingKey)
    expect(await failureOf(actor.create('one'))).toMatchObject({ error: 'RepoNotFound' })
    expect(readdirSync(actor.folder)).toEqual(['signing_key'])
    await house.pool.close()
  })

  test('a key is made once, and nobody else may read it', async () => {
    const house = await House.open(kind, join(folder, `${kind}-modes`))
    const actor = await house.actor()
    const again = await house.pool.call(actor.did, 'test', { kind: 'key' })
    expect(again).toEqual({ signingKey: actor.signingKey })
    const path = join(actor.folder, 'signing_key')
    expect(readFileSync(path, 'utf8')).toMatch(/^[0-9a-f]{64}$/)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    for (let at = actor.folder; at !== folder; at = dirname(at)) {
      expect(statSync(at).mode & 0o777).toBe(0o700)
    }
    await house.pool.close()
  })

  test('opening a repo again keeps it, and a half-made one is finished', async () => {
    const house = await House.open(kind, join(folder, `${kind}-again`))
    const actor = await house.actor()
    await actor.create('one')
    const { rev } = await actor.verified()
    const open = { kind: 'open', outbox: [] } as const
    expect<object>(await house.pool.call(actor.did, 'test', open)).toEqual({ rev })
    expect((await actor.verified()).rkeys).toEqual(['one'])

    const half = await house.actor()
    await house.pool.close()
    for (const name of readdirSync(half.folder)) {
      if (name !== 'signing_key') rmSync(join(half.folder, name))
    }
    const next = await House.open(kind, join(folder, `${kind}-again`))
    await next.pool.call(half.did, 'test', open)
    await next.known(half.did, half.signingKey).create('one')
    expect((await next.known(half.did, half.signingKey).verified()).rkeys).toEqual(['one'])
    await next.pool.close()
  })

  test('three handles serve ten actors, and no more are ever open', async () => {
    const dataDir = join(folder, `${kind}-handles`)
    const house = await House.open(kind, dataDir, [{ handlesMax: 3 }])
    const actors: Actor[] = []
    for (let index = 0; index < 10; index++) actors.push(await house.actor())
    for (let round = 0; round < 4; round++) {
      await Promise.all(actors.map((actor) => actor.create(`at-once-${round}`)))
      expect(openDatabases(dataDir)).toBeLessThanOrEqual(3)
    }
    for (const actor of actors) {
      await actor.create('in-turn')
      expect(openDatabases(dataDir)).toBeLessThanOrEqual(3)
    }
    for (const actor of actors) expect((await actor.verified()).rkeys).toHaveLength(5)
    await house.pool.close()
    expect(openDatabases(dataDir)).toBe(0)
  })
})

describe('while every handle is in use', () => {
  afterEach(() => {
    jest.useRealTimers()
  })

  test('a request waits, and gets 503 when none comes free', async () => {
    const { actors, dids } = await madeActors('all-busy', 3)
    const [first, second, third] = dids
    const gate = Promise.withResolvers<void>()
    jest.useFakeTimers()
    const busy = [first, second].map((did) => actors.use(did, () => gate.promise))
    const waiting = failureOf(actors.use(third, async () => 'served'))
    const settled = { yet: false }
    void waiting.then(() => (settled.yet = true))
    jest.advanceTimersByTime(4_999)
    await microtasks()
    expect(settled.yet).toBeFalse()
    jest.advanceTimersByTime(1)
    expect(await waiting).toMatchObject({
      status: 503,
      error: 'Overloaded',
      headers: { 'retry-after': '1' },
    })
    gate.resolve()
    await Promise.all(busy)
    // Whoever gave up holds nothing back.
    expect(await actors.use(third, async () => 'served')).toBe('served')
    await actors.close()
  })

  test('those who wait are served as handles come free', async () => {
    const { actors, dids } = await madeActors('few-busy', 6)
    const [first, second, ...rest] = dids
    const gate = Promise.withResolvers<void>()
    const busy = [first, second].map((did) => actors.use(did, () => gate.promise))
    const served = rest.map((did) => actors.use(did, async (actor) => actor.did))
    const known = await actors.use(first, async () => 'an open actor needs no handle')
    expect(known).toBe('an open actor needs no handle')
    gate.resolve()
    expect(await Promise.all(served)).toEqual(rest)
    await Promise.all(busy)
    expect(openDatabases(join(folder, 'few-busy'))).toBeLessThanOrEqual(2)
    await actors.close()
  })

  test('an actor that cannot be opened gives its handle back', async () => {
    const { actors, dids } = await madeActors('broken', 3)
    for (let index = 0; index < 5; index++) {
      const failure = await failureOf(actors.use(newDid(), async () => 'served'))
      expect(failure).toMatchObject({ error: 'RepoNotFound' })
    }
    for (const did of dids) expect(await actors.use(did, async () => 'served')).toBe('served')
    await actors.close()
  })
})

test('whose database is closed for another is told', async () => {
  const { actors, dids, closed } = await madeActors('told', 3)
  const [first, second, third] = dids
  for (const did of [first, second, first, third]) await actors.use(did, () => microtasks())
  expect(closed).toEqual([second])
  await actors.close()
})

test('a small tree goes with the database, a large one stays', async () => {
  const { actors, dids } = await madeActors('trees', 3)
  const [small, large] = dids
  const repos = new Repos(1024 * 1024)
  for (const [did, count] of [
    [small, 1_000],
    [large, 1_001],
  ] as const) {
    const tree = treeOf(count)
    repos.keep(did, tree)
    const present = () => actors.use(did, (actor) => repos.tree(actor))
    expect(await present()).toBe(tree)
    repos.closed(did)
    expect((await present()) === tree).toBe(did === large)
  }
  await actors.close()
})

function treeOf(count: number): Mst {
  const cid = cidForRaw(new Uint8Array())
  const keys = Array.from({ length: count }, (_, index) => `${collection}/${1_000 + index}`)
  return Mst.fromSorted(keys.map((key) => [key, cid] as const))
}

/** Two handles, and actors with a repo each. */
async function madeActors(name: string, count: number) {
  const dataDir = join(folder, name)
  const house = await House.open('inline', dataDir)
  const made: Actor[] = []
  for (let index = 0; index < count; index++) made.push(await house.actor())
  await house.pool.close()
  const [first = newDid(), second = newDid(), third = newDid(), ...rest] = made.map(
    (one) => one.did,
  )
  const closed: Did[] = []
  const onClosed = (did: Did) => closed.push(did)
  const actors = new Actors({ ...seedBoot(dataDir, serviceDid), handlesMax: 2, onClosed })
  return { actors, dids: [first, second, third, ...rest] as const, closed }
}

/** Databases below a folder that this process has open. */
function openDatabases(below: string): number {
  const paths = readdirSync('/proc/self/fd').flatMap((name) => {
    try {
      return [readlinkSync(join('/proc/self/fd', name))]
    } catch {
      // The descriptor of the listing itself is gone by now.
      return []
    }
  })
  return paths.filter((path) => path.startsWith(below) && path.endsWith('stratos.sqlite')).length
}

async function microtasks(): Promise<void> {
  for (let index = 0; index < 20; index++) await Promise.resolve()
}
