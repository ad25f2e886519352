import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { readJson } from '../../src/api/body.ts'
import { XrpcError } from '../../src/atproto/errors.ts'
import { sendRaw } from '../kit/raw.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { failureOf } from '../kit/wait.ts'

setDefaultTimeout(60_000)

// A proxy in front and this server must never see different requests in the same bytes. Each text
// holds a second request where only a reader with another view of the first would find it.
const domains = '/xrpc/zone.stratos.server.listDomains'
const hidden = '/xrpc/zone.stratos.server.hidden'
const second = `GET ${hidden} HTTP/1.1\r\nHost: localhost\r\n\r\n`
const chunked = 'Transfer-Encoding: chunked'
/** Bun's, of a whole head. */
const headBytesMax = 16 * 1024

let stratos: SeededStratos

beforeAll(async () => {
  const env = { LOG_LEVEL: 'debug' }
  stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
})
afterAll(async () => {
  expect(stratos.log).not.toContain(hidden)
  await stratos?.stop()
})

describe('refused, with the connection, is a request', () => {
  test.each<[string, readonly string[], string]>([
    ['with Content-Length and Transfer-Encoding', ['Content-Length: 5', chunked], '0\r\n\r\n'],
    ['with both the other way round', [chunked, 'Content-Length: 5'], '0\r\n\r\n'],
    ['with two lengths', ['Content-Length: 5', 'Content-Length: 0'], 'hello'],
    ['with a list of lengths', ['Content-Length: 5, 5'], 'hello'],
    ['with a length of +5', ['Content-Length: +5'], 'hello'],
    ['with a length of 0x5', ['Content-Length: 0x5'], 'hello'],
    ['with a length of 5e0', ['Content-Length: 5e0'], 'hello'],
    ['with a length of -1', ['Content-Length: -1'], ''],
    ['with a length beyond 64 bits', ['Content-Length: 18446744073709551621'], 'hello'],
    ['with an empty length', ['Content-Length: '], ''],
    ['with a blank before the colon of its length', ['Content-Length : 5'], 'hello'],
    ['with a blank before that of its encoding', ['Transfer-Encoding : chunked'], '0\r\n\r\n'],
    ['with an unknown encoding', ['Transfer-Encoding: xchunked'], '0\r\n\r\n'],
    ['with a second encoding', ['Transfer-Encoding: gzip, chunked'], '0\r\n\r\n'],
    ['with another after it', ['Transfer-Encoding: chunked, identity'], '0\r\n\r\n'],
    ['with two headers of it', [chunked, 'Transfer-Encoding: identity'], '0\r\n\r\n'],
    ['with a vertical tab in it', ['Transfer-Encoding: \vchunked'], '0\r\n\r\n'],
    ['with a folded header', ['X-Folded: a', ' Content-Length: 5'], ''],
    ['with a folded encoding', ['Transfer-Encoding:', ' chunked'], '0\r\n\r\n'],
    ['with a line feed in a header', ['X-One: a\nContent-Length: 5'], 'hello'],
    ['with a carriage return in a header', ['X-One: a\rContent-Length: 5'], 'hello'],
    ['with a zero byte in a header', ['X-One: a\0b'], ''],
    ['with a header without a name', [': a'], ''],
    ['with a header without a colon', ['Content-Length'], ''],
  ])('%s', async (_, headers, body) => {
    expectOneRefusal(await send({ headers, body: body + second }))
  })

  test.each([
    ['with a negative size', '-1\r\nhello\r\n0\r\n\r\n'],
    ['with 0x before its size', '0x5\r\nhello\r\n0\r\n\r\n'],
    ['with a size beyond 64 bits', 'FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n'],
    ['without a size', '\r\nhello\r\n0\r\n\r\n'],
    ['that goes on after its size', '5\r\nhelloXX0\r\n\r\n'],
    ['with line feeds alone', '5\nhello\n0\n\n'],
    ['with a line feed in its extension', '5;a\nb\r\nhello\r\n0\r\n\r\n'],
  ])('of a chunk %s', async (_, body) => {
    expectOneRefusal(await send({ headers: [chunked], body: body + second }))
  })

  test('whose lines end in line feeds', async () => {
    const host = `Host: localhost:${stratos.port}`
    const text = `POST ${domains} HTTP/1.1\n${host}\nContent-Length: 5\n\nhello${second}`
    const answer = await sendRaw(stratos.port, text)
    expect(answer).toMatch(/^HTTP\/1\.1 (400|505) /)
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1)
  })

  test('of another protocol', async () => {
    for (const version of ['HTTP/2.0', 'HTTP/1.2', 'HTTP/0.9', 'ICAP/1.0']) {
      const answer = await sendRaw(stratos.port, `GET / ${version}\r\nHost: localhost\r\n\r\n`)
      expect(answer).toMatch(/^HTTP\/1\.1 (400|505) /)
      expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1)
    }
  })

  test('in chunks by HTTP/1.0', async () => {
    const host = 'Host: localhost'
    const head = `POST ${domains} HTTP/1.0\r\n${host}\r\n${chunked}\r\n\r\n`
    expectOneRefusal(await sendRaw(stratos.port, `${head}0\r\n\r\n${second}`))
  })
})

