import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'

import packageJson from '../../package.json' with { type: 'json' }
import { ServiceKey } from '../../src/atproto/keys.ts'
import { postCollection } from '../kit/post.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { fieldsOf, isFields, listOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const getRecord = 'zone.stratos.repo.getRecord'
const listRecords = 'zone.stratos.repo.listRecords'
const createRecord = 'zone.stratos.repo.createRecord'
const did = `did:plc:${'a'.repeat(24)}`

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

function visit(path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${stratos.url}${path}`, { redirect: 'manual', ...init })
}

/** A response as `expectRefusal` takes it. */
async function answerOf(response: Response) {
  const body: unknown = await response.json()
  if (!isFields(body)) throw new Error(`expected an object: ${JSON.stringify(body)}`)
  return { status: response.status, body, headers: response.headers }
}

describe('refused is', () => {
  test.each<[string, string, Refusal]>([
    ['GET', '/xrpc/zone.stratos.repo.frobnicate', [501, 'MethodNotImplemented']],
    ['POST', '/xrpc/com.atproto.repo.importRepo', [501, 'MethodNotImplemented']],
    ['GET', `/xrpc/${postCollection}`, [501, 'MethodNotImplemented']],
    ['GET', '/xrpc/zone', [400, 'InvalidRequest']],
    ['GET', '/xrpc/%zz', [400, 'InvalidRequest']],
    ['GET', '/xrpc/__proto__', [400, 'InvalidRequest']],
    ['GET', '/xrpc/constructor', [400, 'InvalidRequest']],
    ['GET', `/xrpc/${getRecord}/x`, [404, 'NotFound']],
    ['GET', '/xrpc/', [404, 'NotFound']],
    ['GET', '/nothing', [404, 'NotFound']],
    ['GET', '/oauth/nothing', [404, 'NotFound']],
    ['POST', '/nothing', [404, 'NotFound']],
    ['GET', '/oauth/callback', [400, 'InvalidRequest']],
  ])('%s %s', async (method, path, refusal) => {
    const response = await visit(path, { method })
    expect(response.headers.get('content-type')).toBe('application/json')
    expectRefusal(await answerOf(response), refusal)
  })

  test.each([
    [getRecord, 'POST', 'GET, HEAD'],
    [getRecord, 'PUT', 'GET, HEAD'],
    ['com.atproto.repo.listRecords', 'DELETE', 'GET, HEAD'],
    [createRecord, 'GET', 'POST'],
    ['com.atproto.repo.deleteRecord', 'PATCH', 'POST'],
    ['_health', 'POST', 'GET, HEAD'],
    ['_health', 'DELETE', 'GET, HEAD'],
  ])('%s by %s', async (nsid, method, allow) => {
    const response = await visit(`/xrpc/${nsid}`, { method })
    expect(response.headers.get('allow')).toBe(allow)
    expectRefusal(await answerOf(response), [405, 'MethodNotAllowed'])
  })

  test('HEAD of a procedure', async () => {
    const response = await visit(`/xrpc/${createRecord}`, { method: 'HEAD' })
    expect(response.status).toBe(405)
    expect(response.headers.get('allow')).toBe('POST')
  })

  test.each([
    [getRecord, `repo=${did}&collection=${postCollection}`, 'rkey'],
    [getRecord, `repo=a%20b&collection=${postCollection}&rkey=x`, 'repo'],
    [getRecord, `repo=${did}&collection=post&rkey=x`, 'collection'],
    [getRecord, `repo=${did}&collection=${postCollection}&rkey=a/b`, 'rkey'],
    [getRecord, `repo=${did}&collection=${postCollection}&rkey=x&rkey=y`, 'rkey'],
    [getRecord, `repo=${did}&collection=${postCollection}&rkey=x&cid=abc`, 'cid'],
    [listRecords, `collection=${postCollection}`, 'repo'],
    [listRecords, `repo=${did}&collection=${postCollection}&limit=0`, 'limit'],
    [listRecords, `repo=${did}&collection=${postCollection}&limit=101`, 'limit'],
    [listRecords, `repo=${did}&collection=${postCollection}&limit=1.5`, 'limit'],
    [listRecords, `repo=${did}&collection=${postCollection}&limit=many`, 'limit'],
    [listRecords, `repo=${did}&collection=${postCollection}&reverse=yes`, 'reverse'],
    ['zone.stratos.enrollment.status', 'did=alice.test', 'did'],
    ['zone.stratos.sync.getRepo', '', 'did'],
  ])('%s?%s, by the name of the parameter', async (nsid, query, name) => {
    const authorization = stratos.person('alice').bearer
    const answer = await answerOf(
      await visit(`/xrpc/${nsid}?${query}`, { headers: { authorization } }),
    )
    expectRefusal(answer, [400, 'InvalidRequest'])
    expect(answer.body['message']).toContain(name)
  })

  test('a cursor that is no record key', async () => {
    const params = { repo: stratos.person('alice').did, collection: postCollection, cursor: 'a/b' }
    expectRefusal(await stratos.call(listRecords, { params }), [400, 'InvalidRequest'])
  })

  test.each(['[::1', 'a b', 'localhost:99999', 'localhost@example.com', 'a?b', 'a#b', ''])(
    'a request for the host %j',
    async (host) => {
      const head = `GET /xrpc/${listRecords} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`
      const answer = await sendRaw(stratos.port, head)
      expect(answer).toStartWith('HTTP/1.1 400 ')
      expect(answer).toContain('{"error":"InvalidRequest","message":')
    },
  )
})

describe('every answer below /xrpc and /oauth', () => {
  const paths = [
    '/xrpc/_health',
    '/xrpc/zone.stratos.server.listDomains',
    `/xrpc/${getRecord}`,
    `/xrpc/${createRecord}`,
    '/xrpc/zone.stratos.repo.frobnicate',
    '/xrpc/no-method',
    '/xrpc/',
    '/oauth/authorize',
    '/oauth/callback',
    '/oauth/callback?error=access_denied&state=x',
    '/oauth/nothing',
  ]
  test.each(
    ['GET', 'HEAD', 'POST', 'OPTIONS'].flatMap((verb) =>
      paths.map((path) => [verb, path] as const),
    ),
  )('%s %s is kept by nobody', async (method, path) => {
    for (const accept of ['*/*', 'text/html']) {
      const { headers } = await visit(path, { method, headers: { accept } })
      expect(headers.get('cache-control')).toBe('no-store')
      expect(headers.get('vary')).toBe('Authorization, DPoP, Cookie')
      expect(headers.get('access-control-allow-credentials')).toBeNull()
    }
  })
})

describe('a page elsewhere', () => {
  const exposed = [
    'DPoP-Nonce',
    'WWW-Authenticate',
    'RateLimit-Limit',
    'RateLimit-Remaining',
    'RateLimit-Reset',
    'RateLimit-Policy',
    'Retry-After',
    'Atproto-Repo-Rev',
    'X-Request-Id',
  ]
  test.each([
    getRecord,
    createRecord,
    'zone.stratos.admin.setBoundaries',
    'zone.stratos.sync.getRepo',
    '_health',
    'zone.stratos.repo.frobnicate',
    'no-method',
    'a/b',
  ])('may ask before it calls %s', async (nsid) => {
    const response = await visit(`/xrpc/${nsid}`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://app.example.com',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,dpop',
      },
    })
    expect(response.status).toBe(204)
    expect(await response.text()).toBe('')
    const { headers } = response
    expect(headers.get('access-control-allow-origin')).toBe('*')
    expect(headers.get('access-control-allow-credentials')).toBeNull()
    expect(namesIn(headers, 'access-control-allow-methods')).toEqual(['GET', 'HEAD', 'POST'])
    expect(namesIn(headers, 'access-control-allow-headers')).toEqual([
      'atproto-accept-labelers',
      'atproto-proxy',
      'authorization',
      'content-type',
      'dpop',
      'dpop-bind',
    ])
  })

  test.each([
    '/xrpc/_health',
    '/xrpc/zone.stratos.server.listDomains',
    `/xrpc/${getRecord}`,
    `/xrpc/zone.stratos.repo.frobnicate`,
    `/xrpc/${createRecord}`,
  ])('may read what %s answers, refusals too', async (path) => {
    const { headers } = await visit(path, { headers: { origin: 'https://app.example.com' } })
    expect(headers.get('access-control-allow-origin')).toBe('*')
    expect(namesIn(headers, 'access-control-expose-headers')).toEqual(exposed.toSorted())
  })
})

test('HEAD answers as GET does, without the body', async () => {
  const paths = [
    '/',
    '/health',
    '/ready',
    '/robots.txt',
    '/client-metadata.json',
    '/.well-known/did.json',
    '/xrpc/_health',
    '/xrpc/zone.stratos.server.listDomains',
    `/xrpc/${listRecords}?repo=${stratos.person('alice').did}&collection=${postCollection}`,
    `/xrpc/${getRecord}`,
    '/nothing',
  ]
  for (const path of paths) {
    const get = await visit(path)
    const head = await visit(path, { method: 'HEAD' })
    expect(head.status).toBe(get.status)
    expect(lasting(head)).toEqual(lasting(get))
    expect(await head.text()).toBe('')
  }
})

describe('the documents', () => {
  test('did.json names both keys, which are one, and both services', async () => {
    const document = await documentAt('/.well-known/did.json')
    expect(textOf(document, 'id')).toBe(stratos.did)
    const methods = listOf(document, 'verificationMethod')
    const names = [`${stratos.did}#atproto`, `${stratos.did}#atproto_pns`]
    expect(methods.map((method) => textOf(method, 'id'))).toEqual(names)
    const attested = await stratos.callAs('alice', 'zone.stratos.enrollment.status', {
      params: { did: stratos.person('alice').did },
    })
    const serviceKey = textOf(fieldsOf(attested.body, 'attestation'), 'signingKey')
    for (const method of methods) {
      expect(method).toMatchObject({ type: 'Multikey', controller: stratos.did })
      expect(`did:key:${textOf(method, 'publicKeyMultibase')}`).toBe(serviceKey)
    }
    const file = await Bun.file(join(stratos.dataFolder, 'signing_key')).text()
    expect(ServiceKey.import(file.trim()).did).toBe(serviceKey)
    expect(listOf(document, 'service')).toEqual([
      { id: '#atproto_pns', type: 'AtprotoPrivateNamespace', serviceEndpoint: stratos.url },
      { id: '#stratos', type: 'StratosService', serviceEndpoint: stratos.url },
    ])
  })

  test('the client’s metadata stand at both addresses', async () => {
    const metadata = await documentAt('/client-metadata.json')
    expect(await documentAt('/.well-known/oauth-client-metadata.json')).toEqual(metadata)
    expect(metadata).toMatchObject({
      scope: 'atproto repo:zone.stratos.actor.enrollment repo:zone.stratos.feed.post',
      redirect_uris: [`http://127.0.0.1:${stratos.port}/oauth/callback`],
      token_endpoint_auth_method: 'none',
      dpop_bound_access_tokens: true,
    })
  })

  test('nothing is for robots', async () => {
    const response = await visit('/robots.txt')
    expect(response.headers.get('content-type')).toStartWith('text/plain')
    expect(await response.text()).toBe('User-agent: *\nDisallow: /\n')
  })

  test('health says that development mode is on', async () => {
    const { version } = packageJson
    const health = { version, status: 'ok', developmentMode: true }
    expect(await documentAt('/health')).toMatchObject(health)
    expect(await documentAt('/ready')).toEqual({ ready: true })
    expect(await documentAt('/xrpc/_health')).toEqual({ version })
  })

  test('every call has a request id of its own', async () => {
    const ids = new Set<string | null>()
    for (let count = 0; count < 5; count++) {
      ids.add((await stratos.call('zone.stratos.server.listDomains')).headers.get('x-request-id'))
    }
    expect(ids.size).toBe(5)
    expect(ids.has(null)).toBe(false)
  })
})

async function documentAt(path: string): Promise<Record<string, unknown>> {
  const response = await visit(path)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('application/json')
  return (await answerOf(response)).body
}

function namesIn(headers: Headers, name: string): string[] {
  return (headers.get(name) ?? '').split(', ').toSorted()
}

/** Headers but those that differ from one answer to the next. */
function lasting({ headers }: Response): Record<string, string> {
  const { date: _, 'x-request-id': __, ...rest } = Object.fromEntries(headers)
  return rest
}
