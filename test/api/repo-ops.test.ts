import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { expectRefusal } from '../kit/refusal.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import { type Answer, fieldsOf, listOf, textOf } from '../kit/xrpc.ts'
import { asSync, opsAfter, Streaming, syncSecret } from './stream-readers.ts'

setDefaultTimeout(60_000)

type Params = Parameters<Streaming['listOps']>[0]

let streaming: Streaming

beforeAll(async () => {
  const names = ['alice', 'bob', 'taken']
  streaming = await Streaming.start(Object.fromEntries(names.map((name) => [name, ['a', 'b']])))
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
})

describe('a list of operations is refused', () => {
  test('to what opens the stream alone', async () => {
    const did = streaming.did('alice')
    expectRefusal(await streaming.listOps({ did }, asSync), [401, 'InvalidToken'])
    const nsid = 'zone.stratos.sync.listRepoOps'
    const params = { did, syncToken: syncSecret }
    expectRefusal(await streaming.stratos.call(nsid, { params }), [401, 'AuthMissing'])
  })

  test('to others than the owner, AppViews and the operator, and of repos that are not here', async () => {
    const { stratos } = streaming
    const params = { did: streaming.did('alice') }
    const byBob = await streaming.listOps(params, stratos.person('bob').bearer)
    expectRefusal(byBob, [403, 'Forbidden'])
    const nowhere = { did: streaming.did('stranger') }
    expectRefusal(await streaming.listOps(nowhere, stratos.adminBasic), [404, 'RepoNotFound'])
    const did = streaming.did('taken')
    await setTakedown(stratos, repoSubject(did), { applied: true })
    const own = await streaming.listOps({ did }, stratos.person('taken').bearer)
    expectRefusal(own, [403, 'RepoTakendown'])
    expectRefusal(await asView({ did }), [404, 'RepoNotFound'])
    expect((await streaming.listOps({ did }, stratos.adminBasic)).status).toBe(200)
  })

  test.each([
    ['since that is no rev', { since: 'x' }],
    ['a limit of 0', { limit: 0 }],
    ['a limit beyond 1000', { limit: 1001 }],
    ['a cursor that is none', { cursor: 'x' }],
    ['a cursor with nothing in it', { cursor: cursorOf({}) }],
    [
      'a cursor into another repo',
      { cursor: cursorOf({ kind: 'present', after: 'at://x/', start: { seq: 1 } }) },
    ],
    [
      'a cursor with a text for a number',
      { cursor: cursorOf({ kind: 'after', seq: '1', count: 1 }) },
    ],
    ['a cursor of less than 0', { cursor: cursorOf({ kind: 'after', seq: -1, count: 1 }) }],
  ])('with %s', async (_, over) => {
    const params = { did: streaming.did('alice'), ...over }
    const answer = await streaming.listOps(params, streaming.stratos.adminBasic)
    expectRefusal(answer, [400, 'InvalidRequest'])
  })
})

test('what is there, what happened since, and a stream from there are one story', async () => {
  const did = streaming.did('alice')
  const own = streaming.stratos.person('alice').bearer
  for (const rkey of ['one', 'two', 'three']) await streaming.write('alice', rkey)
  const present = await pages({ did, limit: 2 }, own)
  expect(present.map(named)).toEqual(['create one', 'create three', 'create two'])
  const { body: end } = await streaming.listOps({ did }, own)
  await streaming.write('alice', 'one', { text: 'second' })
  await streaming.remove('alice', 'two')
  const since = textOf(fieldsOf(end, 'commit'), 'rev')
  const later = await pages({ did, since, limit: 1 }, own)
  expect(later.map(named)).toEqual(['update one', 'delete two'])
  using stream = await streaming.own('alice', { cursor: Number(end['seq']) })
  expect(await opsAfter(stream, 2)).toEqual(['update one +', 'delete two'])
})

