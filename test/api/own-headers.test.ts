import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { SeededStratos } from '../kit/seeded.ts'

setDefaultTimeout(60_000)

const secret = `code-${crypto.randomUUID()}`
const query = `code=${secret}&state=${secret}&iss=https://${secret}.example`
const paths: [path: string, verb: 'GET' | 'POST'][] = [
  ['/', 'GET'],
  [`/oauth/callback?${query}`, 'GET'],
  [`/oauth/callback?error=access_denied&error_description=${secret}&state=${secret}`, 'GET'],
  [`/oauth/authorize?handle=${secret}`, 'GET'],
  ['/oauth/status', 'GET'],
  ['/oauth/signout', 'POST'],
  ['/oauth/revoke', 'POST'],
  [`/oauth/elsewhere?${query}`, 'GET'],
]

describe.each([
  ['with https', 'https://stratos.example.com', 'max-age=31536000'],
  ['on loopback', '', null],
])('%s', (_, publicUrl, transport) => {
  let stratos: SeededStratos

  beforeAll(async () => {
    const env: Record<string, string> =
      publicUrl === '' ? {} : { STRATOS_PUBLIC_URL: publicUrl, STRATOS_DEV_MODE: 'false' }
    stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  })
  afterAll(async () => {
    await stratos?.stop()
  })

  test.each(paths)('%s tells no other site of itself', async (path, method) => {
    for (const accept of ['text/html', 'application/json']) {
      const response = await visit(path, { method, accept })
      const { headers } = response
      expect(headers.get('referrer-policy')).toBe('no-referrer')
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('cross-origin-resource-policy')).toBe('same-origin')
      expect(headers.get('cache-control')).toBe('no-store')
      expect(headers.get('strict-transport-security')).toBe(transport)
      expect(headers.get('access-control-allow-origin')).toBeNull()
      if (headers.get('content-type')?.startsWith('text/html') === true) {
        expect(headers.get('content-security-policy')).toContain("frame-ancestors 'none'")
        expect(headers.get('cross-origin-opener-policy')).toBe('same-origin')
      }
      if (path.startsWith('/oauth/authorize')) continue
      const said = `${await response.text()} ${JSON.stringify([...headers])}`
      expect(said).not.toContain(secret)
    }
  })

  test('an answer for programs is no page, whatever its words', async () => {
    for (const path of ['/xrpc/zone.stratos.server.listDomains', '/xrpc/<b>', '/health']) {
      const { headers } = await visit(path, { method: 'GET', accept: 'text/html' })
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('content-type')).toBe('application/json')
    }
  })

  function visit(path: string, { method, accept }: { method: string; accept: string }) {
    const host = publicUrl === '' ? `127.0.0.1:${stratos.port}` : new URL(publicUrl).host
    const headers = { accept, host, 'content-type': 'application/json' }
    const url = `http://127.0.0.1:${stratos.port}${path}`
    const body = method === 'POST' ? { body: '{}' } : {}
    return fetch(url, { method, headers, redirect: 'manual', ...body })
  }
})