describe('a head', () => {
  test(`over ${headBytesMax} bytes is refused, and one below is not`, async () => {
    const tooLarge = await send({ headers: [`X-Long: ${'x'.repeat(headBytesMax)}`] })
    expect(tooLarge).toStartWith('HTTP/1.1 431 ')
    const many = Array.from({ length: 300 }, (_, index) => `X-${index}: 1`)
    expect(await send({ headers: many })).toStartWith('HTTP/1.1 431 ')
    const path = `/${'x'.repeat(headBytesMax)}`
    expect(await send({ path })).toStartWith('HTTP/1.1 431 ')
    const headers = [`X-Long: ${'x'.repeat(headBytesMax - 1000)}`, 'Connection: close']
    expect(await send({ verb: 'GET', headers })).toStartWith('HTTP/1.1 200 ')
  })

  test('without a host, or with two, is refused', async () => {
    const none = `GET ${domains} HTTP/1.1\r\nConnection: close\r\n\r\n`
    expect(await sendRaw(stratos.port, none)).toStartWith('HTTP/1.1 400 ')
    const headers = ['Host: evil.example', 'Connection: close']
    expect(await send({ verb: 'GET', headers })).toStartWith('HTTP/1.1 400 ')
  })
})

test('what follows a body is the next request, and a body is none, whatever the verb', async () => {
  const close = `GET ${domains} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`
  const length = [`Content-Length: ${second.length}`]
  const size = second.length.toString(16)
  const bodies: [readonly string[], string][] = [
    [length, second],
    [[chunked], `${size}\r\n${second}\r\n0\r\n\r\n`],
    [[chunked], `${size};ext="a;b"\r\n${second}\r\n0\r\n\r\n`],
  ]
  for (const verb of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
    for (const [headers, body] of bodies) {
      const answer = await send({ verb, headers, body: body + close })
      expect(answer.match(/HTTP\/1\.1 \d/g)).toHaveLength(2)
      expect(answer).toContain('"domains"')
    }
  }
})

test('trailers are no headers', async () => {
  const trailer = `0\r\nAuthorization: Bearer ${stratos.person('alice').did}\r\n\r\n`
  const headers = [chunked, 'Content-Type: application/json', 'Trailer: Authorization']
  const path = '/xrpc/zone.stratos.repo.createRecord'
  const answer = await send({ path, headers, body: `2\r\n{}\r\n${trailer}` })
  expect(answer).toStartWith('HTTP/1.1 401 ')
  expect(answer).toContain('AuthMissing')
})

test('the target of a request does not choose the host', async () => {
  const path = 'http://evil.example/health'
  const answer = await send({ verb: 'GET', path, headers: ['Connection: close'] })
  expect(answer).toStartWith('HTTP/1.1 200 ')
  expect(answer).not.toContain('evil')
})

test('a body that does not come within its time is refused, and its connection closed', async () => {
  const errors: unknown[] = []
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: async (request) => {
      const error = await failureOf(readJson(request, { msMax: 20 }))
      errors.push(error)
      const { status, headers } = error instanceof XrpcError ? error : { status: 500, headers: {} }
      return new Response('late', { status, headers })
    },
  })
  try {
    const type = 'Content-Type: application/json'
    for (const [header, part] of [
      ['Content-Length: 100', '{"a":'],
      [chunked, '1\r\n{\r\n'],
    ]) {
      const head = `POST / HTTP/1.1\r\nHost: localhost\r\n${type}\r\n${header}\r\n\r\n`
      const answer = await sendRaw(server.port ?? 0, `${head}${part}`)
      expect(answer).toStartWith('HTTP/1.1 408 ')
      expect(answer.toLowerCase()).toContain('connection: close')
    }
    const late = { status: 408, error: 'RequestTimeout' }
    expect(errors).toMatchObject([late, late])
  } finally {
    await server.stop(true)
  }
})

interface Sent {
  readonly verb?: string
  readonly path?: string
  readonly headers?: readonly string[]
  readonly body?: string
}

function send({ verb = 'POST', path = domains, headers = [], body = '' }: Sent): Promise<string> {
  const lines = [`${verb} ${path} HTTP/1.1`, `Host: localhost:${stratos.port}`, ...headers, '', '']
  return sendRaw(stratos.port, lines.join('\r\n') + body)
}

/** Of the refused request there is at most one answer, by us or by Bun, and none to another. */
function expectOneRefusal(answer: string): void {
  expect(answer).toStartWith('HTTP/1.1 4')
  // What was wrong only in the body may be found after an answer was on its way.
  const answers = [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)
  expect(answers.length).toBeLessThanOrEqual(2)
  expect(answers.every((status) => status?.startsWith('4'))).toBeTrue()
  expect(answer).not.toContain('MethodNotImplemented')
}
