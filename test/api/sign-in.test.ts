import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { SeededStratos } from '../kit/seeded.ts'

setDefaultTimeout(60_000)

const startsPerMinute = 60
const nobody = 'did:plc:nobodynobodynobodynobody'

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: {} })
})
afterAll(async () => {
  await stratos?.stop()
})

test('a forged return shows people a page, and programs JSON', async () => {
  const path = '/oauth/callback?state=forged&code=forged'
  const page = await visit(path, { accept: 'text/html' })
  expect(page.status).toBe(400)
  expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
  expect(page.headers.get('content-security-policy')).toContain(`default-src 'none'`)
  expect(page.headers.get('cache-control')).toBe('no-store')
  expect(await page.text()).toContain('its state is unknown or was used')
  const answer = await visit(path, { accept: 'application/json' })
  expect(answer.status).toBe(400)
  expect(await answer.json()).toMatchObject({ error: 'InvalidRequest' })
})

test('what people typed is shown as text, not as markup', async () => {
  const page = await visit('/oauth/authorize?handle=%3Cscript%3E', { accept: 'text/html' })
  expect(page.status).toBe(400)
  expect(await page.text()).not.toContain('<script>')
})

test('a handle that no URL can hold leads to no account, and to no fault', async () => {
  const answer = await visit('/oauth/authorize?handle=xn--a.com', {})
  expect(answer.status).toBe(400)
  expect(await answer.json()).toMatchObject({ error: 'HandleNotResolved' })
  expect(stratos.log).not.toContain('unhandled')
})

test('a start under another name of loopback is sent to the one that PDSes return to', async () => {
  const url = `http://localhost:${new URL(stratos.url).port}/oauth/authorize?handle=a.test`
  const answer = await fetch(url, { redirect: 'manual' })
  expect(answer.status).toBe(302)
  expect(answer.headers.get('location')).toBe(url.replace('localhost', '127.0.0.1'))
  expect(answer.headers.get('set-cookie')).toBeNull()
})

test('an address that begins too often has to wait', async () => {
  const path = `/oauth/authorize?handle=${nobody}`
  // The tests above began, too.
  const statuses: number[] = []
  for (let count = 0; count < startsPerMinute; count++) {
    const answer = await visit(path, {})
    statuses.push(answer.status)
    await answer.body?.cancel()
  }
  expect(new Set(statuses.slice(0, startsPerMinute - 10))).toEqual(new Set([403]))
  const answer = await visit(path, {})
  expect(answer.status).toBe(429)
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(await answer.json()).toMatchObject({ error: 'RateLimitExceeded' })
})

function visit(path: string, headers: Record<string, string>): Promise<Response> {
  const { port } = new URL(stratos.url)
  return fetch(`http://127.0.0.1:${port}${path}`, { headers, redirect: 'manual' })
}
