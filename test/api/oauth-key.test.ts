import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { SeededStratos } from '../kit/seeded.ts'
import { isFields, listOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const nsid = 'zone.stratos.admin.rotateOauthKey'
const publicUrl = 'https://stratos.example.com'

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: {} })
})
afterAll(async () => {
  await stratos?.stop()
})

function rotate(authorization?: string) {
  return stratos.call(nsid, { authorization, verb: 'POST' })
}

async function document(path: string): Promise<Record<string, unknown>> {
  const response = await fetch(`${stratos.url}${path}`)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('application/json')
  const body: unknown = await response.json()
  return isFields(body) ? body : {}
}

async function published(): Promise<Record<string, unknown>[]> {
  return listOf(await document('/.well-known/jwks.json'), 'keys')
}

describe('on loopback', () => {
  test('the client has no keys', async () => {
    expect(await published()).toEqual([])
    const metadata = await document('/client-metadata.json')
    expect(metadata).toMatchObject({ token_endpoint_auth_method: 'none' })
    expect(metadata).not.toHaveProperty('jwks_uri')
  })

  test('there is nothing to rotate', async () => {
    expect(await rotate(stratos.adminBasic)).toMatchObject({
      status: 400,
      body: { error: 'InvalidRequest' },
    })
  })
})

describe('with an https URL', () => {
  const env = { STRATOS_PUBLIC_URL: publicUrl, STRATOS_DEV_MODE: 'false' }

  beforeAll(async () => {
    await stratos.terminate()
    await stratos.run({ ...env, STRATOS_OAUTH_POLICY_URI: 'https://example.com/privacy' })
  })

  test('the client says where its keys are, and has public ones there', async () => {
    expect(await document('/client-metadata.json')).toMatchObject({
      client_id: `${publicUrl}/client-metadata.json`,
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks_uri: `${publicUrl}/.well-known/jwks.json`,
      redirect_uris: [`${publicUrl}/oauth/callback`],
      policy_uri: 'https://example.com/privacy',
    })
    const response = await fetch(`${stratos.url}/.well-known/jwks.json`)
    expect(response.headers.get('cache-control')).toBe('no-cache')
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    const members = ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']
    const keys = await published()
    expect(keys).toHaveLength(2)
    for (const key of keys) expect(Object.keys(key).toSorted()).toEqual(members)
  })

  test.each([
    ['nobody', () => undefined, 401, 'AuthMissing'],
    ['somebody with a wrong password', () => 'Basic YWRtaW46d3JvbmctcGFzc3dvcmQ=', 401, undefined],
  ])('%s cannot rotate', async (_, credentials, status, error) => {
    const before = await published()
    const answer = await rotate(credentials())
    expect(answer.status).toBe(status)
    if (error !== undefined) expect(answer.body).toMatchObject({ error })
    expect(await published()).toEqual(before)
  })

  test('a rotation takes effect at once, and outlives the process', async () => {
    const [used, next] = await published()
    const answer = await rotate(stratos.adminBasic)
    expect(answer).toMatchObject({ status: 200, body: { kid: next?.['kid'] } })
    const after = await published()
    expect(after).toMatchObject([{ kid: next?.['kid'] }, {}, { kid: used?.['kid'] }])
    await stratos.terminate()
    await stratos.run(env)
    expect(await published()).toEqual(after)
  })

  test('metadata that are hosted elsewhere are shown here for the copy', async () => {
    await stratos.terminate()
    // Nobody answers there, which hinders no start.
    const clientId = 'https://127-0-0-1.example.invalid/client.json'
    await stratos.run({ ...env, STRATOS_OAUTH_CLIENT_ID: clientId })
    expect(await document('/client-metadata.json')).toMatchObject({
      client_id: clientId,
      redirect_uris: [`${publicUrl}/oauth/callback`],
      jwks_uri: `${publicUrl}/.well-known/jwks.json`,
    })
  })
})

test('an operator who is one by the development bearer of a person is none', async () => {
  await stratos.terminate()
  await stratos.run()
  const answer = await rotate(stratos.person('stranger').bearer)
  expect(answer).toMatchObject({ status: 403, body: { error: 'Forbidden' } })
})
