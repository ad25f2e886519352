import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { picture } from '../kit/blob.ts'
import { noBytes } from '../kit/blob-bytes.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { eventually } from '../kit/wait.ts'
import { BlobUploaders } from './blob-uploaders.ts'

setDefaultTimeout(60_000)

const quotaExceeded: Refusal = [400, 'QuotaExceeded']
const overloaded: Refusal = [503, 'Overloaded']
const quotaBytes = 1_000_000
const names = ['alice', 'bob', 'carol', 'dave', 'erin'] as const

let service: BlobUploaders
beforeEach(async () => {
  service = await BlobUploaders.start({
    people: Object.fromEntries(names.map((name) => [name, ['a']])),
    env: { STRATOS_BLOB_QUOTA_BYTES: String(quotaBytes) },
  })
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
})

describe('over the quota', () => {
  test('is refused before it comes what says so', async () => {
    await service.upload('alice', picture(600_000))
    const head = service.head('alice', 'Content-Length: 500000', 'Connection: close')
    const answer = await sendRaw(service.stratos.port, head, async (come) => {
      await eventually('answer', () => (come().includes('QuotaExceeded') ? true : undefined))
      return 'x'.repeat(500_000)
    })
    expect(answer).toStartWith('HTTP/1.1 400 ')
    expect((await service.bytes('alice')).temporary).toHaveLength(1)
  })

  test.each([3, 4])('of ten at once come in as many as there is room for: %i', async (fitting) => {
    const each = Math.floor(quotaBytes / fitting)
    const uploads = Array.from({ length: 10 }, () => picture(each - 500))
    const answers = await Promise.all(
      // None says how long it is.
      uploads.map((bytes) => service.send('alice', inPieces(bytes))),
    )
    const refused = answers.filter(({ status }) => status !== 200)
    expect(refused).toHaveLength(10 - fitting)
    for (const answer of refused) expectRefusal(answer, quotaExceeded)
    const rows = service.rows('alice')
    expect(rows).toHaveLength(fitting)
    const keys = rows.map(({ tempKey }) => String(tempKey)).toSorted()
    expect(await service.bytes('alice')).toEqual({ ...noBytes, temporary: keys })
    expect((await service.send('bob', picture(each))).status).toBe(200)
  })

  test('count those that are named, and no longer those that are gone', async () => {
    const blob = await service.upload('alice', picture(600_000))
    const uri = await service.post('alice', blob)
    expectRefusal(await service.send('alice', picture(500_000)), quotaExceeded)
    await service.remove('alice', uri)
    await eventually('room', () => (service.rows('alice').length === 0 ? true : undefined))
    expect((await service.send('alice', picture(500_000))).status).toBe(200)
  })

  test('is nothing on disk, however often it is uploaded, named and deleted', async () => {
    for (let round = 0; round < 5; round++) {
      const uri = await service.post('alice', await service.upload('alice', picture(600_000)))
      await service.settled('alice', { permanent: service.rows('alice').map(({ cid }) => cid) })
      await service.remove('alice', uri)
      await eventually('room', () => (service.rows('alice').length === 0 ? true : undefined))
    }
    await service.settled('alice', noBytes)
  })

  test('a thousand that nothing names are enough, however small they are', async () => {
    const send = (index: number) => service.send('alice', new TextEncoder().encode(`${index}`))
    for (let index = 0; index < 1_000; index += 10) {
      const ten = Array.from({ length: 10 }, (_, offset) => send(index + offset))
      for (const { status } of await Promise.all(ten)) expect(status).toBe(200)
    }
    expectRefusal(await send(1_000), quotaExceeded)
    expect((await service.bytes('alice')).temporary).toHaveLength(1_000)
    expect((await send(7)).status).toBe(200)
    expect((await service.bytes('alice')).temporary).toHaveLength(1_000)
    expect((await service.send('bob', picture())).status).toBe(200)
  })
})

describe('at once', () => {
  test('ten of one person are enough, and all of one', async () => {
    const held = await begun('alice', 10)
    expectRefusal(await service.send('alice', picture()), overloaded)
    expect((await service.send('bob', picture())).status).toBe(200)
    held[0]?.destroy()
    await eventually('place for another', async () => {
      const { status } = await service.send('alice', picture())
      return status === 200 ? true : undefined
    })
    held.forEach((socket) => socket.destroy())
    await eventually('no bytes but the finished ones', async () =>
      (await service.bytes('alice')).temporary.length === 1 ? true : undefined,
    )
  })

  test('thirty-two of all are enough', async () => {
    const held = []
    for (const name of ['alice', 'bob', 'carol']) held.push(...(await begun(name, 10)))
    held.push(...(await begun('dave', 2)))
    expectRefusal(await service.send('erin', picture()), overloaded)
    expect(await service.bytes('erin')).toEqual(noBytes)
    held.forEach((socket) => socket.destroy())
    await eventually('place for another', async () => {
      const { status } = await service.send('erin', picture())
      return status === 200 ? true : undefined
    })
  })
})

async function begun(name: string, count: number) {
  const head = service.head(name, 'Content-Length: 1000')
  const sockets = []
  for (let index = 0; index < count; index++)
    sockets.push(await service.begin(name, `${head}hello`))
  return sockets
}

function inPieces(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start: (controller) => {
      for (let at = 0; at < bytes.length; at += 50_000) {
        controller.enqueue(bytes.subarray(at, at + 50_000))
      }
      controller.close()
    },
  })
}
