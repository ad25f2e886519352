import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { postCollection, privatePost } from '../kit/post.ts'
import { SlowReader } from '../kit/slow-reader.ts'
import { streamNsid } from '../kit/subscriber.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf } from '../kit/xrpc.ts'
import { Streaming } from './stream-readers.ts'

setDefaultTimeout(120_000)

const commitsMax = 60

let streaming: Streaming

beforeAll(async () => {
  streaming = await Streaming.start({ alice: ['a'], bob: ['a'] })
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
})

test('who stops reading is closed by name, and gets exactly the rest later', async () => {
  using reader = await slow('alice', '')
  let written = 0
  // What kernels hold comes first.
  while ((await tooSlow()) === 0 && written < commitsMax) await large('alice', written++)
  expect(await tooSlow()).toBe(1)
  await large('alice', written++)
  await reader.rest()
  expect(reader.received.at(-1)).toMatchObject({
    type: 'error',
    body: { error: 'ConsumerTooSlow' },
  })
  expect(reader.code).toBe(1008)
  const seqs = reader.received.slice(0, -1).map(({ body }) => Number(body['seq']))
  expect(seqs.length).toBeGreaterThan(1)
  expect(seqs.length).toBeLessThan(written)
  using rest = await streaming.own('alice', { cursor: seqs.at(-1) ?? 0 })
  const later = await rest.commitsOf(written - seqs.length)
  using whole = await streaming.own('alice', { cursor: 0 })
  const all = (await whole.commitsOf(written + 1)).map(({ seq }) => seq)
  expect([...seqs, ...later.map(({ seq }) => seq)]).toEqual(all.slice(1))
})

test('who reads the past slowly is slowed, not closed, and gets all of it', async () => {
  const written = 40
  for (let count = 0; count < written; count++) await large('bob', count)
  using reader = await slow('bob', '&cursor=0')
  {
    using _ = reader.trickle(20)
    await eventually('all of it', () =>
      reader.received.filter(({ type }) => type === '#commit').length === written + 1
        ? true
        : undefined,
    )
  }
  expect(reader.received.every(({ type }) => type === '#commit')).toBe(true)
  expect(await tooSlow()).toBe(1)
})

/** A commit of nearly a mebibyte. */
async function large(name: string, count: number): Promise<void> {
  const boundary = [streaming.stratos.boundary('a')]
  const $type = 'com.atproto.repo.applyWrites#create'
  const writes = [0, 1, 2, 3].map((index) => {
    const value = { ...privatePost('large', boundary), filler: 'x'.repeat(240_000) }
    return { $type, collection: postCollection, rkey: `${name}-${count}-${index}`, value }
  })
  await streaming.apply(name, writes)
}

async function slow(name: string, more: string): Promise<SlowReader> {
  const { did, bearer } = streaming.stratos.person(name)
  const path = `/xrpc/${streamNsid}?did=${did}${more}`
  return await SlowReader.open(streaming.stratos.port, path, bearer)
}

async function tooSlow(): Promise<number> {
  const response = await fetch(`${streaming.stratos.url}/health`)
  const body: unknown = await response.json()
  const ended = fieldsOf(fieldsOf(fieldsOf({ body }, 'body'), 'streams'), 'ended')
  return Number(ended['too-slow'])
}
