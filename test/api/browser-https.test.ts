import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { BrowserSessions } from '../../src/store/browser-session.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { whileStopped } from '../kit/while-stopped.ts'

setDefaultTimeout(60_000)

const host = 'stratos.example.com'
const origin = `https://${host}`
const env = { STRATOS_PUBLIC_URL: origin, STRATOS_DEV_MODE: 'false' }

let stratos: SeededStratos
let token: string

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  token = await whileStopped(stratos, (sql) =>
    new BrowserSessions(sql).create(stratos.person('alice').did, Date.now()),
  )
})
afterAll(async () => {
  await stratos?.stop()
})

test('behind https the cookie counts by the name that no other site can set', async () => {
  expect((await status({ cookie: `stratos-session=${token}` })).status).toBe(401)
  expect((await status({ cookie: `__Host-stratos-session=${token}` })).status).toBe(200)
})

test('a proxy that hides the name of the service signs nobody in, and the log says why once', async () => {
  const cookie = `__Host-stratos-session=${token}`
  for (const host of [`localhost:${stratos.port}`, `127.0.0.1:${stratos.port}`, 'evil.example']) {
    expect((await status({ cookie, host })).status).toBe(403)
  }
  expect(stratos.log.match(/browser\.host\.foreign/g)).toHaveLength(1)
})

test('loopback is no origin of a service for the world', async () => {
  const cookie = `__Host-stratos-session=${token}`
  for (const origin of [stratos.url, `http://${host}`, 'https://sub.stratos.example.com']) {
    expect((await status({ cookie, origin })).status).toBe(403)
    expect((await signOut({ cookie, origin })).status).toBe(403)
  }
})

test('signing out removes the cookie under its name, secure as it was set', async () => {
  const answer = await signOut({ cookie: `__Host-stratos-session=${token}` })
  expect(answer.status).toBe(200)
  expect(answer.headers.getSetCookie()).toEqual([
    '__Host-stratos-session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure',
  ])
})

function status(headers: Readonly<Record<string, string>>): Promise<Response> {
  return fetch(`${stratos.url}/oauth/status`, { headers: { host, ...headers } })
}

function signOut(headers: Readonly<Record<string, string>>): Promise<Response> {
  return fetch(`${stratos.url}/oauth/signout`, {
    method: 'POST',
    headers: { host, origin, 'content-type': 'application/json', ...headers },
    body: '{}',
  })
}
