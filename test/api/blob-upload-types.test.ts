import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import * as fc from 'fast-check'
import { beginningBytes, blobType } from '../../src/service/blob-type.ts'
import { picture } from '../kit/blob.ts'
import { sendRaw } from '../kit/raw.ts'
import { fieldsOf } from '../kit/xrpc.ts'
import { BlobUploaders } from './blob-uploaders.ts'

setDefaultTimeout(60_000)

let service: BlobUploaders
beforeAll(async () => {
  service = await BlobUploaders.start({ people: { alice: ['a'] } })
})
afterAll(async () => {
  await service[Symbol.asyncDispose]()
})

const text = (said: string) => new TextEncoder().encode(said)
const hex = (digits: string) => new Uint8Array(Buffer.from(digits, 'hex'))
/** The least that shows what it is. */
const samples: Record<string, Uint8Array<ArrayBuffer>> = {
  'image/png': picture(),
  'image/jpeg': hex('ffd8ffe000104a46494600010100000100010000ffd9'),
  'image/gif': text('GIF89a\u0001\u0000\u0001\u0000\u0000\u0000\u0000;'),
  'image/webp': text('RIFF\u001a\u0000\u0000\u0000WEBPVP8L\r\u0000\u0000\u0000/\u0000\u0000\u0000'),
  'image/avif': text('\u0000\u0000\u0000\u001cftypavif\u0000\u0000\u0000\u0000avifmif1miaf'),
  'video/mp4': text('\u0000\u0000\u0000\u0018ftypisom\u0000\u0000\u0002\u0000isommp42'),
  'video/webm': hex('1a45dfa39f4286810142f7810142f2810442f381084282847765626d'),
  'application/pdf': text('%PDF-1.7\n'),
}

describe('the type of a blob', () => {
  const claims = ['image/png', 'text/html', 'application/octet-stream', 'nonsense', undefined]

  test.each(Object.entries(samples))('%s shows, whatever is said of it', async (type, bytes) => {
    for (const claimed of claims) expect(await typeOf(bytes, claimed)).toBe(type)
  })

  test('of XML shows, so that none of it passes for a picture', async () => {
    const svg = text('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>')
    expect(await typeOf(svg, 'image/png')).toBe('application/xml')
  })

  test.each([
    ['text/html', '<!doctype html><script>alert(1)</script>', 'text/html'],
    ['text/plain;charset=utf-8', 'hello', 'text/plain'],
    ['  TEXT/Plain ; q="a;b"', 'hello', 'text/plain'],
    ['application/vnd.example+json', '{}', 'application/vnd.example+json'],
    ['image/svg+xml', '<svg xmlns="http://www.w3.org/2000/svg"></svg>', 'image/svg+xml'],
    ['*/*', 'hello', 'application/octet-stream'],
    ['text', 'hello', 'application/octet-stream'],
    ['text/', 'hello', 'application/octet-stream'],
    ['/plain', 'hello', 'application/octet-stream'],
    ['text/plain/more', 'hello', 'application/octet-stream'],
    ['text/pl ain', 'hello', 'application/octet-stream'],
    ['"text/plain"', 'hello', 'application/octet-stream'],
    ['text/plain, text/html', 'hello', 'application/octet-stream'],
    ['', 'hello', 'application/octet-stream'],
    [`text/${'x'.repeat(200)}`, 'hello', 'application/octet-stream'],
  ])('said to be %p, where nothing shows', async (claimed, said, type) => {
    expect(await typeOf(text(said), claimed)).toBe(type)
  })

  test('is unknown where nothing shows and nothing is said', async () => {
    const { bearer } = service.stratos.person('alice')
    const answer = await sendRaw(
      service.stratos.port,
      'POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nHost: localhost\r\n',
      `Authorization: ${bearer}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello`,
    )
    expect(answer).toContain('"mimeType":"application/octet-stream"')
  })

  test('is told by the beginning, in pieces of any size', async () => {
    const bytes = Buffer.concat([picture(), Buffer.alloc(10_000)])
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        for (const byte of bytes) controller.enqueue(new Uint8Array([byte]))
        controller.close()
      },
    })
    const { body: answer } = await service.send('alice', body)
    expect(fieldsOf(answer, 'blob')['mimeType']).toBe('image/png')
  })

  test('of the same bytes is the last one that was said, until a record names them', async () => {
    const bytes = text('the same')
    const first = await service.upload('alice', bytes, 'image/x-first')
    const second = await service.upload('alice', bytes, 'image/x-second')
    expect([first.mimeType, second.mimeType]).toEqual(['image/x-first', 'image/x-second'])
    expect((await service.tryPost('alice', first)).body['error']).toBe('BlobNotFound')
    await service.post('alice', second)
    expect(await service.upload('alice', bytes, 'image/x-third')).toEqual(second)
    await service.post('alice', second)
  })
})

test('any beginning has a type', async () => {
  const begun = fc.constantFrom(...Object.values(samples), ...others)
  const cut = { maxLength: beginningBytes }
  await fc.assert(
    fc.asyncProperty(begun, fc.nat({ max: 40 }), fc.uint8Array(cut), async (start, kept, rest) => {
      const bytes = Buffer.concat([start.subarray(0, kept), rest]).subarray(0, beginningBytes)
      expect(await blobType(bytes, null)).toMatch(/^[a-z]+\/[a-z0-9.+-]+/i)
    }),
    { numRuns: 2_000 },
  )
})

/** Beginnings of what holds other things in it, of which more is looked at. */
const others = [
  '504b0304140000000000',
  '494433030000000000',
  '3026b2758e66cf11a6d900aa0062ce6c',
  '4f67675300020000',
  '4d4d002a',
  '49492a00',
  '1f8b0800',
  '52494646ffffffff57415645',
  '1a45dfa3ffffffff',
  '0000000c6a502020',
  'fffe0000',
].map(hex)

async function typeOf(bytes: Uint8Array<ArrayBuffer>, claimed: string | undefined) {
  const headers = claimed === undefined ? {} : { 'content-type': claimed }
  const { status, body } = await service.send('alice', bytes, { headers })
  expect([status, body]).toEqual([200, body])
  return fieldsOf(body, 'blob')['mimeType']
}
