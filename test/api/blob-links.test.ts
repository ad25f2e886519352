import { createHmac, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { sharedSecret } from '../../src/store/secret.ts'
import { exactText } from '../kit/exact.ts'
import { sendRaw } from '../kit/raw.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { textOf } from '../kit/xrpc.ts'
import { getUrl, Linking, type Shown, statusOf } from './blob-linking.ts'

setDefaultTimeout(60_000)

const enc = encodeURIComponent

let linking: Linking
let secret: Uint8Array
let shown: Shown
let other: Shown
beforeAll(async () => {
  linking = await Linking.start()
  const env = { STRATOS_ALLOWED_APPVIEWS: `${linking.did('view')}=a` }
  secret = await whileStopped(linking.stratos, (sql) => sharedSecret(sql, 'blob links'), env)
  shown = await linking.show('alice', ['a'])
  other = await linking.show('alice', ['a'])
})
afterAll(async () => {
  await linking?.[Symbol.asyncDispose]()
})

test('a link shows a blob to whoever has it, for five minutes', async () => {
  const before = Date.now()
  const { status, body } = await linking.stratos.callAs('bob', getUrl, {
    params: linking.params(shown),
  })
  expect([status, Object.keys(body).toSorted()]).toEqual([200, ['expiresAt', 'url']])
  const leftMs = Date.parse(textOf(body, 'expiresAt')) - before
  expect(leftMs).toBeWithin(299_000, 360_000)
  const answer = await fetch(textOf(body, 'url'))
  expect(await answer.bytes()).toEqual(shown.bytes)
  expect(Object.fromEntries(answer.headers)).toMatchObject({
    'cache-control': 'private, no-cache',
    'content-security-policy': "default-src 'none'; sandbox",
    'content-type': 'image/png',
    'cross-origin-resource-policy': 'cross-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    etag: `"${shown.cid}"`,
  })
  const url = textOf(body, 'url')
  const part = await fetch(url, { headers: { range: 'bytes=0-3' } })
  expect([part.status, await part.bytes()]).toEqual([206, shown.bytes.subarray(0, 4)])
  expect((await fetch(url, { headers: { 'if-none-match': '*' } })).status).toBe(304)
  expect((await fetch(url, { headers: { range: 'bytes=9999-' } })).status).toBe(416)
  const head = await fetch(url, { method: 'HEAD' })
  expect(head.headers.get('content-length')).toBe(String(shown.bytes.length))
  expect(await head.text()).toBe('')
  for (const method of ['POST', 'PUT', 'DELETE']) {
    expect([method, (await fetch(url, { method })).status]).toEqual([method, 404])
  }
})

describe('a link is none', () => {
  const set = (name: string, change: (value: string) => string) => (url: URL) =>
    url.searchParams.set(name, change(url.searchParams.get(name) ?? ''))
  const path = (change: (path: string) => string) => (url: URL) => {
    url.pathname = change(url.pathname)
  }
  const drop = (name: string) => (url: URL) => url.searchParams.delete(name)
  const did = (name: string) => linking.did(name)

  test.each<[string, (url: URL) => void]>([
    ['without its signature', drop('signature')],
    ['without its viewer', drop('viewer')],
    ['without its kind', drop('kind')],
    ['without its time', drop('expires')],
    ['without a query', (url) => (url.search = '')],
    ['with an empty signature', set('signature', () => '')],
    ['with a signature of zeros', set('signature', () => 'A'.repeat(43))],
    ['with a cut signature', set('signature', (text) => text.slice(0, -1))],
    ['with a longer signature', set('signature', (text) => `${text}A`)],
    ['with a padded signature', set('signature', (text) => `${text}=`)],
    ['with other letters for the signature', set('signature', sameBytes)],
    ['with spaces around the signature', set('signature', (text) => ` ${text} `)],
    ['with another beginning of the signature', set('signature', otherBeginning)],
    ['with a signature in hex', set('signature', inHex)],
    ['of another viewer', set('viewer', () => did('alice'))],
    ['of somebody in another boundary', set('viewer', () => did('carol'))],
    ['of no DID', set('viewer', () => 'bob.test')],
    ['of an AppView', set('kind', () => 'service')],
    ['of the operator', set('kind', () => 'admin')],
    ['of a kind in capitals', set('kind', (text) => text.toUpperCase())],
    ['that lasts longer', set('expires', (text) => String(Number(text) + 1))],
    ['that lasts for ever', set('expires', () => 'Infinity')],
    ['that ended at the beginning', set('expires', () => '0')],
    ['with a time in another form', set('expires', (text) => `${text}.0`)],
    ['with a time after a zero', set('expires', (text) => `0${text}`)],
    ['with a time in hex', set('expires', (text) => `0x${Number(text).toString(16)}`)],
    ['with a time between spaces', set('expires', (text) => ` ${text}`)],
    ['with a time that is none', set('expires', () => 'NaN')],
    ['of another blob', path((text) => text.replace(shown.cid, other.cid))],
    ['of a blob in capitals', path((text) => text.replace(shown.cid, shown.cid.toUpperCase()))],
    ['of somebody else', path((text) => text.replace(enc(did('alice')), enc(did('bob'))))],
    ['of a DID that is encoded twice', path((text) => text.replaceAll('%3A', '%253A'))],
    ['of a longer path', path((text) => `${text}/x`)],
    ['with a slash at its end', path((text) => `${text}/`)],
    ['with a dot at its end', path((text) => `${text}%2e`)],
    ['with a zero byte at its end', path((text) => `${text}%00`)],
    ['with a detour', path((text) => text.replace('/blob/', '/blob/x%2f..%2f'))],
    [
      'with another viewer before its own',
      (url) => (url.search = `?viewer=${enc(did('alice'))}&${url.search.slice(1)}`),
    ],
  ])('%s', async (_, change) => {
    const url = new URL(await linking.link('bob', shown))
    expect(await statusOf(url)).toBe(200)
    change(url)
    const answer = await fetch(url)
    expect(answer.status).toBe(404)
    // What is no path of a link is answered like any other address.
    if (url.pathname.split('/').length !== 4) return
    expect(await exactText(answer)).toBe(await exactText(await fetch(linking.never(shown))))
  })

  test('with the signature of another one', async () => {
    const own = new URL(await linking.link('bob', shown))
    for (const made of [await linking.link('bob', other), await linking.link('alice', shown)]) {
      own.searchParams.set('signature', new URL(made).searchParams.get('signature') ?? '')
      expect(await statusOf(own)).toBe(404)
    }
  })

  const facts = () => ({
    did: did('alice'),
    cid: shown.cid,
    kind: 'user',
    viewer: did('bob'),
    expires: Date.now() + 60_000,
  })
  test.each<[string, number, () => object]>([
    ['as it would be made', 200, () => ({})],
    ['that has just ended', 404, () => ({ expires: Date.now() - 1 })],
    ['of long ago', 404, () => ({ expires: 1 })],
    ['of before 1970', 404, () => ({ expires: -1 })],
    ['of a time between two', 404, () => ({ expires: Date.now() + 60_000.5 })],
    ['of somebody who is enrolled nowhere', 404, () => ({ viewer: did('stranger') })],
    ['of somebody in another boundary', 404, () => ({ viewer: did('carol') })],
    ['of the operator', 404, () => ({ kind: 'admin' })],
    ['of nobody', 404, () => ({ kind: 'anonymous' })],
    ['of the moderation service', 404, () => ({ kind: 'moderator' })],
    ['of a person as an AppView', 404, () => ({ kind: 'service' })],
    ['of an AppView as a person', 404, () => ({ viewer: did('view') })],
    ['of an AppView', 200, () => ({ viewer: did('view'), kind: 'service' })],
    ['of a blob that never was', 404, () => ({ cid: other.cid.replace(/.{6}$/, 'aaaaaa') })],
  ])('with our own secret, %s: %i', async (_, status, over) => {
    expect(await statusOf(signed({ ...facts(), ...over() }, secret))).toBe(status)
    expect(await statusOf(signed({ ...facts(), ...over() }, randomBytes(32)))).toBe(404)
  })
})

describe('a path that is odd leads nowhere', () => {
  test.each([
    '/blob',
    '/blob/',
    '/blob//',
    '/blob//x',
    '/blob/x//y',
    '/blob/../../signing_key',
    '/blob/%2e%2e/%2e%2e',
    '/blob/%2e%2e%2f%2e%2e/signing_key',
    '/blob/..%5c..%5c/signing_key',
    '/blob/%00/%00',
    '/blob/did%3Aplc%3Ax%00/x',
    '/blob/%E0%A4%A/x',
    '/blob/%/%',
    '/blob/%25%32%65/%25',
    '/blob/temp/x',
    '/blob/quarantine/x',
    '/BLOB/a/b',
    `/blob/${'x'.repeat(8_000)}/y`,
    `/blob/did:plc:${'%61'.repeat(2_000)}/y`,
    `/blob/a/b?${'signature=x&'.repeat(600)}`,
    '/blob/a/b?%00=%00&signature=%E0%A4%A',
    '/blob/a/b?signature[]=x&signature[__proto__]=y',
  ])('%p', async (path) => {
    for (const verb of ['GET', 'HEAD']) {
      const head = `${verb} ${path} HTTP/1.1\r\nHost: localhost:${linking.stratos.port}\r\n`
      const answer = await sendRaw(linking.stratos.port, `${head}Connection: close\r\n\r\n`)
      expect(answer).toStartWith('HTTP/1.1 404 ')
      expect(answer.toLowerCase()).toContain('\r\ncache-control: no-store\r\n')
    }
  })
})

test('nothing that opens a link is in the log', () => {
  const { log } = linking
  expect(log).toContain(`"path":"/blob/`)
  expect(log).toContain(shown.cid)
  for (const secretive of ['signature', 'viewer=', 'expires=', '?']) {
    expect([secretive, log.includes(secretive)]).toEqual([secretive, false])
  }
})

interface Facts {
  readonly did: string
  readonly cid: string
  readonly kind: string
  readonly viewer: string
  readonly expires: number
}

/** A link as somebody would make it who has read the database. */
function signed({ did, cid, kind, viewer, expires }: Facts, key: Uint8Array): URL {
  const url = new URL(`/blob/${enc(did)}/${cid}`, linking.stratos.url)
  const said = JSON.stringify([did, cid, kind, viewer, expires])
  const signature = createHmac('sha256', key).update(said).digest('base64url')
  const query = { kind, viewer, expires: String(expires), signature }
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  return url
}

/** Of the last character two bits say nothing. */
function sameBytes(signature: string): string {
  const bytes = Buffer.from(signature, 'base64url')
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const found = Array.from(letters)
    .map((letter) => signature.slice(0, -1) + letter)
    .find((text) => text !== signature && Buffer.from(text, 'base64url').equals(bytes))
  if (found === undefined) throw new Error('there is no other form')
  return found
}

function otherBeginning(signature: string): string {
  return (signature.startsWith('A') ? 'B' : 'A') + signature.slice(1)
}

function inHex(signature: string): string {
  return Buffer.from(signature, 'base64url').toString('hex')
}
