import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { BrowserSessions } from '../../src/store/browser-session.ts'
import { DpopApp } from '../kit/dpop.ts'
import { carType } from '../kit/import.ts'
import { expectNoChange, expectRefusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { beginSession } from '../kit/stratos-session.ts'
import { Subscriber, streamNsid } from '../kit/subscriber.ts'
import { failureOf } from '../kit/wait.ts'
import { type Answer, type Call, fieldsOf, isFields, listOf, xrpcResponse } from '../kit/xrpc.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { tokenOf, WholeStratos } from './whole.ts'

setDefaultTimeout(120_000)

const getTimeline = 'zone.stratos.feed.getTimeline'
const getRepo = 'zone.stratos.sync.getRepo'
const listRepoOps = 'zone.stratos.sync.listRepoOps'
let whole: WholeStratos
let stratos: SeededStratos
let ann: string

beforeAll(async () => {
  whole = await WholeStratos.start()
  stratos = whole.stratos
  ann = stratos.person('ann').did
  await whole.write('ann', 'first')
})
afterAll(async () => {
  await whole?.[Symbol.asyncDispose]()
})

/** Of people and of the operator. */
const procedures = schemaDocs.flatMap(({ id, defs }) => {
  const main: unknown = Object.entries(defs).find(([name]) => name === 'main')?.[1]
  return isFields(main) && main['type'] === 'procedure' ? [id] : []
})

const byKey = (key?: ServiceKey) => (lxm: string) => whole.asItself(lxm, key)

async function asked(nsid: string, token: (lxm: string) => string, call: Call = {}) {
  return await stratos.call(nsid, { ...call, authorization: token(nsid) })
}

async function streamed(authorization: string): Promise<Subscriber> {
  return await Subscriber.open(stratos.url, { params: { commits: true }, authorization })
}

describe('in one process, a token of the service itself', () => {
  test('opens nothing when another key has signed it', async () => {
    const other = byKey(ServiceKey.generate())
    for (const nsid of [getRepo, listRepoOps]) {
      expectRefusal(await asked(nsid, other, { params: { did: ann } }), [401, 'InvalidToken'])
    }
    const answer = await xrpcResponse(stratos.url, streamNsid, {
      params: { commits: true },
      authorization: other(streamNsid),
    })
    expect(answer.status).toBe(401)
    await answer.body?.cancel()
    expect(await failureOf(streamed(other(streamNsid)))).toBeInstanceOf(Error)
  })

  test('opens no method by which anything is changed', async () => {
    expect(procedures).toContain('com.atproto.repo.createRecord')
    expect(procedures).toContain('zone.stratos.admin.setBoundaries')
    for (const nsid of procedures) {
      // It reads, by a body.
      if (nsid === 'zone.stratos.repo.hydrateRecords') continue
      const isImport = nsid === 'zone.stratos.repo.importRepo'
      const car = { body: new Uint8Array(1), headers: { 'content-type': carType } }
      const { status } = await asked(nsid, byKey(), isImport ? car : { verb: 'POST' })
      expect([nsid, [401, 403].includes(status) ? 'refused' : status]).toEqual([nsid, 'refused'])
    }
    const input = { did: ann, boundaries: [] }
    const set = 'zone.stratos.admin.setBoundaries'
    await expectNoChange(stratos, [403, 'Forbidden'], () => asked(set, byKey(), { input }))
    expect(await stratos.boundariesOf('ann')).toEqual([stratos.boundary('a')])
  })

  test('opens no feed: the service is nobody’s viewer', async () => {
    expectRefusal(await asked(getTimeline, byKey()), [403, 'Forbidden'])
  })

  test('opens what an AppView reads', async () => {
    const repo = await xrpcResponse(stratos.url, getRepo, {
      params: { did: ann },
      authorization: byKey()(getRepo),
    })
    expect(repo.status).toBe(200)
    expect((await repo.bytes()).length).toBeGreaterThan(100)
    const ops = await asked(listRepoOps, byKey(), { params: { did: ann } })
    expect([ops.status, listOf(ops.body, 'ops').length]).toEqual([200, 1])
    using stream = await streamed(byKey()(streamNsid))
    stream.say({ cursors: {}, more: false })
    await stream.message('#enrollment', ({ did }) => did === ann)
    await stream.until('post', () =>
      stream.commits.find(({ did, ops }) => did === ann && ops.length > 0),
    )
  })
})

describe('in one process, a feed', () => {
  test('is opened by tokens for the service, bare or as its AppView, and by no other', async () => {
    const { did } = stratos
    for (const fragment of ['#atproto_pns', '#stratos', '#']) {
      expectRefusal(await whole.timeline('ben', did + fragment), [401, 'InvalidToken'])
    }
    await whole.shows('ben', ['first'])
    for (const aud of [did, `${did}#stratos_appview`]) {
      expect((await whole.timeline('ben', aud)).status).toBe(200)
    }
  })

  test('is opened by no session, cookie, proof or name', async () => {
    const host = `127.0.0.1:${stratos.port}`
    const browser = await whileStopped(stratos, (sql) =>
      new BrowserSessions(sql).create(stratos.person('ann').did, Date.now()),
    )
    const cookie = { cookie: `stratos-session=${browser}`, origin: `http://${host}`, host }
    expectRefusal(await stratos.call(getTimeline, { headers: cookie }), [401, 'AuthMissing'])
    expectRefusal(await stratos.call(getTimeline), [401, 'AuthMissing'])
    expectRefusal(await stratos.callAs('ann', getTimeline), [403, 'Forbidden'])
    const session = await beginSession(stratos, 'ann')
    expectRefusal(await stratos.call(getTimeline, { authorization: session }), [403, 'Forbidden'])
    const app = await DpopApp.of(stratos, 'ann')
    const proven = await app.call(getTimeline)
    expect([proven.status, proven.body['error']]).toEqual([403, 'Forbidden'])
    const operator = await stratos.call(getTimeline, { authorization: stratos.adminBasic })
    expectRefusal(operator, [403, 'Forbidden'])
  })
})

test('a service alone takes its own token for that of anybody, and names no feeds', async () => {
  expect((await documentOf(stratos)).map(({ id }) => id)).toContain('#stratos_appview')
  await using plain = await SeededStratos.start({ people: { ann: ['a'] } })
  expect((await documentOf(plain)).map(({ id }) => id)).toEqual(['#atproto_pns', '#stratos'])
  const answers: Answer[] = []
  for (const nsid of [getRepo, listRepoOps, streamNsid]) {
    const token = tokenOf(plain, nsid)
    const params: Call['params'] =
      nsid === streamNsid ? { commits: true } : { did: plain.person('ann').did }
    answers.push(await plain.call(nsid, { params, authorization: token }))
  }
  for (const answer of answers) expectRefusal(answer, [403, 'Forbidden'])
  const feed = await plain.call(getTimeline, {
    authorization: tokenOf(plain, getTimeline),
  })
  expectRefusal(feed, [501, 'MethodNotImplemented'])
})

async function documentOf({ url }: SeededStratos) {
  const body: unknown = await (await fetch(`${url}/.well-known/did.json`)).json()
  return listOf(fieldsOf({ body }, 'body'), 'service')
}
