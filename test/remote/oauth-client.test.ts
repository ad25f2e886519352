import { describe, expect, test } from 'bun:test'
import { parseNsid } from '../../src/atproto/syntax.ts'
import { clientMetadataOf, missingScopes, scopeFor } from '../../src/remote/oauth-client.ts'

const scope = scopeFor(['zone.stratos.actor.enrollment', 'zone.stratos.feed.post'].map(parseNsid))

test('the scope names sign-in, the enrollment record and each private collection', () => {
  const expected = 'atproto repo:zone.stratos.actor.enrollment repo:zone.stratos.feed.post'
  expect(scope).toBe(expected)
})

describe('the client', () => {
  test.each(['http://stratos.example.com', 'http://192.168.1.2:3100', 'ftp://localhost'])(
    'is none at %s',
    (publicUrl) => {
      expect(() => clientMetadataOf({ publicUrl, clientName: 'Stratos', scope })).toThrow('https')
    },
  )

  const publicUrl = 'https://stratos.example.com:8443/'
  const origin = 'https://stratos.example.com:8443'

  test('on https is described at its own address, and has keys', () => {
    expect(clientMetadataOf({ publicUrl, clientName: 'Stratos', scope })).toEqual({
      client_id: `${origin}/client-metadata.json`,
      client_name: 'Stratos',
      client_uri: origin,
      redirect_uris: [`${origin}/oauth/callback`],
      application_type: 'web',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks_uri: `${origin}/.well-known/jwks.json`,
      dpop_bound_access_tokens: true,
      scope,
    })
  })

  test('shows the pages of the operator, and only those that there are', () => {
    const pages = {
      logoUri: 'https://a.example/logo.png',
      tosUri: '',
      policyUri: 'https://b.example/',
    }
    const metadata = clientMetadataOf({ publicUrl, clientName: 'Stratos', scope, ...pages })
    expect(metadata).toMatchObject({
      logo_uri: 'https://a.example/logo.png',
      policy_uri: 'https://b.example/',
    })
    expect(metadata.tos_uri).toBeUndefined()
  })

  test('that is described elsewhere still returns to, and has its keys, here', () => {
    const clientId = 'https://www.example.com/stratos/client.json'
    const metadata = clientMetadataOf({ publicUrl, clientName: 'Stratos', scope, clientId })
    expect(metadata).toMatchObject({
      client_id: clientId,
      client_uri: 'https://www.example.com',
      redirect_uris: [`${origin}/oauth/callback`],
      jwks_uri: `${origin}/.well-known/jwks.json`,
    })
  })

  test.each([
    ['http://localhost:3100', 'http://127.0.0.1:3100/oauth/callback'],
    ['http://127.0.0.1:3100', 'http://127.0.0.1:3100/oauth/callback'],
    ['http://[::1]:3100', 'http://[::1]:3100/oauth/callback'],
    ['http://localhost', 'http://127.0.0.1/oauth/callback'],
  ])('at %s carries its description in its id', (publicUrl, redirect) => {
    const metadata = clientMetadataOf({ publicUrl, clientName: 'Stratos', scope })
    expect(metadata.token_endpoint_auth_method).toBe('none')
    expect(metadata.jwks_uri).toBeUndefined()
    const id = new URL(String(metadata.client_id))
    expect(id.origin).toBe('http://localhost')
    expect(id.searchParams.get('redirect_uri')).toBe(redirect)
    expect(id.searchParams.get('scope')).toBe(scope)
    expect(metadata.redirect_uris).toEqual([expect.stringMatching(redirect)])
  })
})

describe('of the scopes asked for', () => {
  const missing: [string, string, string[]][] = [
    ['nothing was granted', '', scope.split(' ')],
    ['one was dropped', 'atproto repo:zone.stratos.actor.enrollment', ['repo:b.c.d']],
    ['one was cut to some actions', 'atproto repo:b.c.d?action=create', ['repo:b.c.d']],
    ['a prefix was granted', 'atproto repo:b.c', ['repo:b.c.d']],
    ['another kind was granted', 'atproto rpc:b.c.d blob:*/*', ['repo:b.c.d']],
  ]
  test.each(missing)('%s', (what, granted, expected) => {
    const requested = what.startsWith('nothing') ? scope : 'atproto repo:b.c.d'
    expect(missingScopes(requested, granted)).toEqual(expected)
  })

  test.each([
    'repo:b.c.d atproto',
    'atproto repo:*',
    'atproto repo:b.c.d?action=create&action=update&action=delete',
    'atproto repo?collection=a.b.c&collection=b.c.d',
    'atproto repo:a.b.c repo:b.c.d transition:generic',
  ])('none is missing in "%s"', (granted) => {
    expect(missingScopes('atproto repo:b.c.d', granted)).toEqual([])
  })
})
