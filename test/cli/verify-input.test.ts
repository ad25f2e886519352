import { afterAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { carOf, repoBlocks, repoKey } from '../atproto/repo-car.ts'
import { projectFolder } from '../kit/seeded.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { runVerify } from './verified.ts'

setDefaultTimeout(60_000)

const folder = temporaryFolder()
const car = carOf(repoBlocks(5))
const path = join(folder, 'repo.car')
await Bun.write(path, car)
const credential = join(folder, 'credential')
await Bun.write(credential, 'Bearer hunter2-hunter2\n')
const key = ['--key', repoKey.did]

const seen: { path: string; authorization: string | null }[] = []
let answer = (): Response => new Response(car)
const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: ({ url, headers }) => {
    seen.push({ path: new URL(url).pathname, authorization: headers.get('authorization') })
    return answer()
  },
})
const other = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: ({ url, headers }) => {
    seen.push({ path: new URL(url).pathname, authorization: headers.get('authorization') })
    return new Response(car)
  },
})
const origin = `http://127.0.0.1:${server.port}`
afterAll(async () => {
  await Promise.all([server.stop(true), other.stop(true)])
})

describe('it ends with 2, a reason and nothing on standard output', () => {
  test.each<[string, readonly string[], string]>([
    ['at two files', [path, path], 'stratos verify <car'],
    ['at options alone', key, 'stratos verify <car'],
    ['at an option that there is not', [path, '--fast'], 'not known here'],
    ['at an option of admin', [path, '--json'], 'not known here'],
    ['at an option twice', [path, '--partial', '--partial'], 'given twice'],
    ['at a value that is not taken', [path, '--partial=yes'], 'takes no value'],
    ['at an option without its value', [path, '--key'], '--key needs a value'],
    ['at a key that is none', [path, '--key', 'did:key:z6Mk'], '--key: a key must'],
    ['at a DID in place of a key', [path, '--key', 'did:plc:abc'], '--key: a key must'],
    ['at a DID that is none', [path, '--did', 'alice.test'], '--did must be a DID'],
    ['at a service that is none', [path, '--service', 'a.test'], '--service must be a DID'],
    ['at a service beside a key', [path, ...key, '--service', 'did:web:a.test'], 'leave out'],
    ['at a record without a key', [path, '--record', 'a.b.c'], 'collection/rkey'],
    ['at a record by URI', [path, '--record', 'at://did:plc:a/b.c.d/e'], 'collection/rkey'],
    ['at a credential for a file', [path, '--authorization', credential], 'for a URL alone'],
    ['at a credential for http', ['http://a.test/x', '--authorization', credential], 'not sent'],
    ['at a credential as an argument', [path, '--token', 'hunter2-hunter2'], 'the file of --auth'],
    [
      'at a file that is not there',
      [join(folder, 'absent'), ...key],
      'absent cannot be read: ENOENT',
    ],
    ['at a folder', [folder, ...key], 'EISDIR'],
    ['at a credential that is not there', [origin, '--authorization', `${folder}/no`], 'ENOENT'],
    ['at a URL of another kind', ['ftp://a.test/x', ...key], 'ENOENT'],
    [
      'at a host where nobody listens',
      ['http://127.0.0.1:1/', ...key],
      '127.0.0.1:1: ECONNREFUSED',
    ],
    [
      'at a URL with a password',
      [origin.replace('//', '//a:hunter2@'), ...key],
      'user name or password',
    ],
  ])('%s', async (_, args, why) => {
    const asked = seen.length
    const checked = await runVerify(args)
    expect(checked).toMatchObject({ code: 2, lines: [] })
    expect(checked.err).toContain(why)
    expect(checked.err).not.toContain('hunter2')
    expect(seen.length).toBe(asked)
  })

  test.each<[string, () => Response, string]>([
    ['that refuses', () => new Response('secret', { status: 403 }), 'answered 403'],
    ['that fails', () => new Response('secret', { status: 500 }), 'answered 500'],
    ['that answers nothing', () => new Response(null, { status: 204 }), 'answered 204'],
    ['that sends in circles', () => Response.redirect(`${origin}/again`), 'too many redirects'],
    [
      'that compresses',
      () => new Response(car, { headers: { 'content-encoding': 'gzip' } }),
      'gzip',
    ],
  ])('at a server %s', async (_, given, why) => {
    answer = given
    const checked = await runVerify([`${origin}/car?secret=1`, ...key])
    expect(checked).toMatchObject({ code: 2, lines: [] })
    expect(checked.err).toContain(why)
    expect(checked.err).not.toContain('secret')
  })

  test('at an answer that is cut', async () => {
    const head = `HTTP/1.1 200 OK\r\ncontent-length: ${car.length}\r\n\r\n`
    const cut = Bun.listen({
      port: 0,
      hostname: '127.0.0.1',
      socket: { data: (socket) => void socket.end(joined(Buffer.from(head), car.subarray(0, -1))) },
    })
    const checked = await runVerify([`http://127.0.0.1:${cut.port}/`, ...key])
    cut.stop(true)
    expect(checked).toMatchObject({ code: 2, lines: [] })
    expect(checked.err).toContain('could not be had')
  })

  test('at a network that the settings do not allow, and at bad settings', async () => {
    const asked = seen.length
    const guarded = await runVerify([origin, ...key], { STRATOS_ALLOW_PRIVATE_NETWORK: 'false' })
    expect(guarded.err).toContain('STRATOS_ALLOW_PRIVATE_NETWORK=true admits more')
    const env = { STRATOS_ALLOW_PRIVATE_NETWORK: 'perhaps' }
    expect((await runVerify([path], env)).err).toContain('must be true, false')
    expect((await runVerify([path], { STRATOS_PLC_URL: 'plc' })).err).toContain('STRATOS_PLC_URL')
    expect(seen.length).toBe(asked)
  })

  test.each(['', 'a\nb', 'Bearer \u{1}', 'é', 'x'.repeat(9000)])(
    'at a credential that no header can hold (%#)',
    async (text) => {
      const bad = join(folder, 'bad')
      await Bun.write(bad, text)
      const checked = await runVerify([origin, '--authorization', bad, ...key])
      expect(checked).toMatchObject({ code: 2, lines: [] })
      expect(checked.err).toContain('in one line')
    },
  )

  test('at more bytes than may come, of which none are kept', async () => {
    const before = copies()
    const endless = [new Uint8Array(1024 ** 3 + 1)]
    const checked = await runVerify(['-', ...key], {}, endless)
    expect(checked).toMatchObject({ code: 2, lines: [] })
    expect(checked.err).toContain('more than 1073741824 bytes')
    expect(copies()).toEqual(before)
  })
})

