import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { ListServer } from '../kit/list-server.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { signIn } from '../kit/sign-in.ts'
import { SmallValkey, valkeyPassword } from '../kit/valkey.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf } from '../kit/xrpc.ts'
import { AuthorizationServer } from '../remote/authorization-server.ts'

setDefaultTimeout(60_000)

const statusNsid = 'zone.stratos.enrollment.status'

let stratos: SeededStratos
let server: ListServer
let pds: AuthorizationServer

beforeAll(async () => {
  server = new ListServer()
  pds = new AuthorizationServer()
  stratos = await SeededStratos.start({
    people: { alice: ['a'] },
    env: { STRATOS_ALLOW_LIST_URI: server.uri, STRATOS_OPERATOR_CONTACT: '<mail@example.com>' },
  })
})
afterAll(async () => {
  expect(stratos.log).not.toContain('IN-THE-URI')
  expect(stratos.log).not.toContain('unhandled')
  await stratos?.stop()
  await pds?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

const denied = { error: 'EnrollmentDenied', reason: 'NotInAllowlist' }

describe('somebody who is not on the list', () => {
  test('is told so by JSON, is not enrolled, and their session is revoked', async () => {
    const { did } = stratos.person('stranger')
    const answer = await signIn(stratos, 'stranger', { pds })
    expect(answer.status).toBe(403)
    const body = fieldsOf({ body: await answer.json() }, 'body')
    expect(body).toEqual({ ...denied, message: `${did} is not on the list of this service` })
    expect(pds.revoked).toHaveLength(1)
    expect(pds.revoked[0]).toContain('SECRET')
    const { body: status } = await stratos.call(statusNsid, { params: { did } })
    expect(status).toEqual({ did, enrolled: false })
  })

  test('and is a member already, gets to their page, where they can leave', async () => {
    const { did } = stratos.person('alice')
    const before = pds.revoked.length
    const answer = await signIn(stratos, 'alice', { pds, accept: 'text/html' })
    expect(answer.status).toBe(303)
    expect(answer.headers.get('location')).toBe('/')
    const cookies = answer.headers.getSetCookie()
    expect(cookies).toContainEqual(expect.stringMatching(/^stratos-session=[\w-]{43};/))
    // What the PDS gave for it is given back.
    expect(pds.revoked).toHaveLength(before + 1)
    const { body } = await stratos.call(statusNsid, { params: { did } })
    expect(body).toMatchObject({ enrolled: true })
    expect((await signIn(stratos, 'alice', { pds })).status).toBe(403)
  })

  test('sees a page that says why and whom to ask', async () => {
    const answer = await signIn(stratos, 'stranger', { pds, accept: 'text/html' })
    expect(answer.status).toBe(403)
    expect(answer.headers.get('content-type')).toStartWith('text/html')
    const text = await answer.text()
    expect(text).toContain(`${stratos.person('stranger').did} is not on the list of this service`)
    expect(text).toContain('Ask the operator of this service to be admitted')
    expect(text).toContain('&lt;mail@example.com&gt;')
    expect(text).not.toContain('<mail@')
  })

  test('is sent back to the app with the reason', async () => {
    const redirectUri = `${stratos.url}/done?keep=1`
    const answer = await signIn(stratos, 'stranger', { pds, redirectUri })
    expect(answer.status).toBe(302)
    const target = new URL(answer.headers.get('location') ?? '')
    expect(target.pathname).toBe('/done')
    expect(Object.fromEntries(target.searchParams)).toEqual({
      keep: '1',
      stratos_error: 'EnrollmentDenied',
      stratos_error_reason: 'NotInAllowlist',
    })
  })
})

test('an error that is no denial brings no reason along', async () => {
  pds.broken = { status: 500, error: 'server_error' }
  const redirectUri = `${stratos.url}/done`
  const answer = await signIn(stratos, 'alice', { pds, redirectUri })
  pds.broken = undefined
  const { searchParams } = new URL(answer.headers.get('location') ?? '')
  expect([...searchParams.keys()]).toEqual(['stratos_error'])
})

test('while the list cannot be read its last copy counts, over a restart, too', async () => {
  server.set(stratos.person('stranger').did)
  await restart()
  await eventually('new copy', () => stratos.log.includes('allow-list.replaced') || undefined)
  server.status = 503
  await restart()
  await eventually('warning', () => stratos.log.includes('allow-list.not-read') || undefined)
  expect((await signIn(stratos, 'stranger', { pds })).status).toBe(200)
  const answer = await signIn(stratos, 'alice', { pds })
  expect(answer.status).toBe(403)
  expect(answer.headers.get('retry-after')).toBe('60')
  expect(await answer.text()).toContain('try again later')
  expect(stratos.log).toContain('answered the status 503')
})

test.each([
  ['unset', {}, ['a', 'b', 'c']],
  ['empty', { STRATOS_AUTO_ENROLL_DOMAINS: '' }, []],
  ['one of them', { STRATOS_AUTO_ENROLL_DOMAINS: 'b' }, ['b']],
])('with the boundaries of new people %s, who enrolls gets those', async (_, env, boundaries) => {
  const open = { STRATOS_ENROLLMENT_MODE: 'open', ...env }
  await using other = await SeededStratos.start({ people: {}, env: open })
  expect((await signIn(other, 'stranger', { pds })).status).toBe(200)
  expect(await other.boundariesOf('stranger')).toEqual(boundaries.map((one) => other.boundary(one)))
})

test('a service without any list is closed', async () => {
  await using other = await SeededStratos.start({ people: {} })
  const answer = await signIn(other, 'stranger', { pds })
  expect(answer.status).toBe(403)
  expect(await answer.json()).toMatchObject({ error: 'EnrollmentDenied', reason: 'ServiceClosed' })
})

describe('through a Valkey', () => {
  const env = (valkey: SmallValkey) => ({
    STRATOS_ALLOW_LIST_URI: server.uri,
    STRATOS_VALKEY_URL: valkey.url,
  })

  test('services share what one of them has read', async () => {
    await using valkey = new SmallValkey()
    server.status = 200
    server.requests.length = 0
    for (let count = 0; count < 2; count++) {
      await using other = await SeededStratos.start({ people: {}, env: env(valkey) })
      server.set(other.person('stranger').did)
      await eventually('copy', () => other.log.includes('allow-list.replaced') || undefined)
      expect(other.log).not.toContain(valkeyPassword)
    }
    expect(server.requests).toHaveLength(1)
  })

  test('that never answers a service starts, and stops', async () => {
    await using valkey = new SmallValkey()
    valkey.instead = () => ''
    await using other = await SeededStratos.start({ people: {}, env: env(valkey) })
    await eventually('question', () => valkey.connections > 0 || undefined)
    expect(await other.terminate()).toBe(0)
  })
})

async function restart(): Promise<void> {
  await stratos.terminate()
  await stratos.run()
}
