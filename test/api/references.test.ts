import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { removeActorFolder } from '../../src/store/actor-folder.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Answer, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createRecord = 'zone.stratos.repo.createRecord'
const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const escalation: Refusal = [400, 'ReplyBoundaryEscalation']
const badReply: Refusal = [400, 'CrossNamespaceReply']
const badQuote: Refusal = [400, 'CrossNamespaceEmbed']

interface StrongRef {
  readonly uri: string
  readonly cid: string
}

let stratos: SeededStratos
/** Posts by alice, by the boundaries they are in; bob is in a alone, carol in a and b. */
let inA: StrongRef
let inB: StrongRef
let inBoth: StrongRef
/** By carol, in a: a post that answers one in a, and one that does not. */
let answerInA: StrongRef

beforeAll(async () => {
  const people = { alice: ['a', 'b', 'c'], bob: ['a'], carol: ['a', 'b'], dave: ['a'] }
  stratos = await SeededStratos.start({ people })
  // As while dave leaves: the repo is closed first.
  removeActorFolder(stratos.dataFolder, stratos.person('dave').did)
  inA = await posted('alice', ['a'])
  inB = await posted('alice', ['b'])
  inBoth = await posted('alice', ['a', 'b'])
  answerInA = await posted('carol', ['a'], { reply: { root: inA, parent: inA } })
})
afterAll(async () => {
  await stratos?.stop()
})

/** What nobody may answer or quote, each for another reason that nobody is told. */
async function unreachable(): Promise<Record<string, StrongRef>> {
  const { did } = stratos.person('alice')
  const gone = await posted('alice', ['a'])
  const { status } = await stratos.callAs('alice', 'zone.stratos.repo.deleteRecord', {
    input: addressOf(gone.uri),
  })
  expect(status).toBe(200)
  const uris = {
    missing: `at://${did}/${postCollection}/missing`,
    'of a person who is not enrolled': `at://${stratos.person('stranger').did}/${postCollection}/x`,
    'of a repo that is gone': `at://${stratos.person('dave').did}/${postCollection}/x`,
    'of a person whom nobody knows': `at://did:plc:${'b'.repeat(24)}/${postCollection}/x`,
    'of another host': `at://did:web:other.example.com/${postCollection}/x`,
    public: `at://${did}/app.bsky.feed.post/x`,
    'an enrollment': `at://${did}/zone.stratos.actor.enrollment/localhost`,
    'under a handle': inA.uri.replace(did, stratos.person('alice').handle),
    'a repo': `at://${did}`,
    'a collection': `at://${did}/${postCollection}`,
    'with a fragment': `${inA.uri}#/text`,
    'in another collection of the same key': inA.uri.replace('feed.post', 'feed.like'),
  }
  const made = Object.entries(uris).map(([name, uri]) => [name, { uri, cid: anyCid }] as const)
  return { hidden: inB, deleted: gone, ...Object.fromEntries(made) }
}

describe('a reply is refused in one and the same way', () => {
  test('to whatever its author cannot read, at either end', async () => {
    const answers = new Set<string>()
    for (const ref of Object.values(await unreachable())) {
      for (const reply of [
        { root: ref, parent: ref },
        { root: inA, parent: ref },
        { root: ref, parent: inA },
      ]) {
        const ask = () => post('bob', ['a'], { reply })
        answers.add(bytesOf(await expectNoChange(stratos, badReply, ask)))
      }
    }
    expect(answers.size).toBe(1)
  })

  test('to what its author could read before', async () => {
    const reply = { root: inA, parent: answerInA }
    expect(await post('bob', ['a'], { reply })).toMatchObject({ status: 200 })
    const before = await post('bob', ['a'], { reply: { root: inB, parent: inB } })
    await stratos.setBoundaries('carol', ['b'])
    const ask = () => post('carol', ['b'], { reply: { root: inA, parent: inA } })
    expect(bytesOf(await expectNoChange(stratos, badReply, ask))).toBe(bytesOf(before))
    await stratos.setBoundaries('carol', ['a', 'b'])
  })

  test('whatever validation was asked for', async () => {
    const reply = { root: inB, parent: inB }
    await expectNoChange(stratos, badReply, () => post('bob', ['a'], { reply }, false))
  })
})

describe('a reply does not reach further than what it answers', () => {
  test.each<[string, () => StrongRef, readonly string[]]>([
    ['another boundary', () => inA, ['b']],
    ['one boundary more', () => inA, ['a', 'b']],
    ['one boundary more than both', () => inBoth, ['a', 'b', 'c']],
    ['another one than both', () => inBoth, ['c']],
  ])('into %s', async (_, parent, boundaries) => {
    const reply = { root: parent(), parent: parent() }
    const ask = () => post('alice', boundaries, { reply })
    const { body } = await expectNoChange(stratos, escalation, ask)
    for (const bare of ['a', 'b', 'c']) {
      expect(body['message']).not.toContain(stratos.boundary(bare))
    }
    await expectNoChange(stratos, escalation, () => post('alice', boundaries, { reply }, false))
  })

  test('where the root reaches further than the parent', async () => {
    const reply = { root: inBoth, parent: inA }
    await expectNoChange(stratos, escalation, () => post('alice', ['a', 'b'], { reply }))
  })
})

