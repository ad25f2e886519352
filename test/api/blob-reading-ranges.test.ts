import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { rangeOf } from '../../src/api/range.ts'
import { getBlob, uploadBlob } from '../kit/blob.ts'
import { blobHomes, type Housed, startHoused } from '../kit/blob-home.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { sendRaw } from '../kit/raw.ts'
import type { SeededStratos } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import { textOf } from '../kit/xrpc.ts'
import { Download } from './download.ts'

setDefaultTimeout(60_000)

const mebibyte = 1024 * 1024
/** What goes out in one piece, and what does not. */
const sizes = { short: 2_000, 'as long as a piece': mebibyte, long: mebibyte + 1 } as const
type Size = keyof typeof sizes

/** Every header of an answer with bytes, but for those of all answers. */
const alike = {
  'accept-ranges': 'bytes',
  'cache-control': 'private, no-cache',
  'content-security-policy': "default-src 'none'; sandbox",
  'cross-origin-resource-policy': 'cross-origin',
  'x-content-type-options': 'nosniff',
  vary: 'Authorization, DPoP, Cookie',
}

let housed: Housed | undefined
let stratos: SeededStratos
const blobs = new Map<string, { readonly cid: string; readonly bytes: Uint8Array }>()
describe.each(blobHomes)('blobs %s', (home) => {
  beforeAll(async () => {
    housed = await startHoused(home, { people: { alice: ['a'], bob: ['a'] } })
    stratos = housed.stratos
    for (const [name, size] of Object.entries(sizes)) await show(name, exactly(size))
  })
  afterAll(async () => {
    await housed?.[Symbol.asyncDispose]()
  })

  describe('a range', () => {
    const all = undefined
    test.each<[string, ReturnType<typeof rangeOf>]>([
      ['bytes=0-0', { start: 0, end: 1 }],
      ['bytes=0-', { start: 0, end: 10 }],
      ['bytes=9-', { start: 9, end: 10 }],
      ['bytes=2-5', { start: 2, end: 6 }],
      ['bytes=2-99', { start: 2, end: 10 }],
      ['bytes=2-99999999999999999999999999', { start: 2, end: 10 }],
      ['bytes=-1', { start: 9, end: 10 }],
      ['bytes=-10', { start: 0, end: 10 }],
      ['bytes=-99', { start: 0, end: 10 }],
      ['BYTES=2-5', { start: 2, end: 6 }],
      ['bytes=10-', 'unsatisfiable'],
      ['bytes=10-20', 'unsatisfiable'],
      ['bytes=99999999999999999999999999-', 'unsatisfiable'],
      ['bytes=-0', 'unsatisfiable'],
      ['bytes=5-2', all],
      ['bytes=-', all],
      ['bytes=', all],
      ['bytes', all],
      ['bytes=0-1,3-4', all],
      ['bytes=0-1,', all],
      ['bytes=0--1', all],
      ['bytes=+1-2', all],
      ['bytes=1.5-2', all],
      ['bytes=0x1-2', all],
      ['bytes=1e0-2', all],
      ['lines=0-1', all],
      ['', all],
    ])('%p of ten bytes', (range, expected) => {
      const headers = new Headers({ range })
      expect(rangeOf(headers, { size: 10, etag: '"x"' })).toEqual(expected)
    })

    test.each(['bytes=0-', 'bytes=0-0', 'bytes=-1'])('%p of nothing is none', (range) => {
      const headers = new Headers({ range })
      expect(rangeOf(headers, { size: 0, etag: '"x"' })).toBe('unsatisfiable')
    })

    test.each([
      ['"x"', true],
      ['W/"x"', false],
      ['"y"', false],
      ['x', false],
      ['*', false],
      ['', false],
      ['Wed, 21 Oct 2026 07:28:00 GMT', false],
    ])('counts where the version is still %p: %p', (version, counts) => {
      const headers = new Headers({ range: 'bytes=0-1', 'if-range': version })
      const expected = counts ? { start: 0, end: 2 } : undefined
      expect(rangeOf(headers, { size: 10, etag: '"x"' })).toEqual(expected)
    })
  })

  describe.each(Object.keys(sizes).filter(isSize))('a blob that is %s', (name) => {
    const size = sizes[name]

    test.each([
      ['bytes=0-99', 0, 100],
      ['bytes=-100', size - 100, size],
      ['bytes=1-', 1, size],
      [`bytes=1000-${size}`, 1000, size],
      ['bytes=0-', 0, size],
    ])('is read by the range %s', async (range, start, end) => {
      const response = await ask(name, { range })
      expect(await response.bytes()).toEqual(blob(name).bytes.subarray(start, end))
      expectHeaders(response, 206, name)
      expect(response.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/${size}`)
    })

    test.each([
      ['a range in no form of ours', { range: 'bytes=0-1,5-6' }],
      ['a range of another version', { range: 'bytes=0-1', 'if-range': '"other"' }],
      ['another version', { 'if-none-match': '"other"' }],
    ])('comes as a whole for %s', async (_, headers) => {
      const response = await ask(name, headers)
      expect(await response.bytes()).toEqual(blob(name).bytes)
      expectHeaders(response, 200, name)
      expect(response.headers.has('content-range')).toBeFalse()
    })

    test('comes as a range of the version that is known', async () => {
      const response = await ask(name, { range: 'bytes=0-1', 'if-range': etag(name) })
      expect(response.status).toBe(206)
      expect(await response.bytes()).toHaveLength(2)
    })

    test('has no range beyond its end', async () => {
      const response = await ask(name, { range: `bytes=${size}-` })
      expect(response.status).toBe(416)
      expect(response.headers.get('content-range')).toBe(`bytes */${size}`)
      expect(response.headers.get('cache-control')).toBe('no-store')
      expect(await response.json()).toMatchObject({ error: 'RangeNotSatisfiable' })
    })

    test.each<[string, (etag: string) => string]>([
      ['it', (known) => known],
      ['it by a weak name', (known) => `W/${known}`],
      ['it among others', (known) => `"x", ${known} ,"y"`],
      ['anything', () => '*'],
    ])('does not come to whoever has %s', async (_, known) => {
      for (const extra of [{}, { range: 'bytes=0-1' }, { range: 'bytes=99999999-' }]) {
        const response = await ask(name, { ...extra, 'if-none-match': known(etag(name)) })
        expect(await response.text()).toBe('')
        expectHeaders(response, 304, name)
      }
    })

    test('is told of by HEAD as by GET, with its length and without its bytes', async () => {
      for (const range of ['', 'bytes=0-9']) {
        const lines = range === '' ? [] : [`Range: ${range}`]
        const head = parsed(await raw(name, { verb: 'HEAD', lines }))
        const get = parsed(await raw(name, { verb: 'GET', lines }))
        expect(head.body).toBe('')
        expect(head.headers.get('content-length')).toBe(String(range === '' ? size : 10))
        for (const own of ['content-length', 'transfer-encoding', 'x-request-id', 'date']) {
          head.headers.delete(own)
          get.headers.delete(own)
        }
        expect(head.status).toBe(get.status)
        expect([...head.headers]).toEqual([...get.headers])
      }
    })

    test('says on the wire how long it is, or where it ends', async () => {
      const { headers, body } = parsed(await raw(name, { verb: 'GET', lines: [] }))
      const isLong = size > mebibyte
      expect(headers.get('content-length')).toBe(isLong ? null : String(size))
      expect(headers.get('transfer-encoding')).toBe(isLong ? 'chunked' : null)
      if (isLong) expect(body).toEndWith('\r\n0\r\n\r\n')
      else expect(body).toHaveLength(size)
    })
  })

  test('a long blob is read by several people and several times, and only so often at once', async () => {
    const size = 24 * mebibyte
    await show('film', exactly(size))
    const { did, bearer: authorization } = stratos.person('bob')
    expect(did).toBeString()
    const params = { did: stratos.person('alice').did, cid: blob('film').cid }
    const { body } = await stratos.callAs('bob', 'zone.stratos.sync.getBlobUrl', { params })
    const link = textOf(body, 'url')
    const path = `/xrpc/com.atproto.sync.getBlob?did=${params.did}&cid=${params.cid}`
    const downloads: Download[] = []
    try {
      for (let index = 0; index < 16; index++) {
        const download = new Download(stratos, { path, authorization })
        downloads.push(download)
        await download.stall()
        expect(download.status).toBe(200)
      }
      const refused = await ask('film', {}, 'bob')
      expect(refused.status).toBe(503)
      expect(refused.headers.get('retry-after')).toBeString()
      expect(await refused.json()).toMatchObject({ error: 'Overloaded' })
      // Whoever they are by a link, they are the same.
      expect((await fetch(link)).status).toBe(503)
      // Short ones, parts and what is no answer at all are beside that.
      for (const headers of [{ range: 'bytes=0-9' }, { 'if-none-match': '*' }]) {
        expect((await ask('film', headers, 'bob')).status).toBeLessThan(400)
      }
      expect((await ask('short', {}, 'bob')).status).toBe(200)
      const ofAlice = await ask('film', {})
      expect(await ofAlice.bytes()).toHaveLength(size)
    } finally {
      for (const download of downloads) download.leave()
    }
    await eventually('room', async () => {
      const response = await ask('film', {}, 'bob')
      if (response.status !== 200) return undefined
      return (await response.bytes()).length === size ? true : undefined
    })
  })
})

function isSize(name: string): name is Size {
  return Object.hasOwn(sizes, name)
}

/** So many characters, like no others. */
function exactly(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(crypto.randomUUID().padEnd(size, 'x')))
}

async function show(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const ref = await uploadBlob(stratos, 'alice', { bytes })
  // A picture of a post must not be as large as this may be.
  const record = { ...privatePost(name, [stratos.boundary('a')]), film: ref }
  const input = { repo: stratos.person('alice').did, collection: postCollection, record }
  const { status } = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
  expect(status).toBe(200)
  blobs.set(name, { cid: ref.ref.$link, bytes })
}

function blob(name: string) {
  const found = blobs.get(name)
  if (found === undefined) throw new Error(`there is no blob ${name}`)
  return found
}

function etag(name: string): string {
  return `"${blob(name).cid}"`
}

async function ask(name: string, headers: Readonly<Record<string, string>>, who = 'alice') {
  const { cid } = blob(name)
  const authorization = stratos.person(who).bearer
  return await getBlob(stratos, 'alice', { cid, authorization, headers })
}

function expectHeaders({ status, headers }: Response, expected: number, name: string): void {
  expect(status).toBe(expected)
  expect(Object.fromEntries(headers)).toMatchObject({ ...alike, etag: etag(name) })
  expect(headers.get('content-disposition')).toStartWith('attachment')
  if (expected !== 304) expect(headers.get('content-type')).toBe('image/png')
}

async function raw(
  name: string,
  { verb, lines }: { readonly verb: string; readonly lines: readonly string[] },
): Promise<string> {
  const { did, bearer } = stratos.person('alice')
  const request = [
    `${verb} /xrpc/com.atproto.sync.getBlob?did=${did}&cid=${blob(name).cid} HTTP/1.1`,
    `Host: localhost:${stratos.port}`,
    `Authorization: ${bearer}`,
    'Connection: close',
    ...lines,
  ]
  return await sendRaw(stratos.port, `${request.join('\r\n')}\r\n\r\n`)
}

function parsed(answer: string) {
  const end = answer.indexOf('\r\n\r\n')
  const [first = '', ...lines] = answer.slice(0, end).split('\r\n')
  const headers = new Headers(
    lines.map((line): [string, string] => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon), line.slice(colon + 1).trim()]
    }),
  )
  return { status: Number(first.split(' ')[1]), headers, body: answer.slice(end + 4) }
}
