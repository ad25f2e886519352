import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { parseTid } from '../../src/atproto/syntax.ts'
import { tidMicros } from '../../src/atproto/tid.ts'
import { enrolled } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { enrollmentCollection, postCollection, privatePost } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'

setDefaultTimeout(180_000)

const deliveryMs = 90_000
const unenroll = 'zone.stratos.enrollment.unenroll'
const create = 'zone.stratos.repo.createRecord'
let network: Network
let stratos: Stratos

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering', 'design'] })
})

afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

test('after 50 posts, kills and an outage, leaving leaves nothing, and a return goes on', async () => {
  const alice = await network.createAccount('alice')
  await enrolled(stratos, alice)
  await post(alice, 25)
  await stratos.setBoundaries(alice.did, ['engineering'])
  await post(alice, 25)
  await eventually('50 stubs', async () => ((await stubs(alice)) === 50 ? true : undefined), {
    withinMs: deliveryMs,
  })

  await stratos.kill()
  const before = allBytes()
  // A long one may be cut in two by a page.
  const secrets = sessionSecrets(alice).filter((secret) => before.includes(secret))
  expect(secrets).not.toEqual([])
  const leaving = await tokenFor(alice, unenroll)
  await network.killPds()
  await stratos.run()
  await leave(leaving)
  await stratos.kill()
  await network.restartPds()
  await stratos.run()

  await expectClean(alice)
  await stratos.terminate()
  const { seq, rev } = departedRow(alice)
  expect(tidMicros(parseTid(String(rev)))).toBe(Number(seq))
  const bytes = allBytes()
  for (const secret of secrets) expect(bytes.includes(secret)).toBeFalse()

  await stratos.run()
  await enrolled(stratos, alice)
  await post(alice, 1)
  await eventually('one stub', async () => ((await stubs(alice)) === 1 ? true : undefined))
  await stratos.terminate()
  const head = headRow(alice)
  expect(Number(head['seq'])).toBeGreaterThan(Number(seq))
  expect(String(head['rev']) > String(rev)).toBeTrue()
  await stratos.run()
})

test('a kill at whatever moment of leaving loses nothing of it', async () => {
  for (const delayMs of [0, 3, 8, 20, 60]) {
    const account = await network.createAccount(`bob-${delayMs}`)
    await enrolled(stratos, account)
    await post(account, 3)
    const first = await tokenFor(account, unenroll)
    const asked = leave(first).catch(() => 'cut off')
    await Bun.sleep(delayMs)
    await stratos.kill()
    await asked
    await stratos.run()
    // Whoever was not answered asks again.
    await leave(await tokenFor(account, unenroll))
    await expectClean(account)
  }
})

/** Neither record nor stub on the PDS, no file, and no row but the one that is kept for ever. */
async function expectClean(account: Account): Promise<void> {
  const { did, handle } = account
  const look = async () => {
    const records = await network.listRecords(did, enrollmentCollection)
    return records.length + (await stubs(account)) === 0 ? true : undefined
  }
  await eventually(`clean PDS of ${handle}`, look, { withinMs: deliveryMs })
  await eventually('end of the job', async () => ((await waiting()) === 0 ? true : undefined))
  await stratos.terminate()
  const paths = readdirSync(stratos.dataFolder, { recursive: true }).map(String)
  expect(paths.filter((path) => path.includes(did))).toEqual([])
  expect(tablesWith(did)).toEqual(['departed'])
  await stratos.run()
}

/** Names of the tables of the service that hold a text anywhere. */
function tablesWith(text: string): string[] {
  using database = serviceDatabase()
  const tables = database
    .query<{ name: string }, []>("select name from sqlite_master where type = 'table'")
    .all()
  return tables.flatMap(({ name }) => {
    const rows = database.query(`select * from "${name}"`).all()
    return JSON.stringify(rows).includes(text) ? [name] : []
  })
}

function departedRow({ did }: Account): Fields {
  using database = serviceDatabase()
  return Object(database.query('select seq, rev from departed where did = ?').get(did))
}

/** What must not be left in any file: the tokens of the person's session, and the proof key. */
function sessionSecrets({ did }: Account): string[] {
  using database = serviceDatabase()
  const row = Object(database.query('select value from oauth_session where did = ?').get(did))
  const { tokenSet, dpopJwk } = JSON.parse(row.value)
  return [tokenSet.refresh_token, tokenSet.access_token, dpopJwk.d].map(String)
}

function headRow({ did }: Account): Fields {
  const paths = readdirSync(join(stratos.dataFolder, 'actors'), { recursive: true }).map(String)
  const path = paths.find((one) => one.includes(did) && one.endsWith('.sqlite')) ?? ''
  using database = new Database(join(stratos.dataFolder, 'actors', path), { readonly: true })
  return Object(database.query('select seq, rev from stratos_repo_root').get())
}

type Fields = Readonly<Record<string, unknown>>

/** To be opened only while the service does not run: it keeps everybody else out. */
function serviceDatabase(): Database {
  return new Database(join(stratos.dataFolder, 'service.sqlite'))
}

function allBytes(): Buffer {
  const paths = readdirSync(stratos.dataFolder, { recursive: true }).map(String)
  const files = paths
    .map((path) => join(stratos.dataFolder, path))
    .filter((path) => statSync(path).isFile())
  return Buffer.concat(files.map((path) => readFileSync(path)))
}

async function waiting(): Promise<unknown> {
  const health: unknown = await (await fetch(`${stratos.url}/health`)).json()
  return Object(health).outbox.actors.waiting
}

async function stubs({ did }: Account): Promise<number> {
  return (await network.listRecords(did, postCollection)).length
}

async function post(account: Account, count: number): Promise<void> {
  const authorization = `Bearer ${await tokenFor(account, create)}`
  for (let index = 0; index < count; index++) {
    const record = privatePost(`number ${index}`, [stratos.boundary('engineering')])
    const input = { repo: account.did, collection: postCollection, record }
    const answer = await stratos.call(create, { input, authorization })
    expect(answer).toMatchObject({ status: 200 })
  }
}

async function leave(token: string): Promise<void> {
  const answer = await stratos.call(unenroll, { input: {}, authorization: `Bearer ${token}` })
  expect(answer).toMatchObject({ status: 200, body: { success: true } })
}

function tokenFor(account: Account, lxm: string): Promise<string> {
  const exp = Math.floor(Date.now() / 1000) + 600
  return network.serviceAuth(account, { aud: stratos.did, lxm, exp })
}
