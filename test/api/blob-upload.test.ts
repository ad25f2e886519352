import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { picture } from '../kit/blob.ts'
import { noBytes } from '../kit/blob-bytes.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { basic } from '../kit/seeded.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { BlobUploaders, uploadNsid } from './blob-uploaders.ts'

setDefaultTimeout(60_000)

const bytesMax = 2_000_000
const tooLarge: Refusal = [413, 'PayloadTooLarge']

let service: BlobUploaders
beforeAll(async () => {
  service = await BlobUploaders.start({
    people: { alice: ['a'], bob: ['a'], idle: ['a'], down: ['a'], view: [] },
    env: { STRATOS_BLOB_MAX_BYTES: String(bytesMax) },
  })
  const { stratos } = service
  await whileStopped(
    stratos,
    (sql) =>
      sql.run([
        { sql: 'update enrollment set active = 0 where did = $1', args: [service.did('idle')] },
        { sql: 'delete from enrollment where did = $1', args: [service.did('view')] },
      ]),
    { STRATOS_ALLOWED_APPVIEWS: service.did('view') },
  )
  await setTakedown(stratos, repoSubject(service.did('down')), { applied: true })
})
afterAll(async () => {
  await service[Symbol.asyncDispose]()
})

describe('refused is an upload', () => {
  afterEach(async () => {
    // Whatever came of it.
    const rest = async () => (await service.bytes('alice')).temporary
    await eventually('nothing on disk', async () =>
      (await rest()).length === 0 ? true : undefined,
    )
    expect(service.rows('alice')).toEqual([])
  })

  test.each<[string, () => Promise<string> | string | undefined, Refusal]>([
    ['nobody', () => undefined, [401, 'AuthMissing']],
    ['somebody who is enrolled nowhere', () => bearer('stranger'), [403, 'NotEnrolled']],
    ['somebody inactive', () => bearer('idle'), [403, 'NotEnrolled']],
    ['somebody whose repo is taken down', () => bearer('down'), [403, 'RepoTakendown']],
    ['an AppView', () => token('view'), [403, 'Forbidden']],
    ['the operator', () => basic('admin', service.stratos.adminPassword), [403, 'Forbidden']],
    ['a token for another method', () => token('alice', 'com.atproto.repo.createRecord'), invalid],
    ['a token for the twin', () => token('alice', 'zone.stratos.repo.uploadBlob'), invalid],
    ['a token of another key', () => forged(), invalid],
  ])('by %s', async (_, authorization, refusal) => {
    const call = { authorization: await authorization() }
    expectRefusal(await service.send('alice', picture(), call), refusal)
    for (const name of ['idle', 'down', 'stranger', 'view']) {
      expect(await service.bytes(name)).toEqual(noBytes)
    }
  })

  test('that says that it is too large, before any of it comes', async () => {
    const head = service.head('alice', `Content-Length: ${bytesMax + 1}`)
    const answer = await sendRaw(service.stratos.port, head, async (come) => {
      await eventually('answer', () => (come().includes('PayloadTooLarge') ? true : undefined))
      return 'x'.repeat(bytesMax + 1) + next
    })
    expect(answer).toStartWith('HTTP/1.1 413 ')
  })

  test('that comes out too large', async () => {
    const head = service.head('alice', 'Transfer-Encoding: chunked')
    const rest = `${chunk(bytesMax)}${chunk(1)}0\r\n\r\n`
    const answer = await sendRaw(service.stratos.port, head, rest, async (come) => {
      await eventually('answer', () => (come().includes('PayloadTooLarge') ? true : undefined))
      return next
    })
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 413', 'HTTP/1.1 200'])
    expectRefusal(await service.send('alice', new Uint8Array(bytesMax + 1)), tooLarge)
  })

  test.each([
    ['shorter than its length', `Content-Length: ${bytesMax}`, 'hello'],
    ['in pieces', 'Transfer-Encoding: chunked', chunk(500_000)],
    ['within a piece', 'Transfer-Encoding: chunked', 'ffff\r\nhello'],
  ])('%s that is cut off', async (_, header, part) => {
    const socket = await service.begin('alice', service.head('alice', header) + part)
    socket.destroy()
  })

  test.each([
    ['of two lengths', ['Content-Length: 5', 'Content-Length: 6'], 'hello'],
    ['of a negative length', ['Content-Length: -5'], 'hello'],
    ['of no number of bytes', ['Content-Length: five'], 'hello'],
    ['of a length and in pieces', ['Content-Length: 5', 'Transfer-Encoding: chunked'], chunk(5)],
  ])('%s', async (_, headers, body) => {
    const head = service.head('alice', ...headers, 'Connection: close')
    const answer = await sendRaw(service.stratos.port, `${head}${body}`)
    expect(answer).toStartWith('HTTP/1.1 400 ')
  })

  test.each(['gzip', 'br', 'aws-chunked', 'identity, gzip', 'unknown'])(
    'as %s',
    async (encoding) => {
      const headers = { 'content-encoding': encoding, 'content-type': 'image/png' }
      const answer = await service.send('alice', Bun.gzipSync(picture()), { headers })
      expectRefusal(answer, [400, 'InvalidRequest'])
    },
  )
})

