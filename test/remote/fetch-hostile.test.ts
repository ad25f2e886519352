import { afterAll, describe, expect, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createGuardedFetch, FetchFailed, FetchRefused } from '../../src/remote/fetch.ts'
import { certificateFor } from '../kit/certificate.ts'
import { failureOf } from '../kit/wait.ts'

const limits = { timeoutMs: 2000, responseBytesMax: 1000 }
const closed = createGuardedFetch({ ...limits, allowPrivateNetwork: false })

describe('however it is written, loopback is refused as', () => {
  test.each([
    'https://0177.0.0.1/',
    'https://017700000001/',
    'https://0x7f.1/',
    'https://0x7F.0x0.0x0.0x1/',
    'https://127.0.1/',
    'https://127.000.000.001/',
    'https://0/',
    'https://0.0.0.0/',
    'https://4294967295/',
    'https://%31%32%37.0.0.1/',
    'https://１２７.０.０.１/',
    'https://127。0。0。1/',
    'https://①②⑦.0.0.1/',
    'https://127.0.0.1./',
    'https://localhost./',
    'https://LOCALHOST/',
    'https://anything.localhost/',
    'https://ⓛocalhost/',
    'https://[::]/',
    'https://[0:0:0:0:0:0:0:1]/',
    'https://[::127.0.0.1]/',
    'https://[::ffff:7f00:1]/',
    'https://[::ffff:0:127.0.0.1]/',
    'https://[64:ff9b::127.0.0.1]/',
    'https://[64:ff9b:1::7f00:1]/',
    'https://[2002:7f00:1::]/',
    'https://[2001:0:5db8:d70e::7f00:1]/',
    'https://[fe80::1]/',
    'https://[fec0::1]/',
    'https://[fd00::1]/',
  ])('%s', async (url) => {
    expect(await failureOf(closed(url))).toBeInstanceOf(FetchRefused)
  })
})

describe('refused is an address', () => {
  test.each([
    'https://[fe80::1%25lo]/',
    'https://[::1%lo]/',
    'https://127.0.0.1.5/',
    'https://999.1.1.1/',
    'https://exa mple.com/',
    'https://',
  ])('that makes no URL: %s', async (url) => {
    expect(await failureOf(closed(url))).toBeInstanceOf(FetchRefused)
  })

  test.each([
    'http://pds.example.com/',
    'ws://pds.example.com/',
    'data:text/plain,x',
    'blob:https://pds.example.com/1',
    'ftp://pds.example.com/',
    'https://pds.example.com:80/',
    'https://pds.example.com:8443/',
    'https://pds.example.com@evil.example/',
    'https://:@[::1]/',
    'https://user@pds.example.com/',
  ])('of a scheme, port or user that is not for us: %s', async (url) => {
    const lookUps: string[] = []
    const lookup = async (name: string) => {
      lookUps.push(name)
      return ['93.184.215.14']
    }
    const guarded = createGuardedFetch({ ...limits, allowPrivateNetwork: false, lookup })
    expect(await failureOf(guarded(url))).toBeInstanceOf(FetchRefused)
    expect(lookUps).toEqual([])
  })

  test.each(['::ffff:10.0.0.1', '64:ff9b::a00:1', '2002:a00:1::1', 'fe80::1%eth0', 'no address'])(
    'whose name leads to %s',
    async (address) => {
      const lookup = async () => ['93.184.215.14', address]
      const guarded = createGuardedFetch({ ...limits, allowPrivateNetwork: false, lookup })
      expect(await failureOf(guarded('https://pds.example.com/'))).toBeInstanceOf(FetchRefused)
    },
  )
})

