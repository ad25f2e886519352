import { Database } from 'bun:sqlite'
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { parseDid } from '../../src/atproto/syntax.ts'
import { actorDatabasePath } from '../../src/store/actor-database.ts'
import { readCar } from '../bulk/found-car.ts'
import { isPinned } from '../bulk/large.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { type Call, xrpcResponse } from '../kit/xrpc.ts'
import { Download } from './download.ts'

setDefaultTimeout(60_000)

const getRepo = 'zone.stratos.sync.getRepo'
/** What two sockets buffer on one machine is less. */
const records = 80
const recordBytes = 200 * 1024
let stratos: SeededStratos
let downloads: Download[] = []

beforeAll(async () => {
  const people = { alice: ['a'], bob: ['a'], carol: ['a'], dave: ['a'] }
  stratos = await SeededStratos.start({ people })
  for (const name of ['alice', 'carol', 'dave']) await fill(name, records)
  await fill('bob', 1)
})
afterEach(() => {
  for (const download of downloads) download.leave()
  downloads = []
})
afterAll(async () => {
  await stratos?.stop()
})

describe('a client that goes', () => {
  test('in the middle ends the work', async () => {
    const download = begin('alice')
    await download.stall()
    await eventually('work', () => (pinned('alice') ? true : undefined))
    download.leave()
    await eventually('end of the work', () => (pinned('alice') ? undefined : true))
  })

  test('before it got anything is not counted any more', async () => {
    for (let count = 0; count < 12; count++) {
      const download = begin('alice')
      await Bun.sleep(count * 2)
      download.leave()
    }
    await eventually('free place', async () => {
      const answers = await Promise.all([1, 2, 3].map(() => get('alice')))
      await Promise.all(answers.map((answer) => answer.bytes()))
      return answers.every(({ status }) => status === 200) ? true : undefined
    })
    expect(pinned('alice')).toBeFalse()
  })
})

test('of one caller three are sent at once, and no fourth; others are served meanwhile', async () => {
  const three = [begin('alice'), begin('alice'), begin('alice')]
  for (const download of three) await download.stall()
  const refused = await stratos.callAs('alice', getRepo, ask('alice'))
  expectRefusal(refused, [503, 'Overloaded'])
  expect(refused.headers.get('retry-after')).toBe('1')
  for (const authorization of [stratos.adminBasic, stratos.person('bob').bearer]) {
    const whom = authorization === stratos.adminBasic ? 'alice' : 'bob'
    const answer = await get(whom, { authorization })
    expect(answer.status).toBe(200)
    expect((await readCar(await answer.bytes())).leaves.size).toBe(whom === 'bob' ? 1 : records)
  }
  await fill('bob', 1)
  three[0]?.leave()
  await eventually('free place', async () => {
    const answer = await get('alice')
    await answer.bytes()
    return answer.status === 200 ? true : undefined
  })
  for (const download of three.slice(1)) {
    download.resume()
    await download.over()
    expect(download.isWhole).toBeTrue()
    expect(download.bytes).toBeGreaterThan(records * recordBytes)
  }
})

test('what breaks off in the middle reaches nobody as a whole one, and is logged in our words', async () => {
  {
    using database = new Database(databaseOf('dave'))
    const last = '(select max("blockId") from stratos_record)'
    const altered = `update stratos_repo_block set content = cast(x'a0' as blob) where id = ${last}`
    expect(database.run(altered).changes).toBe(1)
  }
  const download = begin('dave')
  await download.over()
  expect(download.status).toBe(200)
  expect(download.bytes).toBeGreaterThan(recordBytes)
  expect(download.closed).toBeTrue()
  expect(download.isWhole).toBeFalse()
  const answer = await get('dave')
  expect(answer.status).toBe(200)
  expect(await failureOf(answer.bytes())).toBeInstanceOf(Error)
  expect(pinned('dave')).toBeFalse()
  const lines = stratos.log.trim().split('\n')
  const failed = lines.map((line): { event?: unknown; did?: unknown } => JSON.parse(line))
  expect(failed.filter(({ event }) => event === 'bulk.failed')).toMatchObject([
    { did: stratos.person('dave').did },
    { did: stratos.person('dave').did },
  ])
  expect(stratos.log).not.toContain('xxxx')
})

test('leaving ends what is being sent, at once and not as a whole one', async () => {
  const carol = stratos.person('carol')
  const download = begin('carol')
  await download.stall()
  const unenroll = 'zone.stratos.enrollment.unenroll'
  const token = await serviceToken(
    carol,
    { aud: stratos.did, lxm: unenroll },
    { claims: { jti: 'once' } },
  )
  const left = await stratos.call(unenroll, { input: {}, authorization: `Bearer ${token}` })
  expect(left.status).toBe(200)
  await eventually('end of the data', () => (existsSync(databaseOf('carol')) ? undefined : true))
  download.resume()
  await download.over()
  expect(download.isWhole).toBeFalse()
  expect(download.bytes).toBeLessThan(records * recordBytes)
})

test('HEAD gives the head alone, and ends the work', async () => {
  for (let count = 0; count < 5; count++) {
    const { bearer: authorization, did } = stratos.person('alice')
    const response = await fetch(`${stratos.url}/xrpc/${getRepo}?did=${did}`, {
      method: 'HEAD',
      headers: { authorization },
    })
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/vnd.ipld.car')
    expect(await response.text()).toBe('')
  }
  await eventually('end of the work', () => (pinned('alice') ? undefined : true))
})

test('a condition or a range changes nothing', async () => {
  const whole = await (await get('bob')).bytes()
  const conditions = [
    { 'if-none-match': '*' },
    { 'if-modified-since': new Date().toUTCString() },
    { range: 'bytes=0-9' },
  ]
  for (const headers of conditions) {
    const answer = await get('bob', { headers })
    expect(answer.status).toBe(200)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(await answer.bytes()).toEqual(whole)
  }
})

test('since the rev of now comes the commit alone; what is no rev is refused', async () => {
  const { rev, root } = await readCar(await (await get('bob')).bytes())
  const { did, bearer: authorization } = stratos.person('bob')
  const since = await xrpcResponse(stratos.url, getRepo, {
    params: { did, since: rev },
    authorization,
  })
  expect((await readCar(await since.bytes())).cids).toEqual([root])
  for (const bad of ['', 'x', '2222222222222222', `${rev}2`]) {
    const params = { did, since: bad }
    expectRefusal(await stratos.callAs('bob', getRepo, { params }), [400, 'InvalidRequest'])
  }
})

function begin(name: string): Download {
  const { did, bearer: authorization } = stratos.person(name)
  const download = new Download(stratos, { did, authorization })
  downloads.push(download)
  return download
}

function ask(name: string): Call {
  return { params: { did: stratos.person(name).did } }
}

function get(name: string, call: Call = {}): Promise<Response> {
  const { bearer: authorization } = stratos.person(name)
  return xrpcResponse(stratos.url, getRepo, { authorization, ...ask(name), ...call })
}

async function fill(name: string, count: number): Promise<void> {
  const { did: repo } = stratos.person(name)
  const extra = 'x'.repeat(recordBytes)
  for (let index = 0; index < count; index++) {
    const record = { ...privatePost(`post ${index}`, [stratos.boundary('a')]), extra }
    const input = { repo, collection: postCollection, record }
    const { status } = await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
    expect(status).toBe(200)
  }
}

function databaseOf(name: string): string {
  return actorDatabasePath(stratos.dataFolder, parseDid(stratos.person(name).did))
}

function pinned(name: string): boolean {
  return isPinned({ database: databaseOf(name) })
}