describe('taken is an upload', () => {
  test.each(['com.atproto.repo.uploadBlob', 'zone.stratos.repo.uploadBlob'])(
    'by %s, with a token for it',
    async (nsid) => {
      const bytes = picture()
      const { status, body } = await service.stratos.call(nsid, {
        body: bytes,
        headers: { 'content-type': 'image/png' },
        authorization: await token('bob', nsid),
      })
      const $link = cidToString(cidForRaw(bytes))
      const blob = { $type: 'blob', ref: { $link }, mimeType: 'image/png', size: bytes.length }
      expect([status, body]).toEqual([200, { blob }])
      const row = service.rows('bob').find(({ cid }) => cid === $link)
      expect((await service.bytes('bob')).temporary).toContain(String(row?.tempKey))
    },
  )

  test('of just as many bytes as there may be', async () => {
    const { size } = await service.upload('bob', new Uint8Array(bytesMax))
    expect(size).toBe(bytesMax)
  })

  test('of no bytes', async () => {
    const { status, body } = await service.send('bob', new Uint8Array(0))
    expect(status).toBe(200)
    expect(body).toMatchObject({ blob: { size: 0, mimeType: 'application/octet-stream' } })
  })

  test('as it is, where that is said', async () => {
    const headers = { 'content-encoding': 'Identity', 'content-type': 'image/png' }
    expect((await service.send('bob', picture(), { headers })).status).toBe(200)
  })

  test('in very many pieces', async () => {
    const pieces = 300_000
    const head = service.head('bob', 'Transfer-Encoding: chunked', 'Connection: close')
    const body = `${chunk(1).repeat(pieces)}0\r\n\r\n`
    const answer = await sendRaw(service.stratos.port, head + body)
    expect(answer).toStartWith('HTTP/1.1 200 ')
    const cid = cidToString(cidForRaw(Buffer.from('x'.repeat(pieces))))
    expect(answer).toContain(cid)
    const row = service.rows('bob').find((one) => one.cid === cid)
    expect(row?.size).toBe(pieces)
  })
})

const invalid: Refusal = [401, 'InvalidToken']
const next = 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'

function bearer(name: string): string {
  return service.stratos.person(name).bearer
}

async function token(name: string, lxm = uploadNsid): Promise<string> {
  const { stratos } = service
  return `Bearer ${await serviceToken(stratos.person(name), { aud: stratos.did, lxm })}`
}

async function forged(): Promise<string> {
  const { stratos } = service
  const { key } = stratos.person('bob')
  const about = { aud: stratos.did, lxm: uploadNsid }
  const sign = (bytes: Uint8Array) => key.sign(bytes)
  return `Bearer ${await serviceToken(stratos.person('alice'), about, { sign })}`
}

function chunk(bytes: number): string {
  return `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`
}