describe('an AppView of one boundary', () => {
  test('is told nothing of the rest: no number, no time, no commit, in no cursor', async () => {
    const did = streaming.did('bob')
    for (const rkey of ['s1', 's2', 's3']) await streaming.write('bob', rkey)
    using whole = await streaming.own('bob', { cursor: 0 })
    await streaming.write('bob', 'hidden', { in: ['b'] })
    const commits = await whole.commitsOf(5)
    const secret = commits.at(-1)
    const before = Date.now()
    const first = await asPart({ did, limit: 2 })
    expect('commit' in first.body).toBe(false)
    const text = Buffer.from(textOf(first.body, 'cursor'), 'base64url').toString()
    for (const one of [secret?.seq, secret?.rev]) expect(text).not.toContain(String(one))
    expect(text).not.toContain('"commit"')
    const seq = Number(first.body['seq'])
    expect(Math.abs(seq / 1000 - (before - 60_000))).toBeLessThan(10_000)
    const last = await asPart({ did, cursor: textOf(first.body, 'cursor') })
    // From the first page on: what changed meanwhile would be missed otherwise.
    expect(last.body['seq']).toBe(seq)
    const since = { did, since: commits[1]?.rev ?? '' }
    const part = await asPart({ ...since, limit: 1 })
    const at = Buffer.from(textOf(part.body, 'cursor'), 'base64url').toString()
    expect(JSON.parse(at)).toEqual({ kind: 'after', seq: commits[2]?.seq, count: 1 })
    const rest = await asPart({ ...since, cursor: textOf(part.body, 'cursor') })
    expect(listOf(rest.body, 'ops').map(named)).toEqual(['create s3'])
    expect(Number(rest.body['seq'])).toBeLessThan((Date.now() - 59_000) * 1000)
    const answers = [first, last, part, rest].map(({ body }) => JSON.stringify(body)).join()
    expect(answers).not.toContain('hidden')
    expect(answers).not.toContain(secret?.rev ?? '')
  })

  test('goes on by a stream from what it was told', async () => {
    const did = streaming.did('bob')
    const { body } = await asPart({ did })
    await streaming.write('bob', 'later')
    const authorization = await streaming.token(streaming.ofA)
    using stream = await streaming.open({ did, cursor: Number(body['seq']) }, authorization)
    await stream.until(
      'later',
      () =>
        stream.commits.some(({ ops }) => ops.some(({ path }) => path.endsWith('/later'))) ||
        undefined,
    )
    using all = await streaming.following(
      { [did]: Number(body['seq']) },
      await streaming.token(streaming.ofA),
    )
    await all.until(
      'later',
      () =>
        all.commits.some(({ ops }) => ops.some(({ path }) => path.endsWith('/later'))) || undefined,
    )
    expect(all.bodies('error')).toEqual([])
  })
})

async function asView(params: Params): Promise<Answer> {
  const nsid = 'zone.stratos.sync.listRepoOps'
  return await streaming.listOps(params, await streaming.token(streaming.ofAll, nsid))
}

async function asPart(params: Params): Promise<Answer> {
  const nsid = 'zone.stratos.sync.listRepoOps'
  const answer = await streaming.listOps(params, await streaming.token(streaming.ofA, nsid))
  expect(answer.status).toBe(200)
  return answer
}

/** The operations of all pages. */
async function pages(params: Params, authorization: string) {
  const found = []
  let cursor: Params = {}
  for (;;) {
    const { body } = await streaming.listOps({ ...params, ...cursor }, authorization)
    found.push(...listOf(body, 'ops'))
    if (body['cursor'] === undefined) return found
    cursor = { cursor: textOf(body, 'cursor') }
  }
}

function named({ rkey, cid, prev }: Readonly<Record<string, unknown>>): string {
  const action = cid === null ? 'delete' : prev === null ? 'create' : 'update'
  return `${action} ${String(rkey)}`
}

function cursorOf(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
