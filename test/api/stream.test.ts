import { Secp256k1Keypair } from '@atproto/crypto'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { sendRaw } from '../kit/raw.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { basic, type Person, SeededStratos } from '../kit/seeded.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken, type TokenOptions } from '../kit/token.ts'
import type { Answer, Call } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const nsid = 'zone.stratos.sync.subscribeRecords'
const secret = `sync-secret-${'x'.repeat(32)}`
const now = Math.floor(Date.now() / 1000)
const invalid: Refusal = [401, 'InvalidToken']
const forbidden: Refusal = [403, 'Forbidden']
/** Whoever may pass comes this far. */
const passed: Refusal = [426, 'UpgradeRequired']

let stratos: SeededStratos
let alice: Person
const appViews: Person[] = []

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'], tom: ['a'] } })
  alice = stratos.person('alice')
  await setTakedown(stratos, repoSubject(stratos.person('tom').did), { applied: true })
  for (const handle of ['of all', 'of a']) {
    const key = await Secp256k1Keypair.create()
    const did = stratos.directory.add({ didKey: key.did() })
    appViews.push({ did, handle, key, bearer: `Bearer ${did}` })
  }
  const [ofAll = '', ofA = ''] = appViews.map(({ did }) => did)
  await stratos.terminate()
  await stratos.run({
    STRATOS_SYNC_TOKEN: secret,
    STRATOS_ALLOWED_APPVIEWS: `${ofAll},${ofA}=a`,
    LOG_LEVEL: 'debug',
  })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('syncToken is refused', () => {
  const tokens: Record<string, [() => Promise<string> | string, Refusal]> = {
    'when it is empty': [() => '', invalid],
    'when it is another secret': [() => `${secret}x`, invalid],
    'when it is the operator’s password': [() => stratos.adminPassword, invalid],
    'when it is a DID': [() => alice.did, invalid],
    'for another method': [() => token(alice, { lxm: 'zone.stratos.sync.getRepo' }), invalid],
    'for another service': [() => token(alice, { aud: 'did:web:other.example' }), invalid],
    'without a jti': [() => token(alice, { jti: undefined }), invalid],
    'without iat': [() => token(alice, { iat: undefined }), invalid],
    'older than two minutes': [() => token(alice, { iat: now - 150 }), [401, 'ExpiredToken']],
    'when it is expired': [() => token(alice, { exp: now - 1 }), [401, 'ExpiredToken']],
    'when another key signed it': [
      () => token(alice, {}, { sign: (bytes) => stratos.person('bob').key.sign(bytes) }),
      invalid,
    ],
  }
  test.each(Object.entries(tokens))('%s', async (_, [make, refusal]) => {
    const params = { did: alice.did, syncToken: await make() }
    expectRefusal(await subscribe({ params }), refusal)
  })

  test('the second time', async () => {
    const params = { did: alice.did, syncToken: await token(alice) }
    expectRefusal(await subscribe({ params }), passed)
    expectRefusal(await subscribe({ params }), invalid)
  })

  test('beside any credential in a header, and used up by none of that', async () => {
    const syncToken = await token(alice)
    const params = { did: alice.did, syncToken }
    for (const headers of [
      { authorization: alice.bearer },
      { authorization: '' },
      { authorization: `Bearer ${secret}` },
      { dpop: 'x' },
    ]) {
      expectRefusal(await subscribe({ params, headers }), [400, 'InvalidRequest'])
    }
    expectRefusal(await subscribe({ params }), passed)
  })

  test('when there are two', async () => {
    const params = { did: alice.did, syncToken: [secret, secret] }
    expectRefusal(await subscribe({ params }), [400, 'InvalidRequest'])
  })

  test('by every other method, which does not know it', async () => {
    const query = { did: alice.did, syncToken: secret }
    const answer = await stratos.call('zone.stratos.sync.getRepo', { params: query })
    expectRefusal(answer, [401, 'AuthMissing'])
  })
})

