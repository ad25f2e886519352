import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { postCollection, privatePost } from '../kit/post.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Answer, isFields, requestMs, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const malformed: Refusal = [400, 'InvalidRequest']
const mebibyte = 1024 * 1024
const recordBytesMax = 256 * 1024
const createRecord = 'zone.stratos.repo.createRecord'

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('a body is refused', () => {
  const bodies: Record<string, string | Uint8Array> = {
    'that is empty': '',
    'that is blank': ' \n',
    'that is no JSON': 'record=hello',
    'that ends early': '{"repo":',
    'that goes on after its end': '{}{}',
    'with a comment': '{/* hello */}',
    'with single quotes': `{'repo':'x'}`,
    'that is null': 'null',
    'that is a number': '1',
    'that is a text': '"repo"',
    'that is a list': '[]',
    'that is a list of what would do': '[{}]',
    'that is not UTF-8': Uint8Array.from(Buffer.from('{"repo":"\xe9"}', 'latin1')),
    'that is UTF-16': Uint8Array.from(Buffer.from('{}', 'utf16le')),
    'that is cut inside of a character': Uint8Array.from([...Buffer.from('{"a":"'), 0xe2, 0x82]),
    'of brackets alone': '['.repeat(100_000) + ']'.repeat(100_000),
    'of brackets that never close': '['.repeat(mebibyte),
    'of a name that objects have': '{"__proto__":{"repo":"x"}}',
  }
  test.each(Object.entries(bodies))('%s', async (_, body) => {
    await expectNoChange(stratos, malformed, () => send(body))
  })

  test.each<[string, Refusal]>([
    ['"a":%', malformed],
    ['"a":{"b":%}', malformed],
  ])('with brackets a hundred thousand deep inside of a record, at %s', async (place, refusal) => {
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      const deep = `${open.repeat(100_000)}1${close.repeat(100_000)}`
      const body = bodyWith(place.replace('%', deep))
      await expectNoChange(stratos, refusal, () => send(body))
    }
  })

  const numbers: Record<string, string> = {
    'of an exponent that is too large': '1e400',
    'of such an exponent, below zero': '-1e400',
    'of too many digits': '9'.repeat(400),
    'of too many digits and an exponent': `${'9'.repeat(305)}e10`,
  }
  test.each(Object.entries(numbers))(
    'with a number %s, which would not come back',
    async (_, number) => {
      await expectNoChange(stratos, malformed, () => send(bodyWith(`"a":${number}`)))
      await expectNoChange(stratos, malformed, () => send(bodyWith(`"a":[{"b":${number}}]`)))
    },
  )

  test.each([
    ['none', undefined],
    ['text', 'text/plain'],
    ['a form', 'application/x-www-form-urlencoded'],
    ['another JSON', 'application/jsonp'],
    ['more than JSON', 'application/json+xml'],
    ['JSON in another type', 'text/application/json'],
  ])('of the type %s', async (_, type) => {
    await expectNoChange(stratos, malformed, () => send(bodyWith(''), { type }))
  })
})

describe('a name that every object has', () => {
  test.each(['__proto__', 'constructor'])('%s is refused inside of a record', async (name) => {
    for (const place of [`"${name}":{"a":1}`, `"a":{"${name}":1}`, `"a":[{"${name}":null}]`]) {
      await expectNoChange(stratos, [400, 'InvalidRecord'], () => send(bodyWith(place)))
    }
  })

  test.each(['__proto__', 'constructor', 'prototype', 'toString'])(
    '%s beside a record changes nothing for it',
    async (name) => {
      const place = `"${name}":{"repo":"did:web:other.example.com","record":{}}`
      const body = bodyWith('').replace('"repo":', `${place},"repo":`)
      expect(await send(body)).toMatchObject({ status: 200 })
    },
  )
})

