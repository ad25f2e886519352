import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from 'bun:test'
import { fileURLToPath } from 'node:url'
import { parseDid } from '../../src/atproto/syntax.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { privatePost } from '../kit/post.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { beginSession } from '../kit/stratos-session.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Call, fieldsOf, isFields, listOf } from '../kit/xrpc.ts'
import { SmallIndex } from './small-index.ts'

setDefaultTimeout(60_000)

const getTimeline = 'zone.stratos.feed.getTimeline'
const getRecord = 'zone.stratos.repo.getRecord'
let server: PostgresServer
let index: SmallIndex
let stratos: SeededStratos

beforeAll(async () => {
  server = await PostgresServer.start()
  index = await SmallIndex.open(server)
  stratos = await SeededStratos.start({
    people: { ann: ['a'], ben: ['b'] },
    env: { STRATOS_INDEX_POSTGRES_URL: index.url },
    around: () => [process.execPath, fileURLToPath(import.meta.resolve('./serve-both.ts'))],
  })
  const service = parseDid(stratos.did)
  for (const name of ['ann', 'ben']) {
    const boundaries = name === 'ann' ? ['a'] : ['b']
    await index.enroll(stratos.person(name).did, boundaries, service)
  }
  const author = stratos.person('ann').did
  await index.post({ author, rkey: '1', boundaries: ['a'], at: 1, service })
})
afterAll(async () => {
  await stratos?.stop()
  await index[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await index.heard(parseDid(stratos.did), Date.now())
})

async function called(aud: string, lxm = getTimeline, params: Call['params'] = {}) {
  const token = await serviceToken(stratos.person('ann'), { aud, lxm })
  return await stratos.call(lxm, { params, authorization: `Bearer ${token}` })
}

describe('a service that answers feeds', () => {
  test('takes tokens for itself, bare or with the fragment of feeds, and for nobody else', async () => {
    const { did } = stratos
    for (const aud of [did, `${did}#stratos_appview`]) {
      const { status, body } = await called(aud)
      expect([aud, status, listOf(body, 'feed').length]).toEqual([aud, 200, 1])
    }
    for (const fragment of ['atproto_pns', 'stratos', 'atproto', '']) {
      expectRefusal(await called(`${did}#${fragment}`), [401, 'InvalidToken'])
    }
  })

  test('opens nothing else by a token with the fragment of feeds', async () => {
    const params = { repo: stratos.person('ann').did, collection: 'a.b.c', rkey: '1' }
    const aud = `${stratos.did}#stratos_appview`
    expectRefusal(await called(aud, getRecord, params), [401, 'InvalidToken'])
    const own = await called(`${stratos.did}#atproto_pns`, getRecord, params)
    expect(own.status).not.toBe(401)
  })

  test('shows none by another credential than service auth', async () => {
    expectRefusal(await stratos.call(getTimeline), [401, 'AuthMissing'])
    expectRefusal(await stratos.callAs('ann', getTimeline), [403, 'Forbidden'])
    const admin = await stratos.call(getTimeline, { authorization: stratos.adminBasic })
    expectRefusal(admin, [403, 'Forbidden'])
    const session = await beginSession(stratos, 'ann')
    expectRefusal(await stratos.call(getTimeline, { authorization: session }), [403, 'Forbidden'])
  })

  test('names them in its document, beside what every service has', async () => {
    const response = await fetch(`${stratos.url}/.well-known/did.json`)
    const body: unknown = await response.json()
    const services = listOf(isFields(body) ? body : {}, 'service')
    expect(services.map(({ id, type }) => [id, type])).toEqual([
      ['#atproto_pns', 'AtprotoPrivateNamespace'],
      ['#stratos', 'StratosService'],
      ['#stratos_appview', 'StratosAppView'],
    ])
    expect(services.every(({ serviceEndpoint }) => serviceEndpoint === stratos.url)).toBe(true)
  })

  test('goes on without the index, and says in /health how that is', async () => {
    await indexIn('well')
    await index.sql`insert into stratos_migration (version, name, "appliedAt")
      values (1000, '1000-later.sql', now())`
    await indexIn('newer')
    expectRefusal(await called(stratos.did), [503, 'IndexUnavailable'])
    expect((await fetch(`${stratos.url}/ready`)).status).toBe(200)
    const record = privatePost('hello', [stratos.boundary('a')])
    const input = { repo: stratos.person('ann').did, collection: 'zone.stratos.feed.post', record }
    const written = await stratos.callAs('ann', 'zone.stratos.repo.createRecord', { input })
    expect(written.status).toBe(200)
    expect(await stratos.terminate()).toBe(0)
  })
})

async function indexIn(state: string): Promise<void> {
  await eventually(`index that is ${state}`, async () => {
    const health: unknown = await (await fetch(`${stratos.url}/health`)).json()
    const found = fieldsOf(isFields(health) ? health : {}, 'index')
    return found['state'] === state ? true : undefined
  })
}
