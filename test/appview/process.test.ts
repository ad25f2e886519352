import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from 'bun:test'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import packageJson from '../../package.json' with { type: 'json' }
import { ServiceKey } from '../../src/atproto/keys.ts'
import { Child } from '../kit/child.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { projectFolder } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, isFields, listOf, textOf } from '../kit/xrpc.ts'
import { PostgresWire } from './postgres-wire.ts'
import { RunningAppView } from './running.ts'
import { serviceDid, SmallIndex, uriOf } from './small-index.ts'

setDefaultTimeout(60_000)

const password = 's3cr3tp4ssw0rd'
let server: PostgresServer
let index: SmallIndex
let wire: PostgresWire
let appView: RunningAppView

beforeAll(async () => {
  server = await PostgresServer.start()
  index = await SmallIndex.open(server)
  wire = await PostgresWire.open(index.url)
  appView = await RunningAppView.start({ indexUrl: wire.url })
  await appView.ready()
  await index.enroll(appView.person('ann').did, ['a'])
  await index.enroll(appView.person('zoe').did, ['b'])
})
afterAll(async () => {
  await appView[Symbol.asyncDispose]()
  await wire[Symbol.asyncDispose]()
  await index[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await index.heard(serviceDid, Date.now())
})

async function fieldsAt(path: string, { url } = appView) {
  const response = await fetch(`${url}${path}`)
  const body: unknown = await response.json()
  if (!isFields(body)) throw new Error(`${path} gave no object`)
  return { status: response.status, body, headers: response.headers }
}

/** What /ready says of the index, once that is `state`. */
async function indexIn(state: string, at = appView) {
  return await eventually(`index that is ${state}`, async () => {
    const answer = await fieldsAt('/ready', at)
    return fieldsOf(answer.body, 'index')['state'] === state ? answer : undefined
  })
}

describe('a start is refused', () => {
  const settings: [string, Readonly<Record<string, string>>, string][] = [
    ['without an index', {}, 'STRATOS_INDEX_POSTGRES_URL must name the index'],
    [
      'with an address that is none',
      { STRATOS_INDEX_POSTGRES_URL: `mysql://stratos:${password}@127.0.0.1/index` },
      'STRATOS_INDEX_POSTGRES_URL must be postgres://',
    ],
    [
      'where tokens shall count once',
      {
        STRATOS_INDEX_POSTGRES_URL: `postgres://stratos:${password}@127.0.0.1/index`,
        STRATOS_SERVICE_AUTH_SINGLE_USE: 'true',
      },
      'STRATOS_SERVICE_AUTH_SINGLE_USE cannot be kept',
    ],
  ]
  test.each(settings)('%s', async (_, env, problem) => {
    const command = [process.execPath, 'src/main.ts', 'appview']
    const child = new Child({ command, cwd: projectFolder, env })
    expect(await child.exited).toBe(1)
    await eventually('output', () => (child.output === '' ? undefined : child.output))
    expect(child.output).toStartWith(problem)
    expect(child.output).not.toContain(password)
  })
})

describe('while the index is away', () => {
  test('feeds are refused, /ready too, and nobody learns why; afterwards all is well', async () => {
    await wire.cut()
    const { status, body } = await indexIn('away')
    expect(status).toBe(503)
    expect(body['ready']).toBe(false)
    for (let call = 0; call < 20; call++) {
      const answer = await appView.callAs('ann', 'getTimeline')
      expectRefusal(answer, [503, 'IndexUnavailable'])
      expect(answer.headers.get('retry-after')).toBe('5')
      expect(JSON.stringify(answer.body)).not.toMatch(/ECONN|postgres|127|\d{4}/)
    }
    await wire.mend()
    await appView.ready()
    await index.heard(serviceDid, Date.now())
    expect((await appView.callAs('ann', 'getTimeline')).body).toEqual({ feed: [] })
    expect(appView.log).toContain('"index.away"')
    expect(appView.log).toContain('"index.well"')
  })

  test('it is no failure of a process that its PostgreSQL is killed', async () => {
    const doomed = await PostgresServer.start()
    const small = await SmallIndex.open(doomed)
    await using other = await RunningAppView.start({ indexUrl: small.url })
    await other.ready()
    await small.heard(serviceDid, Date.now())
    expect((await other.callAs('ann', 'getTimeline')).status).toBe(200)
    await small[Symbol.asyncDispose]()
    await doomed[Symbol.asyncDispose]()
    expectRefusal(await other.callAs('ann', 'getTimeline'), [503, 'IndexUnavailable'])
    expect((await indexIn('away', other)).status).toBe(503)
    expect(other.isRunning).toBe(true)
    expect(await other.terminate()).toBe(0)
  })

  test('a process starts without it, and without telling its password', async () => {
    const indexUrl = `postgres://stratos:${password}@127.0.0.1:1/index`
    await using other = await RunningAppView.start({ indexUrl })
    await indexIn('away', other)
    expectRefusal(await other.callAs('ann', 'getTimeline'), [503, 'IndexUnavailable'])
    expect((await fieldsAt('/xrpc/_health', other)).status).toBe(200)
    expect(await other.terminate()).toBe(0)
    expect(other.log).toContain('ECONNREFUSED')
    expect(other.log).not.toContain(password)
    expect(other.log).not.toContain('stratos:')
  })

  test('an index without tables, or of a newer program, is none', async () => {
    await using other = await RunningAppView.start({ indexUrl: await server.database() })
    expect((await indexIn('unmigrated', other)).status).toBe(503)
    expectRefusal(await other.callAs('ann', 'getTimeline'), [503, 'IndexUnavailable'])
    await index.sql`insert into stratos_migration (version, name, "appliedAt")
      values (1000, '1000-later.sql', now())`
    expect((await indexIn('newer')).status).toBe(503)
    expectRefusal(await appView.callAs('ann', 'getTimeline'), [503, 'IndexUnavailable'])
    await index.sql`delete from stratos_migration where version = 1000`
    await appView.ready()
  })
})

describe('says of itself', () => {
  test('its DID document: its key, and where feeds are', async () => {
    const { did, url } = appView
    const key = ServiceKey.import(readFileSync(join(appView.dataFolder, 'signing_key'), 'utf8'))
    const { status, body, headers } = await fieldsAt('/.well-known/did.json')
    expect([status, headers.get('access-control-allow-origin')]).toEqual([200, '*'])
    expect(body).toEqual({
      '@context': ['https://www.w3.org/ns/did/v1', 'https://w3id.org/security/multikey/v1'],
      id: did,
      verificationMethod: [
        {
          id: `${did}#atproto`,
          type: 'Multikey',
          controller: did,
          publicKeyMultibase: key.did.slice('did:key:'.length),
        },
      ],
      service: [{ id: '#stratos_appview', type: 'StratosAppView', serviceEndpoint: url }],
    })
    expect(statSync(join(appView.dataFolder, 'signing_key')).mode & 0o777).toBe(0o600)
  })

  test('that it is well, and how long ago each service was heard', async () => {
    expect((await fieldsAt('/xrpc/_health')).body).toEqual({ version: packageJson.version })
    const [health, ready] = [await fieldsAt('/health'), await fieldsAt('/ready')]
    expect([health.status, ready.status]).toEqual([200, 200])
    expect(health.body).toMatchObject({ status: 'ok', index: { state: 'well' } })
    expect(ready.body).toEqual({
      ready: true,
      index: { state: 'well', lagSeconds: { [serviceDid]: expect.any(Number) } },
    })
    await index.heard(serviceDid, Date.now() - 60_000)
    await eventually('lag', async () => {
      const { body } = await fieldsAt('/ready')
      const lag = fieldsOf(fieldsOf(body, 'index'), 'lagSeconds')[serviceDid]
      return typeof lag === 'number' && lag >= 60 && lag < 90 ? true : undefined
    })
  })

  test('that robots have no business here', async () => {
    expect(await (await fetch(`${appView.url}/robots.txt`)).text()).toContain('Disallow: /')
  })
})

test('a feed is walked by its cursors, also over processes of one key', async () => {
  const author = appView.person('ann').did
  for (const rkey of ['1', '2', '3']) {
    await index.post({ author, rkey, boundaries: ['a'], at: Number(rkey) })
  }
  const hex = readFileSync(join(appView.dataFolder, 'signing_key'), 'utf8').trim()
  const env = { STRATOS_SIGNING_KEY_HEX: hex, STRATOS_PLC_URL: appView.directory.url }
  await using twin = await RunningAppView.start({ indexUrl: index.url, env })
  await twin.ready()
  const pages: string[][] = []
  let cursor: string | undefined
  for (const one of [appView, twin, appView]) {
    await index.heard(serviceDid, Date.now())
    const claims = { aud: one.did }
    const authorization = await appView.token('ann', 'getTimeline', { claims })
    const params = { limit: 1, ...(cursor === undefined ? {} : { cursor }) }
    const { body } = await one.call('getTimeline', { params, authorization })
    pages.push(listOf(body, 'feed').map((item) => textOf(fieldsOf(item, 'post'), 'uri').slice(-1)))
    cursor = typeof body['cursor'] === 'string' ? body['cursor'] : undefined
  }
  expect(pages).toEqual([['3'], ['2'], ['1']])
  expect(cursor).toBeUndefined()
  for (const rkey of ['1', '2', '3']) {
    await index.remove(uriOf({ author, rkey }))
  }
})

test('no answer, header or line of the log has a boundary or a text of others', async () => {
  const [ann, zoe] = [appView.person('ann').did, appView.person('zoe').did]
  const secrets = ['b-hidden', 'nobody else reads this']
  await index.enroll(zoe, ['b-hidden'])
  const text = secrets[1] ?? ''
  const uri = await index.post({ author: zoe, rkey: '9', boundaries: ['b-hidden'], at: 9, text })
  await index.enroll(zoe, ['b-hidden', 'b'])
  const calls: [string, Record<string, string>][] = [
    ['getTimeline', {}],
    ['getAuthorFeed', { actor: zoe }],
    ['getPost', { uri }],
    ['getPostThread', { uri }],
    ['getTimeline', { boundary: `${serviceDid}/c-guessed` }],
    ['getTimeline', { cursor: 'bad' }],
    ['getPost', { uri: 'x' }],
  ]
  const seen: string[] = []
  for (const [method, params] of calls) {
    await index.heard(serviceDid, Date.now())
    const { status, body, headers } = await appView.callAs('ann', method, params)
    seen.push(JSON.stringify([status, body, [...headers]]))
  }
  await index.heard(serviceDid, 0)
  for (const [method, params] of calls) {
    const { status, body, headers } = await appView.callAs('ann', method, params)
    seen.push(JSON.stringify([status, body, [...headers]]))
  }
  await index.heard(serviceDid, Date.now())
  const own = await appView.callAs('zoe', 'getTimeline')
  expect(JSON.stringify(own.body)).toContain(text)
  expect(seen.join('\n')).not.toContain(ann)
  for (const secret of secrets) {
    expect(seen.join('\n')).not.toContain(secret)
    expect(appView.log).not.toContain(secret)
  }
  expect(appView.log).not.toContain('c-guessed')
  expect(appView.log).not.toContain('eyJ')
})
