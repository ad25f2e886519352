import { afterAll, afterEach, describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { connect } from 'node:net'
import { withUpload } from '../../src/api/upload.ts'
import { XrpcError } from '../../src/atproto/errors.ts'
import { sendRaw } from '../kit/raw.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = join(temporaryFolder(), 'uploads')
mkdirSync(folder)
const bytesMax = 1_000_000
/** Nothing in these tests takes as long. */
const patient = { folder, bytesMax, windowBytesMin: 1, windowMs: 60_000 }
/** What whoever gets the whole body does with it. */
let task = async (path: string): Promise<string> => Bun.hash(readFileSync(path)).toString()
let limits = patient
let failures: unknown[] = []

const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  maxRequestBodySize: 10 * bytesMax,
  fetch: async (request) => {
    if (request.method === 'GET') return new Response('the next one')
    try {
      return new Response(await withUpload(request, limits, (path) => task(path)))
    } catch (error) {
      failures.push(error)
      if (!(error instanceof XrpcError)) return new Response('fault', { status: 500 })
      return new Response(error.error, { status: error.status, headers: error.headers })
    }
  },
})
const port = Number(server.port)
const hash = task
afterEach(() => {
  // Whatever came of it.
  expect(readdirSync(folder)).toEqual([])
  task = hash
  limits = patient
  failures = []
})
afterAll(async () => {
  await server.stop(true)
})

const post = 'POST / HTTP/1.1\r\nHost: localhost\r\n'
/** Another request on the same connection, once the first one was answered. */
const next = async (answer: () => string) => {
  await eventually('answer', () => (answer() === '' ? undefined : answer()), { everyMs: 5 })
  return 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
}
const announced = (bytes: number) => `${post}Content-Length: ${bytes}\r\n\r\n`
const unannounced = `${post}Transfer-Encoding: chunked\r\n\r\n`
const chunk = (bytes: number) => `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`

describe('refused is a body', () => {
  test('that says that it is too large, before any of it comes', async () => {
    const body = async (answer: () => string) => {
      await eventually('answer', () => (answer() === '' ? undefined : answer()), { everyMs: 5 })
      expect(answer()).toEndWith('PayloadTooLarge')
      return 'x'.repeat(bytesMax + 1)
    }
    const answer = await sendRaw(port, announced(bytesMax + 1), body, next)
    expect(answer).toStartWith('HTTP/1.1 413 ')
    expect(answer).toEndWith('the next one')
  })

  test('that comes out too large, and the connection goes on behind it', async () => {
    const rest = `${chunk(bytesMax)}${chunk(bytesMax)}0\r\n\r\n`
    const answer = await sendRaw(port, unannounced, rest, next)
    expect(answer).toStartWith('HTTP/1.1 413 ')
    expect(answer).toEndWith('the next one')
    expect(failures).toHaveLength(1)
  })

  test.each([
    ['of one length', announced(10)],
    ['in pieces', unannounced],
  ])('%s that stops coming, with its connection', async (_, head) => {
    limits = { ...patient, windowBytesMin: 6, windowMs: 20 }
    const answer = await sendRaw(port, `${head}${head === unannounced ? chunk(5) : 'hello'}`)
    expect(answer).toStartWith('HTTP/1.1 408 ')
    expect(answer).toEndWith('RequestTimeout')
  })

  test('that comes too slowly, a byte at a time', async () => {
    limits = { ...patient, windowBytesMin: 1_000, windowMs: 50 }
    const socket = connect({ port, host: '127.0.0.1' })
    socket.on('error', () => undefined)
    socket.write(announced(bytesMax))
    const drip = setInterval(() => socket.write('x'), 2)
    await eventually('refusal', () => failures[0], { everyMs: 5 })
    clearInterval(drip)
    socket.destroy()
    expect(failures).toMatchObject([{ status: 408, error: 'RequestTimeout' }])
  })

  test.each([
    ['of one length', `${announced(10)}hello`],
    ['in pieces', `${unannounced}${chunk(5)}`],
    ['in pieces, within one', `${unannounced}a\r\nhello`],
  ])('%s that is cut off', async (_, part) => {
    task = async () => 'never'
    const socket = connect({ port, host: '127.0.0.1' })
    socket.write(part)
    await eventually('beginning of the file', () => begun(), { everyMs: 1 })
    socket.destroy()
    await eventually('refusal', () => failures[0], { everyMs: 1 })
    expect(failures).toMatchObject([{ status: 400, message: 'the body was cut off' }])
  })

  test('whose piece has no length', async () => {
    task = async () => 'never'
    const answer = await sendRaw(port, `${unannounced}${chunk(5)}hello\r\n`)
    expect(answer).toStartWith('HTTP/1.1 400 ')
    expect(answer).not.toContain('never')
    await eventually('end of the upload', () => failures[0], { everyMs: 1 })
  })
})

describe('read is a body', () => {
  const bytes = crypto.getRandomValues(new Uint8Array(65_536))
  const body = Buffer.concat(Array.from({ length: 13 }, () => bytes))

  test.each([
    ['of one length', body],
    ['of no more than there may be', body.subarray(0, 1)],
    ['that is empty', body.subarray(0, 0)],
  ])('%s', async (_, part) => {
    const response = await fetch(server.url, { method: 'POST', body: part })
    expect(await response.text()).toBe(Bun.hash(part).toString())
  })

  test('of just as many bytes as there may be', async () => {
    const part = Buffer.concat([body, body]).subarray(0, bytesMax)
    const response = await fetch(server.url, { method: 'POST', body: part })
    expect(await response.text()).toBe(Bun.hash(part).toString())
  })

  test('in many pieces of any size', async () => {
    const parts = [1, 70_000, 300_000, 2, 262_144, 262_145, 1].map((size) => chunk(size))
    const sizes = 1 + 70_000 + 300_000 + 2 + 262_144 + 262_145 + 1
    const bytewise = chunk(1).repeat(50_000)
    const all = `${unannounced}${bytewise}${parts.join('')}0\r\n\r\n`
    const answer = await sendRaw(port, all, next)
    expect(answer).toContain(Bun.hash('x'.repeat(50_000 + sizes)).toString())
    expect(answer).toEndWith('the next one')
  })

  test('that there is none of', async () => {
    const answer = await sendRaw(port, `${post}Connection: close\r\n\r\n`)
    expect(answer).toEndWith(Bun.hash('').toString())
  })
})

test('a task that fails leaves nothing, whatever it put beside the body', async () => {
  task = async (path) => {
    writeFileSync(join(dirname(path), 'beside'), 'something')
    throw new Error('on purpose')
  }
  const response = await fetch(server.url, { method: 'POST', body: 'hello' })
  expect(response.status).toBe(500)
  expect(failures).toMatchObject([{ message: 'on purpose' }])
})

test('nobody else on the machine can read it', async () => {
  task = async (path) =>
    [path, dirname(path)].map((one) => (statSync(one).mode & 0o777).toString(8)).join(' ')
  const response = await fetch(server.url, { method: 'POST', body: 'hello' })
  expect(await response.text()).toBe('600 700')
})

test('a body that cannot be kept is refused', async () => {
  limits = { ...patient, folder: join(folder, 'missing') }
  const request = new Request('http://localhost', { method: 'POST', body: 'hello' })
  expect(await failureOf(withUpload(request, limits, task))).toMatchObject({ code: 'ENOENT' })
})

/** Something of a body is there. */
function begun(): true | undefined {
  const [own] = readdirSync(folder)
  return own !== undefined && existsSync(join(folder, own, 'body')) ? true : undefined
}
