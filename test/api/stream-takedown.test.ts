import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { postCollection } from '../kit/post.ts'
import type { Subscriber } from '../kit/subscriber.ts'
import { recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { listOf } from '../kit/xrpc.ts'
import { opsAfter, opsOf, refOf, Streaming } from './stream-readers.ts'

setDefaultTimeout(60_000)

let streaming: Streaming

beforeAll(async () => {
  const names = ['alice', 'bob', 'carol', 'dan', 'eve']
  streaming = await Streaming.start(Object.fromEntries(names.map((name) => [name, ['a', 'b']])))
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
})

describe('a record that is taken down', () => {
  test('is told, and its lifting, to those who may see it', async () => {
    const ref = refOf(await streaming.write('alice', 'bad', { in: ['b'] }))
    using own = await streaming.own('alice')
    using view = await streaming.following()
    using part = await streaming.following({}, await streaming.token(streaming.ofA))
    await takeDown(ref, true)
    await takeDown(ref, false)
    for (const reader of [own, view]) {
      await reader.message('#status', ({ takendown }) => takendown === false)
      expect(reader.bodies('#status')).toMatchObject([
        { did: streaming.did('alice'), path: `${postCollection}/bad`, takendown: true },
        { did: streaming.did('alice'), path: `${postCollection}/bad`, takendown: false },
      ])
    }
    await streaming.write('alice', 'end')
    await part.until('end', () => (opsOf(part).includes('create end +') ? true : undefined))
    expect(part.bodies('#status')).toEqual([])
  })

  test('comes without its content from then on, live and from the log, but to the operator', async () => {
    const ref = refOf(await streaming.write('bob', 'bad', { text: 'withheld words' }))
    await takeDown(ref, true)
    await streaming.remove('bob', 'bad')
    const did = streaming.did('bob')
    using own = await streaming.own('bob', { cursor: 0 })
    using view = await streaming.open({ did, cursor: 0 })
    using operator = await streaming.open({ did, cursor: 0 }, streaming.stratos.adminBasic)
    const readers = [own, view, operator]
    for (const reader of readers) await reader.until('bad', () => has(reader, 'delete bad'))
    // It is accepted, and hidden at once.
    await streaming.write('bob', 'bad', { text: 'withheld words' })
    await streaming.write('bob', 'good', { text: 'good words' })
    for (const reader of readers) await reader.until('good', () => has(reader, 'create good +'))
    expect(opsOf(operator)).toEqual(['create bad', 'delete bad', 'create bad +', 'create good +'])
    using later = await streaming.own('bob', { cursor: 0 })
    await later.until('good', () => has(later, 'create good +'))
    for (const reader of [own, view, later]) {
      expect(opsOf(reader)).toEqual(['create bad', 'delete bad', 'create bad', 'create good +'])
      expect(JSON.stringify(reader.told)).not.toContain('withheld words')
    }
    for (const [authorization, count] of [
      [streaming.stratos.person('bob').bearer, 1],
      [streaming.stratos.adminBasic, 2],
    ] as const) {
      for (const since of [{}, { since: view.commits[0]?.rev ?? '' }]) {
        const { body } = await streaming.listOps({ did, ...since }, authorization)
        const values = listOf(body, 'ops').filter(({ value }) => value !== undefined)
        expect(values).toHaveLength(count)
      }
    }
    // Nothing else of the actor is withheld for good.
    await takeDown(ref, false)
    await streaming.write('bob', 'after')
    expect((await opsAfter(own, 5)).at(-1)).toBe('create after +')
    using lifted = await streaming.own('bob', { cursor: 0 })
    await lifted.until('after', () => has(lifted, 'create after +'))
    expect(opsOf(lifted)).toContain('create bad +')
  })
})

test('a repo that is taken down is told on a stream that stays open, and comes without content', async () => {
  const did = streaming.did('carol')
  await streaming.write('carol', 'before', { text: 'withheld words' })
  using reader = await streaming.following()
  await reader.until('before', () => has(reader, 'create before +'))
  await setTakedown(streaming.stratos, repoSubject(did), { applied: true })
  const status = await reader.message('#status', (one) => one['did'] === did)
  expect(status).toMatchObject({ takendown: true })
  expect('path' in status).toBe(false)
  using fresh = await streaming.following()
  await fresh.until('before', () => has(fresh, 'create before'))
  const mine = fresh.told.filter(({ body }) => body['did'] === did)
  expect(mine.map(({ type }) => type).slice(0, 1)).toEqual(['#enrollment'])
  expect(JSON.stringify(mine)).not.toContain('withheld words')
  await streaming.remove('carol', 'before')
  for (const one of [reader, fresh]) await one.until('delete', () => has(one, 'delete before'))
  await setTakedown(streaming.stratos, repoSubject(did), { applied: false })
  await streaming.write('carol', 'after')
  for (const one of [reader, fresh]) {
    await one.message('#status', (said) => said['did'] === did && said['takendown'] === false)
    await one.until('after', () => has(one, 'create after +'))
  }
})

test('a takedown that nobody was told of, as the process ended, is told by the next one', async () => {
  const did = streaming.stratos.person('dan').did
  const { uri, cid } = refOf(await streaming.write('dan', 'bad'))
  const env = { STRATOS_ALLOWED_APPVIEWS: `${streaming.ofAll.did},${streaming.ofA.did}=a` }
  const now = new Date().toISOString()
  await whileStopped(
    streaming.stratos,
    async (sql) => {
      const insert =
        'insert into takedown (subject, did, cid, ref, "appliedAt") values ($1, $2, $3, null, $4)'
      const news = 'insert into takedown_news (subject, did) values ($1, $2)'
      await sql.run([
        { sql: insert, args: [uri, did, cid, now] },
        // News of somebody who has no repo must keep nobody's from being told.
        { sql: news, args: ['did:web:aaa.test', 'did:web:aaa.test'] },
        { sql: news, args: [uri, did] },
      ])
    },
    env,
  )
  using reader = await streaming.own('dan', { cursor: 0 })
  const status = await reader.message('#status')
  expect(status).toMatchObject({ did, path: `${postCollection}/bad`, takendown: true })
  await streaming.stratos.terminate()
  await streaming.run()
  await streaming.write('dan', 'end')
  using again = await streaming.own('dan', { cursor: 0 })
  await again.until('end', () => has(again, 'create end +'))
  expect(again.bodies('#status')).toHaveLength(1)
})

test('a status is followed by commits as before, also after a kill', async () => {
  const ref = refOf(await streaming.write('eve', 'one'))
  await takeDown(ref, true)
  await streaming.write('eve', 'two')
  await streaming.stratos.kill()
  await streaming.run()
  await streaming.write('eve', 'three')
  using reader = await streaming.own('eve', { cursor: 0 })
  await reader.until('three', () => has(reader, 'create three +'))
  expect(reader.told.map(({ type }) => type)).toEqual([
    '#commit',
    '#commit',
    '#status',
    '#commit',
    '#commit',
  ])
})

function takeDown(ref: { readonly uri: string; readonly cid: string }, applied: boolean) {
  return setTakedown(streaming.stratos, recordSubject(ref), { applied })
}

function has(reader: Subscriber, op: string): true | undefined {
  return opsOf(reader).includes(op) ? true : undefined
}
