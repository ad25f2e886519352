import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { SessionTokens } from '../../src/api/session-token.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { SessionSecrets } from '../../src/service/session-secrets.ts'
import { ServiceStore } from '../../src/store/service.ts'
import { SessionSecretStore } from '../../src/store/session-secret.ts'
import { sessionDigest, sessionMs, Sessions } from '../../src/store/session.ts'
import type { Sql } from '../../src/store/sql.ts'
import { enrollmentOf, serviceSql } from '../kit/service-store.ts'
import { failureOf } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const serviceDid = parseDid('did:web:stratos.test')
const alice = parseDid('did:plc:alicealicealicealicealic')
const bob = parseDid('did:plc:bobbobbobbobbobbobbobbob')
const start = Date.UTC(2026, 10, 23)
const startSeconds = start / 1000
const lifetimeSeconds = sessionMs / 1000
const invalid = { status: 401, error: 'InvalidToken' }
const expired = { status: 401, error: 'ExpiredToken' }

type Fields = Readonly<Record<string, unknown>>

let sql: Sql
let nowMs: number
let sessions: Sessions
let secrets: SessionSecrets
let tokens: SessionTokens
let token: string

beforeEach(async () => {
  nowMs = start
  sql = await serviceSql(folder)
  const store = new ServiceStore(sql)
  for (const did of [alice, bob]) await store.enroll(enrollmentOf(did), '{}')
  sessions = new Sessions(sql)
  secrets = await openSecrets()
  tokens = openTokens()
  token = (await tokens.issue(alice)).token
})
afterEach(async () => {
  await sql.close()
})

const headers: Record<string, Fields> = {
  'of alg none': { alg: 'none' },
  'of no alg': { alg: undefined },
  'of alg HS512': { alg: 'HS512' },
  'of alg HS256 in other letters': { alg: 'hs256' },
  'of alg ES256': { alg: 'ES256' },
  'of type JWT': { typ: 'JWT' },
  'of no type': { typ: undefined },
  'of the type in other letters': { typ: 'STRATOS+JWT' },
  'of the type in its long form': { typ: 'application/stratos+jwt' },
  'with a kid that was not given out': { kid: 'x'.repeat(12) },
  'with an empty kid': { kid: '' },
  'without a kid': { kid: undefined },
  'with a kid that is no text': { kid: 1 },
  'with an extension that counts': { crit: ['b64'], b64: true },
}

const claims: Record<string, Fields> = {
  'of another service': { iss: 'did:web:other.test' },
  'of no service': { iss: undefined },
  'for another service': { aud: 'did:web:other.test' },
  'for several services': { aud: [serviceDid] },
  'for a fragment of the service': { aud: `${serviceDid}#atproto_pns` },
  'for no service': { aud: undefined },
  'of somebody else': { sub: bob },
  'of nobody': { sub: undefined },
  'of what is no DID': { sub: 'alice' },
  'without a session': { sid: undefined },
  'with an empty session': { sid: '' },
  'with a session that was never begun': { sid: randomBytes(16).toString('base64url') },
  'with the hash of its session': { sid: 'hash' },
  'from the future': { iat: startSeconds + 31, exp: startSeconds + 31 + lifetimeSeconds },
  'that was never made': { iat: undefined },
  'that never ends': { exp: undefined },
  'that ends later': { exp: startSeconds + lifetimeSeconds + 1 },
  'that ends sooner than its session': { exp: startSeconds + lifetimeSeconds - 1 },
  'that began sooner': { iat: startSeconds - 1 },
  'whose times are texts': { exp: String(startSeconds + lifetimeSeconds) },
  'whose times have fractions': { exp: startSeconds + lifetimeSeconds - 0.5 },
}

describe('even under the right secret, a token is refused', () => {
  test.each(Object.entries(headers))('%s', async (_, header) => {
    expect(await refusalOf(changed({ header }))).toMatchObject(invalid)
  })

  test.each(Object.entries(claims))('%s', async (_, given) => {
    const { sid } = parts(token).claims
    const hashed = given['sid'] === 'hash' ? { sid: sessionDigest(String(sid)) } : given
    expect(await refusalOf(changed({ claims: hashed }))).toMatchObject(invalid)
  })

  test('whose session is another’s of the same person', async () => {
    const other = (await tokens.issue(bob)).token
    const { sid } = parts(other).claims
    expect(await refusalOf(changed({ claims: { sid } }))).toMatchObject(invalid)
  })

  test.each([
    ['in its header', '"typ":"stratos+jwt",', ''],
    ['in its claims', '', `"sub":"${alice}",`],
  ])('that says one thing twice %s', async (_, inHeader, inClaims) => {
    const [head = '', body = ''] = token.split('.').map(decode)
    const twice = [head.replace('{', `{${inHeader}`), body.replace('{', `{${inClaims}`)]
    expect(await refusalOf(signedWith(twice, hs256(secrets.current.secret)))).toMatchObject(invalid)
  })
})