describe('a credential', () => {
  test('is the header of the request, and stays behind at another origin', async () => {
    answer = () => Response.redirect(`http://127.0.0.1:${other.port}/there`)
    seen.length = 0
    const checked = await runVerify([`${origin}/here`, '--authorization', credential, ...key])
    expect(checked.code).toBe(0)
    expect(seen).toEqual([
      { path: '/here', authorization: 'Bearer hunter2-hunter2' },
      { path: '/there', authorization: null },
    ])
  })
})

test('a copy has no name while it is read', async () => {
  const before = copies()
  let during: string[] = []
  const pieces = function* () {
    yield car.subarray(0, 100)
    during = copies()
    yield car.subarray(100)
  }
  const checked = await runVerify(['-', ...key], {}, pieces())
  expect(checked).toMatchObject({ code: 0, err: '' })
  expect(during).toEqual(before)
})

test('a big input tells how far it is', async () => {
  const padding = new Uint8Array(70 * 1024 ** 2)
  const checked = await runVerify(['-', ...key], {}, [car, padding])
  expect(checked).toMatchObject({ code: 1, failed: ['hashes'] })
  expect(checked.err).toBe('70 MiB so far ...\n')
})

test('the help names every option, and needs nothing', async () => {
  for (const args of [[], ['help'], ['--help'], [path, '--help']]) {
    const { code, lines, err } = await runVerify(args, { STRATOS_PLC_URL: 'plc' })
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const options = ['key', 'service', 'did', 'partial', 'record', 'authorization']
    for (const option of options) expect(lines.join()).toContain(`  --${option}`)
  }
})

test('a reader of the first line alone does not get the code for yes', async () => {
  const script = `set -o pipefail; ${process.execPath} src/main.ts verify ${path} ${key.join(' ')}`
  const whole = Bun.spawn(['bash', '-c', script], { cwd: projectFolder, stdout: 'pipe' })
  expect(await whole.exited).toBe(0)
  const closed = Bun.spawn(['bash', '-c', `${script} | true`], { cwd: projectFolder })
  expect(await closed.exited).not.toBe(0)
})

/** Files of copies that have a name. */
function copies(): string[] {
  return readdirSync(tmpdir()).filter((name) => /^stratos-[0-9a-f]{8}-/.test(name))
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Bun.concatArrayBuffers(parts))
}