describe('an answer ends within its limits', () => {
  const impatient = { ...limits, allowPrivateNetwork: true, timeoutMs: 200 }
  const ok = 'HTTP/1.1 200 OK\r\n'
  const gzipped = Bun.gzipSync(new Uint8Array(100_000))
  const size = gzipped.length.toString(16)

  test.each<[string, (socket: Socket) => void, typeof FetchFailed | typeof FetchRefused]>([
    ['with a header without end', endless(`${ok}X-Long: `, 'x'.repeat(65_536)), FetchFailed],
    ['with headers without number', endless(ok, 'X-One: 1\r\n'.repeat(5000)), FetchFailed],
    ['of interim answers', endless('', 'HTTP/1.1 103 Early\r\n\r\n'.repeat(1000)), FetchFailed],
    ['that never begins', () => undefined, FetchFailed],
    ['whose headers drip', dripping(`${ok}X-Long: `, 'x'), FetchFailed],
    ['whose body drips', dripping(`${ok}Content-Length: 500\r\n\r\n`, 'x'), FetchFailed],
    ['that announces more', once(`${ok}Content-Length: 99999999999\r\n\r\nx`), FetchFailed],
    ['that is cut off', (socket) => socket.end(`${ok}Content-Length: 10\r\n\r\nx`), FetchFailed],
    [
      'of chunks without end',
      endless(`${ok}Transfer-Encoding: chunked\r\n\r\n`, `ffff\r\n${'x'.repeat(65_535)}\r\n`),
      FetchRefused,
    ],
    ['until the connection ends', endless(`${ok}\r\n`, 'x'.repeat(65_536)), FetchRefused],
    [
      'that is compressed',
      once(`${ok}Content-Encoding: gzip\r\nContent-Length: ${gzipped.length}\r\n\r\n`, gzipped),
      FetchRefused,
    ],
    [
      'that is compressed twice',
      once(`${ok}Content-Encoding: identity, br\r\nContent-Length: 1\r\n\r\nx`),
      FetchRefused,
    ],
    ['of another protocol', (socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n'), FetchFailed],
  ])('%s', async (_, answer, error) => {
    await using server = await listening(answer)
    const guarded = createGuardedFetch(impatient)
    expect(await failureOf(guarded(server.url))).toBeInstanceOf(error)
  })

  test('and what is compressed for the transfer stays so', async () => {
    const head = `${ok}Transfer-Encoding: gzip, chunked\r\n\r\n${size}\r\n`
    await using server = await listening(once(head, gzipped, '\r\n0\r\n\r\n'))
    const bytes = await (await createGuardedFetch(impatient)(server.url)).bytes()
    expect(bytes).toHaveLength(gzipped.length)
  })
})

// A network of one's own needs no rights on most systems, but not on all.
const ownNetwork = ['unshare', '--map-root-user', '--net']
const hasNetwork =
  Bun.which('unshare') !== null &&
  Bun.which('ip') !== null &&
  Bun.spawnSync([...ownNetwork, 'ip', 'link', 'set', 'lo', 'up']).exitCode === 0
if (!hasNetwork) console.log('no network namespace can be made: tests of public addresses skipped')

describe.skipIf(!hasNetwork)('among public addresses', () => {
  const network = hasNetwork ? visits() : undefined
  const result = async (name: string) => (await network)?.results[name]
  afterAll(async () => {
    await network
  })

  test('one is connected to, asked by its name, and looked up once', async () => {
    const { seen } = (await network) ?? { seen: undefined }
    expect(await result('plain')).toEqual({ status: 200, error: '', lookUps: ['pds.test'] })
    expect(seen?.['pds']?.[0]).toMatchObject({ host: 'pds.test' })
  })

  test('a name that leads elsewhere the next moment is not followed there', async () => {
    expect(await result('rebound')).toEqual({ status: 200, error: '', lookUps: ['pds.test'] })
  })

  test('a redirect to a private address, or to a name that now has one, is refused', async () => {
    for (const name of ['inward', 'loopback', 'back']) {
      expect(await result(name)).toMatchObject({
        status: 0,
        error: expect.stringMatching(/^FetchRefused: .*no public address/),
      })
    }
    expect((await network)?.seen['loopback']).toEqual([])
  })

  test('a certificate of another name, or of none, does not count', async () => {
    for (const name of ['otherName', 'literal']) {
      const error = expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID')
      expect(await result(name)).toMatchObject({ status: 0, error })
    }
    expect(await result('dotted')).toMatchObject({ status: 200 })
  })

  test('credentials stay behind when the origin changes', async () => {
    expect(await result('onward')).toMatchObject({ status: 200 })
    const { seen } = (await network) ?? { seen: undefined }
    expect(seen?.['second']).toEqual([{ host: 'second.test', credentials: [] }])
    expect(seen?.['pds']?.[0]).toMatchObject({ credentials: ['authorization', 'dpop', 'cookie'] })
  })

  test('the next one is tried where nobody answers', async () => {
    expect(await result('nextAddress')).toMatchObject({ status: 200, lookUps: ['pds.test'] })
  })
})

interface Visits {
  readonly results: Readonly<Record<string, unknown>>
  readonly seen: Readonly<Record<string, readonly unknown[]>>
}

async function visits(): Promise<Visits> {
  const folder = await mkdtemp(join(tmpdir(), 'stratos-public-'))
  try {
    const [pds, second] = [certificateFor('pds.test'), certificateFor('second.test')]
    const trusted = join(folder, 'trusted.pem')
    await Bun.write(trusted, pds.cert + second.cert)
    const program = fileURLToPath(import.meta.resolve('./public-network.ts'))
    const certificates = JSON.stringify({ pds, second })
    const child = Bun.spawn([...ownNetwork, process.execPath, program, certificates], {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: trusted },
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ])
    if ((await child.exited) !== 0) throw new Error(err)
    return JSON.parse(out)
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** A server that answers each first bytes of a connection in this way. */
async function listening(answer: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('data', () => answer(socket))
  })
  const ready = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', ready.resolve)
  await ready.promise
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}/`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

function once(...parts: readonly (string | Uint8Array)[]): (socket: Socket) => void {
  return (socket) => {
    for (const part of parts) socket.write(part)
  }
}

/** As fast as it is read, and no more than what would be too much by far. */
function endless(head: string, part: string): (socket: Socket) => void {
  return (socket) => {
    socket.write(head)
    let count = 0
    const next = () => {
      if (!socket.destroyed && count++ < 500) socket.write(part, next)
    }
    next()
  }
}

function dripping(head: string, part: string): (socket: Socket) => void {
  return (socket) => {
    socket.write(head)
    const timer = setInterval(() => {
      if (socket.destroyed) clearInterval(timer)
      else socket.write(part)
    }, 20)
  }
}