describe('a token is refused', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signers: Record<string, () => (signed: string) => Uint8Array> = {
    'by another secret': () => hs256(randomBytes(32)),
    'by an empty secret': () => hs256(new Uint8Array()),
    'by a secret of zeros': () => hs256(new Uint8Array(32)),
    'by the kid': () => hs256(Buffer.from(secrets.current.kid)),
    'by the service’s name': () => hs256(Buffer.from(serviceDid)),
    'with half of a signature': () => (signed) =>
      hs256(secrets.current.secret)(signed).slice(0, 16),
    'with a longer signature': () => (signed) =>
      Buffer.concat([hs256(secrets.current.secret)(signed), new Uint8Array(1)]),
    'without a signature': () => () => new Uint8Array(),
    'with a signature of another kind': () => (signed) =>
      sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }),
  }

  test.each(Object.entries(signers))('%s', async (_, signer) => {
    const texts = token.split('.').slice(0, 2).map(decode)
    expect(await refusalOf(signedWith(texts, signer()))).toMatchObject(invalid)
  })

  test.each<[string, (token: string) => string]>([
    ['that is empty', () => ''],
    ['that is two dots', () => '..'],
    ['without its last character', (text) => text.slice(0, -1)],
    ['without its first character', (text) => text.slice(1)],
    ['without its signature', (text) => text.slice(0, text.lastIndexOf('.') + 1)],
    ['with a fourth part', (text) => `${text}.`],
    ['with padding', (text) => `${text}=`],
    ['with a space', (text) => `${text} `],
    ['in other letters', (text) => text.toUpperCase()],
    ['in the other Base64', (text) => Buffer.from(text, 'base64url').toString('base64')],
    ['that is far too long', (text) => text.replace('.', `${'A'.repeat(8192)}.`)],
  ])('%s', async (_, change) => {
    expect(await refusalOf(change(token))).toMatchObject(invalid)
  })

  test('of which any one character is another', async () => {
    for (let at = 0; at < token.length; at++) {
      const other = token[at] === 'A' ? 'B' : 'A'
      const altered = token.slice(0, at) + other + token.slice(at + 1)
      expect(await refusalOf(altered)).toMatchObject(invalid)
    }
  })

  test('that another service made, under its own secret and for itself', async () => {
    const elsewhere = await serviceSql(folder)
    await new ServiceStore(elsewhere).enroll(enrollmentOf(alice), '{}')
    const foreign = new SessionTokens({
      serviceDid,
      secrets: await openSecrets(elsewhere),
      sessions: new Sessions(elsewhere),
      now: () => nowMs,
    })
    expect(await refusalOf((await foreign.issue(alice)).token)).toMatchObject(invalid)
    await elsewhere.close()
  })
})

