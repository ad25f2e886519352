import { encode } from '@atcute/cbor'
import { jsonToLex, Lexicons } from '@atproto/lexicon'
import { Subscription } from '@atproto/xrpc-server'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { decode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { streamNsid, Subscriber } from '../kit/subscriber.ts'
import { recordSubject, setTakedown } from '../kit/takedown.ts'
import { within } from '../kit/wait.ts'
import { fieldsOf, isFields, textOf } from '../kit/xrpc.ts'
import { asSync, opsAfter, opsOf, refOf, Streaming, syncSecret } from './stream-readers.ts'

setDefaultTimeout(60_000)

const lexicons = new Lexicons(schemaDocs)
let streaming: Streaming

beforeAll(async () => {
  streaming = await Streaming.start({ alice: ['a', 'b'], frank: ['a'], json: ['a'] })
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
})

describe('a commit', () => {
  test('is one frame of two DAG-CBOR items with all of its operations', async () => {
    using live = await streaming.own('alice')
    await streaming.write('alice', 'old')
    await streaming.write('alice', 'gone')
    const value = privatePost('new', [streaming.stratos.boundary('a')])
    const write = (kind: string, rest: object) => ({
      $type: `com.atproto.repo.applyWrites#${kind}`,
      collection: postCollection,
      ...rest,
    })
    const answer = await streaming.apply('alice', [
      write('create', { rkey: 'new', value }),
      write('update', { rkey: 'old', value }),
      write('delete', { rkey: 'gone' }),
    ])
    const [, , commit] = await live.commitsOf(3)
    const path = (rkey: string) => `${postCollection}/${rkey}`
    expect(commit?.rev).toBe(textOf(fieldsOf(answer, 'commit'), 'rev'))
    expect(commit?.did).toBe(streaming.did('alice'))
    expect(Date.parse(commit?.time ?? '')).toBeGreaterThan(Date.now() - 60_000)
    expect(commit?.ops).toMatchObject([
      { action: 'create', path: path('new'), record: { text: 'new' } },
      { action: 'update', path: path('old'), record: { text: 'new' } },
      { action: 'delete', path: path('gone') },
    ])
    expect(Object.keys(commit?.ops[2] ?? {}).toSorted()).toEqual(['action', 'path'])
    const { bytes } = live.told.at(-1) ?? {}
    expectCanonical(bytes ?? new Uint8Array())
    using again = await streaming.own('alice', { cursor: 0 })
    await again.commitsOf(4)
    expect(again.told.at(-1)?.bytes).toEqual(bytes)
  })

  test('has records with the very bytes that their CIDs are of', async () => {
    using live = await streaming.own('alice')
    const { cid } = refOf(await streaming.write('alice', 'bytes', { text: 'grüße 🦜' }))
    const [commit] = await live.commitsOf(1)
    const [op] = commit?.ops ?? []
    expect(op?.cid).toBe(cid)
    expect(String(cidToString(cidForCbor(encode(op?.record))))).toBe(cid)
  })
})

test('every kind of message is what the lexicon says', async () => {
  using all = await streaming.following()
  using one = await streaming.own('alice')
  const ref = refOf(await streaming.write('alice', 'bad'))
  await setTakedown(streaming.stratos, recordSubject(ref), { applied: true })
  await setTakedown(streaming.stratos, recordSubject(ref), { applied: false })
  await one.message('#status', ({ takendown }) => takendown === false)
  await all.message('#status', ({ takendown }) => takendown === false)
  await all.message('#info', ({ name }) => name === 'Heartbeat')
  const types = new Set<string>()
  for (const { type, body, bytes } of [...all.told, ...one.told]) {
    types.add(type)
    expectCanonical(bytes)
    const message = jsonToLex(normal({ ...body, $type: `${streamNsid}${type}` }))
    lexicons.assertValidXrpcMessage(streamNsid, message)
  }
  expect([...types].toSorted()).toEqual(['#commit', '#enrollment', '#info', '#status'])
  expect(one.bodies('#status')).toMatchObject([
    { did: streaming.did('alice'), path: `${postCollection}/bad`, takendown: true },
    { did: streaming.did('alice'), path: `${postCollection}/bad`, takendown: false },
  ])
})

test('an error is a frame of its own before the socket closes', async () => {
  using reader = await streaming.own('alice', { cursor: Date.now() * 2_000 })
  expect(await reader.end()).toEqual([1008, 'FutureCursor'])
  expect(reader.told).toHaveLength(1)
  expect(reader.told[0]).toMatchObject({ type: 'error', body: { error: 'FutureCursor' } })
  expect(Object.keys(reader.told[0]?.body ?? {}).toSorted()).toEqual(['error', 'message'])
  expectCanonical(reader.told[0]?.bytes ?? new Uint8Array())
})

test('a client of somebody else reads the stream, and goes on where it was', async () => {
  for (const rkey of ['one', 'two', 'three']) await streaming.write('frank', rkey)
  const aborting = new AbortController()
  let cursor = 0
  const found: string[] = []
  const subscribe = async (count: number) => {
    const subscription = new Subscription<Record<string, unknown>>({
      service: streaming.stratos.url.replace('http', 'ws'),
      method: streamNsid,
      signal: aborting.signal,
      getParams: () => ({ did: streaming.did('frank'), cursor, syncToken: syncSecret }),
      validate: (value) => {
        lexicons.assertValidXrpcMessage(streamNsid, value)
        return isFields(value) ? value : undefined
      },
    })
    let left = count
    for await (const { $type, seq, ops } of subscription) {
      expect($type).toBe(`${streamNsid}#commit`)
      cursor = Number(seq)
      if (Array.isArray(ops)) found.push(...ops.map(({ path }) => String(path)))
      if (--left === 0) return
    }
  }
  await within(20_000, 'two commits', subscribe(2))
  const rest = subscribe(3)
  await streaming.write('frank', 'four')
  await within(20_000, 'the rest', rest)
  aborting.abort()
  expect(found).toEqual(['one', 'two', 'three', 'four'].map((rkey) => `${postCollection}/${rkey}`))
})

describe('as JSON', () => {
  const protocols = ['xrpc.v1.json']

  test('a stream tells the same', async () => {
    using text = await json({ did: streaming.did('json'), cursor: 0 })
    using binary = await streaming.own('json', { cursor: 0 })
    expect(text.socket.protocol).toBe('xrpc.v1.json')
    expect(binary.socket.protocol).toBe('')
    await streaming.write('json', 'one')
    const ref = refOf(await streaming.write('json', 'two'))
    await streaming.remove('json', 'one')
    await setTakedown(streaming.stratos, recordSubject(ref), { applied: true })
    for (const reader of [text, binary]) await reader.message('#status')
    expect(text.commits).toEqual(binary.commits.map((commit) => normal(commit)))
    expect(text.told.map(({ type }) => type)).toEqual(binary.told.map(({ type }) => type))
    expect(text.told.every(({ bytes }) => bytes.length === 0)).toBe(true)
  })

  test('commits come that are larger and deeper than any one record', async () => {
    using text = await json({ did: streaming.did('json') })
    let deep: unknown = 1
    for (let level = 0; level < 29; level++) deep = { level: deep }
    const value = (rkey: string) => ({
      ...privatePost(rkey, [streaming.stratos.boundary('a')]),
      deep,
      many: Array.from({ length: 15_000 }, () => 1),
      long: 'x'.repeat(90_000),
    })
    const rkeys = ['l0', 'l1', 'l2', 'l3', 'l4']
    const $type = 'com.atproto.repo.applyWrites#create'
    const writes = rkeys.map((rkey) => {
      return { $type, collection: postCollection, rkey, value: value(rkey) }
    })
    await streaming.apply('json', writes)
    await text.commitsOf(1)
    expect(opsOf(text)).toEqual(rkeys.map((rkey) => `create ${rkey} +`))
  })

  test('an error comes, too', async () => {
    using reader = await json({ did: streaming.did('json'), cursor: Date.now() * 2_000 })
    await reader.end()
    expect(reader.told).toMatchObject([{ type: 'error', body: { error: 'FutureCursor' } }])
  })

  test('is spoken where it is among what a client offers, and nothing unknown is', async () => {
    using reader = await json({ did: streaming.did('json') }, ['other.v1', ...protocols])
    expect(reader.socket.protocol).toBe('xrpc.v1.json')
  })

  function json(params: Readonly<Record<string, string | number>>, offered = protocols) {
    const wanted = { params, protocols: offered, authorization: asSync }
    return Subscriber.open(streaming.stratos.url, wanted)
  }
})

test('a reader without a cursor gets what comes, one at the end nothing of before', async () => {
  await streaming.write('frank', 'before')
  using fresh = await streaming.own('frank')
  await streaming.write('frank', 'after')
  expect(await opsAfter(fresh, 1)).toEqual(['create after +'])
  using resumed = await streaming.own('frank', { cursor: fresh.commits[0]?.seq ?? 0 })
  await streaming.write('frank', 'later')
  expect(await opsAfter(resumed, 1)).toEqual(['create later +'])
  expect(await opsAfter(fresh, 2)).toEqual(['create after +', 'create later +'])
})

/** As JSON has it. */
function normal<Value>(value: Value): Value {
  return JSON.parse(JSON.stringify(value))
}

/** Header and body as they would be encoded again. */
function expectCanonical(bytes: Uint8Array): void {
  const header = [
    encode({ op: -1 }),
    ...['#commit', '#status', '#enrollment', '#info'].map((t) => encode({ op: 1, t })),
  ].find((one) => Buffer.from(bytes).subarray(0, one.length).equals(one))
  expect(header).toBeDefined()
  const body = bytes.subarray(header?.length)
  // Ours reads canonical DAG-CBOR alone.
  expect(isFields(decode(body))).toBe(true)
}