test('a reply is kept in the boundaries of its parent or fewer', async () => {
  const cases: [string, StrongRef, StrongRef, string[]][] = [
    ['alice', inA, inA, ['a']],
    ['alice', inBoth, inBoth, ['a', 'b']],
    ['alice', inBoth, inBoth, ['b']],
    ['alice', inA, inBoth, ['a', 'b']],
    ['bob', inA, inA, ['a']],
    ['bob', inBoth, inBoth, ['a']],
    ['bob', inA, answerInA, ['a']],
  ]
  for (const [name, root, parent, boundaries] of cases) {
    const answer = await post(name, boundaries, { reply: { root, parent } })
    expect(answer).toMatchObject({ status: 200 })
  }
})

const external = {
  $type: 'app.bsky.embed.external',
  external: { uri: 'https://example.com', title: 'a page', description: '' },
}
const quote = (record: StrongRef) => ({ $type: 'app.bsky.embed.record', record })
/** A quote beside something else, as clients write it: the inner object with its type or without. */
const quotes: Record<string, (record: StrongRef) => object> = {
  alone: quote,
  'beside a link': (record) => ({
    $type: 'app.bsky.embed.recordWithMedia',
    record: quote(record),
    media: external,
  }),
  'beside a link, without an inner type': (record) => ({
    $type: 'app.bsky.embed.recordWithMedia',
    record: { record },
    media: external,
  }),
}

describe('a quote', () => {
  test.each(Object.entries(quotes))(
    '%s is refused in one and the same way of whatever its author cannot read',
    async (_, embedOf) => {
      const answers = new Set<string>()
      for (const ref of Object.values(await unreachable())) {
        const ask = () => post('bob', ['a'], { embed: embedOf(ref) })
        answers.add(bytesOf(await expectNoChange(stratos, badQuote, ask)))
      }
      expect(answers.size).toBe(1)
    },
  )

  test.each(Object.entries(quotes))(
    '%s is kept of what its author can read',
    async (_, embedOf) => {
      for (const ref of [inA, inBoth, answerInA]) {
        expect(await post('bob', ['a'], { embed: embedOf(ref) })).toMatchObject({ status: 200 })
      }
      // A quote shows nothing of what it names: it may reach further.
      const answer = await post('alice', ['b'], { embed: embedOf(inA) })
      expect(answer).toMatchObject({ status: 200 })
    },
  )

  test('is refused beside a reply that is good', async () => {
    const made = { reply: { root: inA, parent: inA }, embed: quote(inB) }
    await expectNoChange(stratos, badQuote, () => post('bob', ['a'], made))
  })
})

describe('a reference is refused that is', () => {
  const bad: Record<string, object> = {
    'a reply without a parent': { reply: { root: { uri: 'at://x.test', cid: anyCid } } },
    'a reply of null': { reply: null },
    'a reply without a CID': {
      reply: { root: { uri: 'at://x.test' }, parent: { uri: 'at://x.test' } },
    },
    'a reply to no URI': {
      reply: { root: { uri: 'x', cid: anyCid }, parent: { uri: 'x', cid: anyCid } },
    },
    'a quote of a text': { embed: { $type: 'app.bsky.embed.record', record: 'at://x.test' } },
    'a quote without a record': { embed: { $type: 'app.bsky.embed.record' } },
    'a quote of a list': { embed: { $type: 'app.bsky.embed.record', record: [] } },
    'a quote in another spelling': { embed: { $type: 'lex:app.bsky.embed.record', record: {} } },
    'a quote beside no media': { embed: { $type: 'app.bsky.embed.recordWithMedia', record: {} } },
  }
  test.each(Object.entries(bad))('%s', async (_, made) => {
    await expectNoChange(stratos, [400, 'InvalidRecord'], () => post('alice', ['a'], made))
  })
})

function post(
  name: string,
  bare: readonly string[],
  change: object = {},
  validate?: boolean,
): Promise<Answer> {
  const { did: repo } = stratos.person(name)
  const boundaries = bare.map((one) => stratos.boundary(one))
  const record = { ...privatePost('a post', boundaries), ...change }
  const input = {
    repo,
    collection: postCollection,
    record,
    ...(validate === undefined ? {} : { validate }),
  }
  return stratos.callAs(name, createRecord, { input })
}

async function posted(
  name: string,
  bare: readonly string[],
  change: object = {},
): Promise<StrongRef> {
  const { body } = await post(name, bare, change)
  return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
}

/** All of an answer but what differs from one to the next. */
function bytesOf({ status, body, headers }: Answer): string {
  const kept = [...headers].filter(([name]) => name !== 'x-request-id' && name !== 'date')
  return JSON.stringify([status, body, kept])
}