// Each time by the process that has seen the token, and by one that has not.
describe.each(['a token that was used before', 'a token seen for the first time'])(
  '%s',
  (which) => {
    beforeEach(async () => {
      if (which.endsWith('before')) await tokens.verify(token)
    })

    test('counts until it expires', async () => {
      nowMs = start + sessionMs - 1
      expect(await tokens.verify(token)).toMatchObject({ did: alice })
      nowMs = start + sessionMs
      expect(await refusalOf(token)).toMatchObject(expired)
    })

    test('does not count by a clock that went far back', async () => {
      nowMs = start - 30_000
      expect(await tokens.verify(token)).toMatchObject({ did: alice })
      nowMs -= 1_000
      expect(await refusalOf(token)).toMatchObject(invalid)
    })

    test('ends with its session, and no other does', async () => {
      const other = (await tokens.issue(alice)).token
      await sessions.drop((await tokens.verify(token)).digest)
      expect(await refusalOf(token)).toMatchObject(invalid)
      expect(await tokens.verify(other)).toMatchObject({ did: alice })
    })

    test('ends with whatever takes its row away', async () => {
      await sql.run([{ sql: 'delete from session where did = $1', args: [alice] }])
      expect(await refusalOf(token)).toMatchObject(invalid)
    })

    test('counts after a rotation, until it expires', async () => {
      await secrets.rotate()
      const next = (await tokens.issue(alice)).token
      expect(parts(next).header['kid']).not.toBe(parts(token).header['kid'])
      nowMs = start + sessionMs - 1
      for (const one of [token, next])
        expect(await tokens.verify(one)).toMatchObject({ did: alice })
      nowMs = start + sessionMs
      expect(await refusalOf(token)).toMatchObject({ status: 401 })
    })

    test('does not count without the secret that signed it', async () => {
      await secrets.rotate()
      const { kid } = parts(token).header
      await sql.run([{ sql: 'delete from session_secret where kid = $1', args: [String(kid)] }])
      // A rotation looks at what the store has.
      await secrets.rotate()
      expect(await refusalOf(token)).toMatchObject(invalid)
    })

    test('counts after a restart, and not when it was ended before', async () => {
      const ended = (await tokens.issue(alice)).token
      await sessions.drop((await tokens.verify(ended)).digest)
      secrets = await openSecrets()
      tokens = openTokens()
      expect(await tokens.verify(token)).toMatchObject({ did: alice })
      expect(await refusalOf(ended)).toMatchObject(invalid)
    })
  },
)

test('nobody who is not enrolled gets a token', async () => {
  const stranger = parseDid('did:plc:strangerstrangerstranger')
  expect(await failureOf(tokens.issue(stranger))).toMatchObject({
    status: 403,
    error: 'NotEnrolled',
  })
})

test('a token says what it has to, and nothing else', async () => {
  nowMs = start + 999
  const issued = await tokens.issue(alice)
  const { header, claims: said } = parts(issued.token)
  expect(header).toEqual({ typ: 'stratos+jwt', alg: 'HS256', kid: secrets.current.kid })
  expect(said).toEqual({
    iss: serviceDid,
    aud: serviceDid,
    sub: alice,
    sid: expect.stringMatching(/^[\w-]{22}$/),
    iat: startSeconds,
    exp: startSeconds + lifetimeSeconds,
  })
  expect(issued.expiresAtMs).toBe(start + sessionMs)
  expect(await tokens.verify(issued.token)).toEqual({
    digest: sessionDigest(String(said['sid'])),
    did: alice,
    expiresAtMs: start + sessionMs,
  })
})

test('no refusal repeats the token or a part of it', async () => {
  const [head = '', body = '', mac = ''] = token.split('.')
  for (const change of [
    { claims: { exp: 1 } },
    { claims: { aud: 'x' } },
    { header: { alg: 'x' } },
  ]) {
    const failure = await refusalOf(changed(change))
    const text = failure instanceof Error ? failure.message : ''
    expect(text).not.toBeEmpty()
    for (const part of [head, body, mac, alice]) expect(text).not.toContain(part)
  }
})

function openSecrets(over: Sql = sql): Promise<SessionSecrets> {
  const store = new SessionSecretStore(over)
  return SessionSecrets.open({ store, now: () => nowMs, log: createLog('error', () => undefined) })
}

function openTokens(): SessionTokens {
  return new SessionTokens({ serviceDid, secrets, sessions, now: () => nowMs })
}

function refusalOf(text: string): Promise<unknown> {
  return failureOf(tokens.verify(text))
}

/** Alice's token with other members, under the right secret; an undefined one is left out. */
function changed(change: { readonly header?: Fields; readonly claims?: Fields }): string {
  const { header, claims: said } = parts(token)
  const texts = [
    { ...header, ...change.header },
    { ...said, ...change.claims },
  ].map((part) => JSON.stringify(part))
  return signedWith(texts, hs256(secrets.current.secret))
}

function signedWith(texts: readonly string[], signer: (signed: string) => Uint8Array): string {
  const signed = texts.map((text) => Buffer.from(text).toString('base64url')).join('.')
  return `${signed}.${Buffer.from(signer(signed)).toString('base64url')}`
}

function hs256(secret: Uint8Array) {
  return (signed: string) => createHmac('sha256', secret).update(signed).digest()
}

function decode(part: string): string {
  return Buffer.from(part, 'base64url').toString('utf8')
}

function parts(text: string): { readonly header: Fields; readonly claims: Fields } {
  const [header = '', said = ''] = text.split('.').map(decode)
  return { header: JSON.parse(header), claims: JSON.parse(said) }
}