describe('a body over a mebibyte is refused', () => {
  const tooLarge: Refusal = [413, 'PayloadTooLarge']

  test.each([1, mebibyte / 2, 2 * mebibyte, 20 * mebibyte])(
    'by %d, with its length and without',
    async (over) => {
      const body = padded(mebibyte + over)
      await expectNoChange(stratos, tooLarge, () => send(body))
      await expectNoChange(stratos, tooLarge, () => send(inPieces(body)))
    },
  )

  test('by its length alone, before any of it arrives', async () => {
    const { bearer } = stratos.person('alice')
    const head =
      `POST /xrpc/${createRecord} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${bearer}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${mebibyte + 1}\r\nConnection: close\r\n\r\n`
    const answer = await sendRaw(stratos.port, head)
    expect(answer).toStartWith('HTTP/1.1 413 ')
    expect(answer).toContain('{"error":"PayloadTooLarge"')
  })

  test('and one of a mebibyte is read, with its length and without', async () => {
    const body = padded(mebibyte)
    await expectNoChange(stratos, [400, 'RecordTooLarge'], () => send(body))
    await expectNoChange(stratos, [400, 'RecordTooLarge'], () => send(inPieces(body)))
  })
})

describe('a record', () => {
  test('of 256 KiB is kept, of one byte more it is refused', async () => {
    const record = { ...post(), salt: { $bytes: 'AAAA' } }
    const sized = (chars: number) => sendRecord({ ...record, padding: 'x'.repeat(chars) })
    const probe = await sized(recordBytesMax)
    const bytes = Number(/this one has (\d+)/.exec(textOf(probe.body, 'message'))?.[1])
    const fitting = recordBytesMax - (bytes - recordBytesMax)
    await expectNoChange(stratos, [400, 'RecordTooLarge'], () => sized(fitting + 1))
    expect(await sized(fitting)).toMatchObject({ status: 200 })
  })

  test('is measured with the salt that it gets', async () => {
    const bare = post()
    const probe = await sendRecord({ ...bare, padding: 'x'.repeat(recordBytesMax) })
    const bytes = Number(/this one has (\d+)/.exec(textOf(probe.body, 'message'))?.[1])
    const fitting = recordBytesMax - (bytes - recordBytesMax)
    const ask = () => sendRecord({ ...bare, padding: 'x'.repeat(fitting + 1) })
    await expectNoChange(stratos, [400, 'RecordTooLarge'], ask)
    expect(await sendRecord({ ...bare, padding: 'x'.repeat(fitting) })).toMatchObject({
      status: 200,
    })
  })

  test.each([
    'application/json',
    'application/json; charset=utf-8',
    'APPLICATION/JSON',
    'application/json ;charset=utf-8',
  ])('may come as %s', async (type) => {
    expect(await send(bodyWith(''), { type })).toMatchObject({ status: 200 })
  })

  test('may begin with a byte order mark', async () => {
    expect(await send(`\ufeff${bodyWith('')}`)).toMatchObject({ status: 200 })
  })

  test('may come in pieces', async () => {
    expect(await send(inPieces(bodyWith('')))).toMatchObject({ status: 200 })
  })
})

function post() {
  return privatePost('a post', [stratos.boundary('a')])
}

/** A good body whose record has further members, as JSON text. */
function bodyWith(members: string): string {
  const record = JSON.stringify(post())
  const more = members === '' ? record : `{${members},${record.slice(1)}`
  const { did } = stratos.person('alice')
  return `{"repo":"${did}","collection":"${postCollection}","record":${more}}`
}

/** A body of this many bytes. */
function padded(bytes: number): string {
  const empty = bodyWith('"padding":""')
  return bodyWith(`"padding":"${'x'.repeat(bytes - empty.length)}"`)
}

function sendRecord(record: object): Promise<Answer> {
  const { did } = stratos.person('alice')
  return send(JSON.stringify({ repo: did, collection: postCollection, record }))
}

async function send(
  body: string | Uint8Array | ReadableStream<Uint8Array>,
  { type }: { readonly type: string | undefined } = { type: 'application/json' },
): Promise<Answer> {
  const response = await fetch(`${stratos.url}/xrpc/${createRecord}`, {
    method: 'POST',
    headers: {
      authorization: stratos.person('alice').bearer,
      ...(type === undefined ? {} : { 'content-type': type }),
    },
    // A text alone would bring a content type of its own.
    body: typeof body === 'string' ? new TextEncoder().encode(body) : body,
    signal: AbortSignal.timeout(requestMs),
  })
  const answer: unknown = await response.json()
  if (!isFields(answer)) throw new Error(`expected an object: ${JSON.stringify(answer)}`)
  return { status: response.status, body: answer, headers: response.headers }
}

/** Without an announced length. */
function inPieces(text: string): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text)
  let at = 0
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) {
        controller.close()
        return
      }
      controller.enqueue(bytes.slice(at, at + pieceBytes))
      at += pieceBytes
    },
  })
}

const pieceBytes = 60_000
