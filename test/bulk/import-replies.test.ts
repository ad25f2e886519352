import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { failureOf } from '../kit/wait.ts'
import { a, b, boundary, post, postUri, reference, replyTo } from '../service/posts.ts'
import { type Actor, House } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Arriving, importInto } from './arriving.ts'
import { dumpOf } from './dump.ts'
import { keyOf, pathOf } from './foreign-posts.ts'
import { ForeignRepo } from './foreign-repo.ts'

const folder = temporaryFolder()
const escalation = { status: 400, error: 'ReplyBoundaryEscalation' }
/** Of somebody else. */
const theirs = postUri('theirs')

let house: House
let actor: Actor
let repo: ForeignRepo
let before: string

beforeAll(async () => {
  house = await House.open('inline', join(folder, 'data'))
})
afterAll(async () => {
  await house.bulk.close()
  await house.pool.close()
})

/** A repo of an actor without records. */
async function newRepo(): Promise<void> {
  actor = await house.actor()
  repo = new ForeignRepo(actor.did)
  before = dumpOf(await actor.stored())
}

function put(rkey: string, names: readonly string[], parent?: string): string {
  const reply = parent === undefined ? {} : { reply: replyTo(theirs, parent) }
  repo.put(pathOf(rkey), post({ boundary: boundary(...names), ...reply }))
  return `at://${actor.did}/${pathOf(rkey)}`
}

function imported(over: Partial<Arriving> = {}) {
  return importInto(house, actor, { car: repo.car(), ...over })
}

/** Those that the person may see. */
function seen(boundaries: Readonly<Record<string, readonly string[]>>, asked: string[][] = []) {
  return {
    targets: async (uris: readonly string[]) => {
      asked.push([...uris])
      return boundaries
    },
  }
}

describe('a reply that reaches more people than its parent is refused', () => {
  beforeAll(newRepo)
  afterEach(async () => {
    expect(dumpOf(await actor.stored())).toBe(before)
    repo = new ForeignRepo(actor.did)
  })

  test.each([
    ['before', 'm', 'a'],
    ['after', 'm', 'z'],
  ])('whose parent comes %s it in the same import', async (_, rkey, parentKey) => {
    put(rkey, [a, b], put(parentKey, [a]))
    expect(await failureOf(imported())).toMatchObject({
      ...escalation,
      message: expect.stringMatching(new RegExp(`^${pathOf(rkey)}: `)),
    })
  })

  test('at the end of a long thread', async () => {
    let parent = put(keyOf(0), [a, b])
    for (let index = 1; index < 600; index++) parent = put(keyOf(index), [a], parent)
    put(keyOf(600), [b], parent)
    const failure = await failureOf(imported())
    expect(failure).toMatchObject(escalation)
    expect(String(failure)).toContain(`${pathOf(keyOf(600))}: `)
  })

  test('by what its boundaries and those of its parent are mapped to', async () => {
    const [one, two] = ['did:web:old.test/one', 'did:web:old.test/two']
    put('m', [one], put('a', [two]))
    const split = [[one, a] as const, [two, b] as const]
    expect(await failureOf(imported({ boundaryMap: split }))).toMatchObject(escalation)
  })

  test.each([1, 99, 100, 101, 250])('whose parent is of somebody else, of %d', async (count) => {
    for (let index = 0; index < count - 1; index++) put(keyOf(index), [a], theirs)
    put('last', [a, b], theirs)
    const asked: string[][] = []
    expect(await failureOf(imported(seen({ [theirs]: [a] }, asked)))).toMatchObject({
      ...escalation,
      message: expect.stringMatching(new RegExp(`^${pathOf('last')}: `)),
    })
    expect(asked).toEqual(Array.from({ length: Math.ceil(count / 100) }, () => [theirs]))
  })
})

describe('a reply is taken as it is', () => {
  test('whose parent is nobody who is here, or whom the person may not see', async () => {
    await newRepo()
    const asked: string[][] = []
    put('a', [a, b], postUri('unseen'))
    put('b', [a, b], 'at://did:web:public.test/app.bsky.feed.post/one')
    put('c', [a, b], `at://${actor.did}/${pathOf('gone')}`)
    put('d', [a, b], `at://${actor.did}/app.bsky.feed.post/one`)
    put('e', [a, b], `at://${actor.did}`)
    put('f', [a, b], 'at://alice.test/zone.stratos.feed.post/one')
    const { records } = await imported(seen({ [theirs]: [a] }, asked))
    expect(records).toBe(6)
    expect(asked.flat().toSorted()).toEqual(
      [
        `at://${actor.did}`,
        'at://alice.test/zone.stratos.feed.post/one',
        postUri('unseen'),
        'at://did:web:public.test/app.bsky.feed.post/one',
      ].toSorted(),
    )
    expect((await actor.verified()).rkeys).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
  })

  test('that reaches no more people than its parent', async () => {
    await newRepo()
    put('c', [a], put('b', [a, b], put('z', [a, b])))
    put('d', [b], theirs)
    const { records } = await imported(seen({ [theirs]: [a, b] }))
    expect(records).toBe(4)
  })

  test('however little the root or what it quotes reaches', async () => {
    await newRepo()
    const root = put('root', [a])
    const parent = put('parent', [a, b])
    const reply = { root: reference(root), parent: reference(parent) }
    const embed = { $type: 'app.bsky.embed.record', record: reference(root) }
    repo.put(pathOf('reply'), post({ boundary: boundary(a, b), reply, embed }))
    expect((await imported()).records).toBe(3)
  })
})
