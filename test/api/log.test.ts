import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { postCollection, privatePost } from '../kit/post.ts'
import { basic, SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { isFields, xrpc } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const createRecord = 'zone.stratos.repo.createRecord'
const listRecords = 'zone.stratos.repo.listRecords'

let stratos: SeededStratos

beforeAll(async () => {
  const env = { LOG_LEVEL: 'debug' }
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] }, env })
})
afterAll(async () => {
  await stratos?.stop()
})

test('at the most talkative level the log tells no secret', async () => {
  const secrets: string[] = [stratos.adminPassword, stratos.adminBasic.slice('Basic '.length)]
  /** A text that stands nowhere else, and is looked for afterwards. */
  const secret = (kind: string) => {
    const text = `${kind}-${crypto.randomUUID()}`
    secrets.push(text)
    return text
  }
  await write(secret('text'), {})
  await write(secret('text'), { headers: { cookie: `stratos-signin=${secret('cookie')}` } })
  await write(secret('refused'), { record: { langs: [secret('lang')] } })
  await write('x'.repeat(301) + secret('long'), {})
  await write('a post', { record: { [secret('member')]: 1.5 } })
  await write('a post', { input: { rkey: `${secret('rkey')}/` } })
  await write('a post', { record: { boundary: { values: [{ value: secret('boundary') }] } } })
  await raw(`{"repo":"${secret('broken')}`)
  await raw(`{"repo":"${secret('repo')}","collection":"x","record":{}}`)

  const token = await tokenFor(createRecord)
  const expired = await tokenFor(createRecord, { exp: 1 })
  secrets.push(token, ...token.split('.').slice(1), ...expired.split('.').slice(1))
  const bad = [secret('bearer'), `a.${secret('jwt')}.b`, token, expired, `${token}x`]
  for (const one of bad) await write('by token', { authorization: `Bearer ${one}` })
  await write('by basic', { authorization: basic('admin', secret('password')) })
  await write('by another scheme', { authorization: `DPoP ${secret('dpop')}` })

  const params = { repo: stratos.person('alice').did, collection: postCollection }
  const query = { ...params, syncToken: secret('query'), cursor: secret('cursor') }
  await stratos.callAs('bob', listRecords, { params: query })
  await stratos.callAs('bob', listRecords, { params: { ...query, limit: secret('limit') } })
  const paths = [
    `/oauth/callback?state=${secret('state')}&code=${secret('code')}&iss=${secret('iss')}`,
    `/oauth/callback?error=${secret('error')}&error_description=${secret('description')}`,
    `/oauth/authorize?handle=${secret('handle')}&redirect_uri=https://${secret('redirect')}.test/`,
    `/nothing/at-all?token=${secret('elsewhere')}`,
    `/xrpc/no-method?token=${secret('nowhere')}`,
    `/?token=${secret('page')}`,
  ]
  for (const path of paths) await visit(path)

  secrets.push(...keysIn(stratos.dataFolder))
  await expectLogged({ path: '/', method: 'GET' })
  for (const text of secrets) expect(stratos.log).not.toContain(text)
})

test('every call leaves one line with its id, its path and what came of it', async () => {
  const params = { repo: stratos.person('alice').did, collection: postCollection }
  const answer = await stratos.callAs('bob', listRecords, { params })
  const requestId = answer.headers.get('x-request-id')
  const line = { level: 'debug', event: 'request', method: 'GET', path: `/xrpc/${listRecords}` }
  await expectLogged({ ...line, requestId, status: 200 })
  expect(lines().filter((fields) => fields['requestId'] === requestId)).toHaveLength(1)
})

test('a fault is logged with the request id, and the caller learns nothing of it', async () => {
  const { did, bearer: authorization } = stratos.person('bob')
  // Not what any caller can do: somebody overwrote the key of the repo.
  const actors = join(stratos.dataFolder, 'actors')
  const names = readdirSync(actors, { recursive: true }).map(String)
  const folder = join(actors, names.find((name) => name.endsWith(did)) ?? '')
  expect(await stratos.terminate()).toBe(0)
  const key = readFileSync(join(folder, 'signing_key'))
  writeFileSync(join(folder, 'signing_key'), 'no-key-at-all')
  await stratos.run()
  const record = privatePost('kept secret', [stratos.boundary('a')])
  const input = { repo: did, collection: postCollection, record }
  const answer = await stratos.call(createRecord, { input, authorization })
  expect(answer).toMatchObject({ status: 500 })
  expect(answer.body).toEqual({
    error: 'InternalServerError',
    message: 'Internal Server Error',
  })
  await expectLogged({ level: 'error', requestId: answer.headers.get('x-request-id') })
  expect(stratos.log).not.toContain('kept secret')
  expect(stratos.log).not.toContain('no-key-at-all')
  writeFileSync(join(folder, 'signing_key'), key)
  const again = await stratos.call(createRecord, { input, authorization })
  expect(again).toMatchObject({ status: 200 })
})

interface Write {
  readonly record?: object
  readonly input?: object
  readonly authorization?: string
  readonly headers?: Record<string, string>
}

function write(text: string, { record = {}, input = {}, ...call }: Write) {
  const { did, bearer } = stratos.person('alice')
  const post = { ...privatePost(text, [stratos.boundary('a')]), ...record }
  return xrpc(stratos.url, createRecord, {
    authorization: bearer,
    ...call,
    input: { repo: did, collection: postCollection, record: post, ...input },
  })
}

async function raw(body: string): Promise<void> {
  const { bearer: authorization } = stratos.person('alice')
  const headers = { authorization, 'content-type': 'application/json' }
  const url = `${stratos.url}/xrpc/${createRecord}`
  await (await fetch(url, { method: 'POST', headers, body })).body?.cancel()
}

async function visit(path: string): Promise<void> {
  const url = `http://127.0.0.1:${stratos.port}${path}`
  await (await fetch(url, { redirect: 'manual' })).body?.cancel()
}

function tokenFor(lxm: string, claims: object = {}): Promise<string> {
  return serviceToken(stratos.person('alice'), { aud: stratos.did, lxm }, { claims: { ...claims } })
}

/** Contents of all key files. */
function keysIn(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true }).map(String)
  const keys = names.filter((name) => name.endsWith('signing_key'))
  expect(keys.length).toBeGreaterThan(2)
  return keys.map((name) => readFileSync(join(folder, name), 'utf8').trim())
}

function lines(): Record<string, unknown>[] {
  // What follows the last line break is half a line.
  return stratos.log
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const fields: unknown = JSON.parse(line)
      if (!isFields(fields)) throw new Error(`a line that is no object: ${line}`)
      return fields
    })
}

/** The log comes through a pipe: a moment after the answer. */
async function expectLogged(expected: Record<string, unknown>): Promise<void> {
  await eventually(
    JSON.stringify(expected),
    () => lines().find((fields) => Bun.deepMatch(expected, fields)),
    { withinMs: 5_000, everyMs: 10 },
  )
}