describe('the stream is refused', () => {
  test('without a credential, and to a cookie', async () => {
    const params = { did: alice.did }
    expectRefusal(await subscribe({ params }), [401, 'AuthMissing'])
    const headers = { cookie: `stratos-session=${'x'.repeat(43)}`, origin: stratos.url }
    expectRefusal(await subscribe({ params, headers }), [401, 'AuthMissing'])
  })

  test('before any upgrade', async () => {
    const upgrade = (query: string) =>
      sendRaw(
        stratos.port,
        [
          `GET /xrpc/${nsid}?${query} HTTP/1.1`,
          `Host: localhost:${stratos.port}`,
          'Connection: Upgrade, close',
          'Upgrade: websocket',
          'Sec-WebSocket-Version: 13',
          'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
          '\r\n',
        ].join('\r\n'),
      )
    expect(await upgrade(`did=${alice.did}`)).toStartWith('HTTP/1.1 401 ')
    expect(await upgrade(`did=${alice.did}&syncToken=x`)).toStartWith('HTTP/1.1 401 ')
    expect(await upgrade(`syncToken=${await token(alice)}`)).toStartWith('HTTP/1.1 403 ')
    expect(await upgrade(`did=x&syncToken=${secret}`)).toStartWith('HTTP/1.1 400 ')
  })

  test('for a repo to anybody but its owner', async () => {
    const call = { params: { did: alice.did }, authorization: stratos.person('bob').bearer }
    expectRefusal(await subscribe(call), forbidden)
    const params = { did: alice.did, syncToken: await token(stratos.person('bob')) }
    expectRefusal(await subscribe({ params }), forbidden)
  })

  test('of the whole service to people and to the operator', async () => {
    for (const authorization of [alice.bearer, stratos.adminBasic]) {
      expectRefusal(await subscribe({ authorization }), forbidden)
      expectRefusal(await subscribe({ authorization, params: { commits: true } }), forbidden)
    }
  })

  test('for a repo that is not here', async () => {
    const { did } = stratos.person('stranger')
    const missing: Refusal = [404, 'RepoNotFound']
    for (const authorization of [stratos.person('stranger').bearer, `Bearer ${secret}`]) {
      expectRefusal(await subscribe({ params: { did }, authorization }), missing)
    }
    const { did: taken, bearer } = stratos.person('tom')
    const call = { params: { did: taken }, authorization: `Bearer ${secret}` }
    expectRefusal(await subscribe(call), missing)
    const own = { params: { did: taken }, authorization: bearer }
    expectRefusal(await subscribe(own), [403, 'RepoTakendown'])
  })

  test.each<[string, Readonly<Record<string, string | readonly string[]>>]>([
    ['did', { did: 'alice' }],
    ['cursor', { cursor: '-1' }],
    ['cursor', { cursor: '1.5' }],
    ['commits', { commits: 'yes' }],
    ['domain', { domain: 'x'.repeat(254) }],
  ])('with a bad %s: %p', async (_, params) => {
    const authorization = `Bearer ${secret}`
    expectRefusal(await subscribe({ params, authorization }), [400, 'InvalidRequest'])
  })

  test('by POST, and to the wrong operator', async () => {
    const posted = await stratos.call(nsid, { input: {}, authorization: `Bearer ${secret}` })
    expectRefusal(posted, [405, 'MethodNotAllowed'])
    const authorization = basic('admin', 'wrong')
    expectRefusal(await subscribe({ params: { did: alice.did }, authorization }), invalid)
    const bearer = `Bearer ${stratos.adminPassword}`
    const call = { params: { did: alice.did }, authorization: bearer }
    expectRefusal(await subscribe(call), invalid)
  })
})

describe('the secret', () => {
  test('opens no other method', async () => {
    const authorization = `Bearer ${secret}`
    const params = { did: alice.did }
    const repo = await stratos.call('zone.stratos.sync.getRepo', { params, authorization })
    expectRefusal(repo, invalid)
    const domains = await stratos.call('zone.stratos.server.listDomains', { authorization })
    expectRefusal(domains, invalid)
    const admin = { input: { did: alice.did, boundaries: [] }, authorization }
    expectRefusal(await stratos.call('zone.stratos.admin.setBoundaries', admin), invalid)
  })

  test('is nothing where none is set', async () => {
    await using plain = await SeededStratos.start({ people: { alice: ['a'] } })
    for (const syncToken of ['', secret]) {
      expectRefusal(await plain.call(nsid, { params: { syncToken } }), invalid)
    }
    expectRefusal(await plain.call(nsid, { authorization: 'Bearer' }), invalid)
    expectRefusal(await plain.call(nsid, { authorization: `Bearer ${secret}` }), invalid)
  })
})

describe('the stream opens', () => {
  test('to the secret, in the query and as a bearer, as often as it comes', async () => {
    for (const params of [{}, { commits: true }, { did: alice.did }]) {
      expectRefusal(await subscribe({ params: { ...params, syncToken: secret } }), passed)
      expectRefusal(await subscribe({ params, authorization: `Bearer ${secret}` }), passed)
    }
  })

  test('to AppViews by a token of theirs', async () => {
    for (const appView of appViews) {
      for (const params of [{}, { did: alice.did }]) {
        const syncToken = await token(appView)
        expectRefusal(await subscribe({ params: { ...params, syncToken } }), passed)
        const authorization = `Bearer ${await token(appView)}`
        expectRefusal(await subscribe({ params, authorization }), passed)
      }
    }
  })

  test('to the owner of a repo and the operator', async () => {
    const params = { did: alice.did }
    const byToken = `Bearer ${await token(alice, { jti: undefined })}`
    for (const authorization of [alice.bearer, stratos.adminBasic, byToken, byToken]) {
      expectRefusal(await subscribe({ params, authorization }), passed)
    }
  })
})

test('what stood in a query is in no log', async () => {
  const syncToken = await token(alice)
  await subscribe({ params: { did: alice.did, syncToken } })
  for (const text of [secret, syncToken, 'syncToken']) expect(stratos.log).not.toContain(text)
  expect(stratos.log).toContain(nsid)
})

function subscribe(call: Call): Promise<Answer> {
  return stratos.call(nsid, call)
}

/** One that opens the stream, unless it is told otherwise. */
function token(
  person: Person,
  claims: Readonly<Record<string, unknown>> = {},
  options: TokenOptions = {},
): Promise<string> {
  const made = { jti: crypto.randomUUID(), ...claims }
  return serviceToken(person, { aud: stratos.did, lxm: nsid }, { ...options, claims: made })
}
