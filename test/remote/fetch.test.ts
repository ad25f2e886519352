import { afterAll, describe, expect, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isPublicAddress } from '../../src/remote/address.ts'
import { FetchFailed, FetchRefused, createGuardedFetch, pin } from '../../src/remote/fetch.ts'

const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url)
    switch (pathname) {
      case '/echo': {
        const headers = Object.fromEntries(request.headers)
        return Response.json({ method: request.method, body: await request.text(), headers })
      }
      case '/to':
        return new Response(null, {
          status: Number(searchParams.get('status') ?? 302),
          headers: { location: searchParams.get('to') ?? '/echo' },
        })
      case '/loop':
        return Response.redirect('/loop')
      case '/refused':
        return new Response('refused', { status: 403 })
      case '/bytes':
        return new Response(new Uint8Array(Number(searchParams.get('size'))))
      case '/encoded':
        return new Response(Bun.gzipSync(new Uint8Array(10)), {
          headers: { 'content-encoding': 'gzip' },
        })
      case '/drip':
        return new Response(drip(request.signal))
      default:
        return new Response(null, { status: 204 })
    }
  },
})
const other = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: (request) => Response.json({ headers: Object.fromEntries(request.headers) }),
})
const base = `http://127.0.0.1:${server.port}`
const open = createGuardedFetch({
  allowPrivateNetwork: true,
  timeoutMs: 2000,
  responseBytesMax: 1000,
})

afterAll(async () => {
  await Promise.all([server.stop(true), other.stop(true)])
})

describe('on the public internet', () => {
  const refused = [
    ['plain http', 'http://93.184.215.14/'],
    ['another port', 'https://93.184.215.14:8443/'],
    ['a user name', 'https://user@93.184.215.14/'],
    ['a password', 'https://user:secret@93.184.215.14/'],
    ['a file', 'file:///etc/passwd'],
    ['loopback', 'https://127.0.0.1/'],
    ['loopback in hexadecimal', 'https://0x7f000001/'],
    ['loopback in decimal', 'https://2130706433/'],
    ['loopback in short', 'https://127.1/'],
    ['IPv6 loopback', 'https://[::1]/'],
    ['IPv4 in IPv6', 'https://[::ffff:127.0.0.1]/'],
    ['cloud metadata', 'https://169.254.169.254/latest/meta-data'],
    ['a name of this machine', 'https://localhost/'],
  ]
  test.each(refused)('%s is refused', async (_, url) => {
    const guarded = createGuardedFetch({
      allowPrivateNetwork: false,
      timeoutMs: 2000,
      responseBytesMax: 1000,
    })
    expect(await failure(guarded(url))).toBeInstanceOf(FetchRefused)
  })

  test('a name with one private address among public ones is refused', async () => {
    const guarded = createGuardedFetch({
      allowPrivateNetwork: false,
      timeoutMs: 2000,
      responseBytesMax: 1000,
      lookup: async () => ['93.184.215.14', '10.0.0.1'],
    })
    expect(await failure(guarded('https://pds.example.com/'))).toBeInstanceOf(FetchRefused)
  })

  test('a name without addresses fails, and so does a look-up that never ends', async () => {
    const options = { allowPrivateNetwork: false, timeoutMs: 50, responseBytesMax: 1000 }
    const none = createGuardedFetch({ ...options, lookup: async () => [] })
    expect(await failure(none('https://pds.example.com/'))).toBeInstanceOf(FetchFailed)
    const stuck = createGuardedFetch({ ...options, lookup: () => new Promise(() => undefined) })
    expect(await failure(stuck('https://pds.example.com/'))).toBeInstanceOf(FetchFailed)
  })
})

describe('an address', () => {
  const closed = [
    '0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1',
    '172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255',
    '198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255',
    ':: ::1 ::ffff:8.8.8.8 ::ffff:10.0.0.1 ::8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1',
    '2001::1 2001:20::1 2001:db8::1 2002:808:808::1 3fff::1 fc00::1 fd12::1 fe80::1 fe80::1%lo',
    'fec0::1 ff02::1 5f00::1 localhost 1.2.3 999.1.1.1',
  ]
  test.each(closed.join(' ').split(' '))('%s is not public', (address) => {
    expect(isPublicAddress(address)).toBe(false)
  })

  const open = '1.1.1.1 9.255.255.255 100.63.0.1 100.128.0.1 172.15.0.1 172.32.0.1 192.1.0.1'
  test.each(`${open} 223.255.255.255 2606:4700::1111 2a00::1 2001:4860::1`.split(' '))(
    '%s is public',
    (address) => {
      expect(isPublicAddress(address)).toBe(true)
    },
  )
})

describe('a redirect', () => {
  test('is refused where the caller wants none', async () => {
    const request = new Request(`${base}/to`, { redirect: 'error' })
    expect(await failure(open(request))).toBeInstanceOf(FetchRefused)
    expect(await failure(open(`${base}/to`, { redirect: 'error' }))).toBeInstanceOf(FetchRefused)
  })

  test('of a POST is refused', async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      const answer = open(`${base}/to?status=${status}`, { method: 'POST', body: 'x' })
      expect(await failure(answer)).toBeInstanceOf(FetchRefused)
    }
  })

  test('to what the first address could not be either is refused', async () => {
    for (const to of ['file:///etc/passwd', 'http://user:pw@127.0.0.1/', 'http://[']) {
      const answer = open(`${base}/to?to=${encodeURIComponent(to)}`)
      expect(await failure(answer)).toBeInstanceOf(FetchRefused)
    }
  })

  test('without end is refused', async () => {
    expect(await failure(open(`${base}/loop`))).toBeInstanceOf(FetchRefused)
  })

  test('is handed to the caller that wants to see it', async () => {
    const response = await open(new Request(`${base}/to`, { redirect: 'manual' }))
    expect(response.status).toBe(302)
    expect(response.headers.get('location')).toBe('/echo')
  })

  const credentials = { authorization: 'DPoP a', dpop: 'b', cookie: 'c', accept: 'text/d' }

  test('to another origin leaves credentials behind', async () => {
    const to = encodeURIComponent(`http://127.0.0.1:${other.port}/`)
    const { headers } = await json(await open(`${base}/to?to=${to}`, { headers: credentials }))
    expect(headers).toMatchObject({ accept: 'text/d' })
    for (const name of ['authorization', 'dpop', 'cookie']) expect(headers).not.toHaveProperty(name)
  })

  test('within an origin keeps them', async () => {
    const { headers } = await json(await open(`${base}/to`, { headers: credentials }))
    expect(headers).toMatchObject(credentials)
  })
})

describe('an answer', () => {
  test('over the limit is refused, and one at the limit is not', async () => {
    expect(await failure(open(`${base}/bytes?size=1001`))).toBeInstanceOf(FetchRefused)
    expect(await (await open(`${base}/bytes?size=1000`)).bytes()).toHaveLength(1000)
  })

  test('over the limit of its caller is refused, who cannot raise ours', async () => {
    expect(await failure(open(`${base}/bytes?size=11`, { bytesMax: 10 }))).toBeInstanceOf(
      FetchRefused,
    )
    expect(await (await open(`${base}/bytes?size=10`, { bytesMax: 10 })).bytes()).toHaveLength(10)
    const answer = open(`${base}/bytes?size=1001`, { bytesMax: 2000 })
    expect(await failure(answer)).toBeInstanceOf(FetchRefused)
  })

  test('that is encoded is refused, because none was asked for', async () => {
    expect(await failure(open(`${base}/encoded`))).toBeInstanceOf(FetchRefused)
    const { headers } = await json(await open(`${base}/echo`))
    expect(headers).toMatchObject({ 'accept-encoding': 'identity' })
  })

  test('that drips past the time limit fails', async () => {
    const impatient = createGuardedFetch({
      allowPrivateNetwork: true,
      timeoutMs: 100,
      responseBytesMax: 1000,
    })
    expect(await failure(impatient(`${base}/drip`))).toBeInstanceOf(FetchFailed)
  })

  test('ends with the reason of a caller that gave up', async () => {
    const caller = new AbortController()
    const answer = open(`${base}/drip`, { signal: caller.signal })
    caller.abort(new Error('enough'))
    expect(await failure(answer)).toHaveProperty('message', 'enough')
  })

  test('may be empty', async () => {
    const response = await open(`${base}/nothing`)
    expect([response.status, await response.text()]).toEqual([204, ''])
  })
})

describe('a sink', () => {
  test('takes a good answer in pieces, of which none stay in memory', async () => {
    const pieces: Uint8Array[] = []
    const sink = (bytes: Uint8Array) => void pieces.push(bytes)
    const response = await open(`${base}/to?to=/bytes?size=900`, { sink })
    expect(response.status).toBe(200)
    expect((await response.bytes()).length).toBe(0)
    expect(Buffer.concat(pieces).length).toBe(900)
  })

  test('takes no redirect and no refusal', async () => {
    const sink = () => {
      throw new Error('it was given something')
    }
    const refused = await open(`${base}/refused`, { sink })
    expect([refused.status, await refused.text()]).toEqual([403, 'refused'])
    const redirect = await open(`${base}/to?status=307`, { sink, redirect: 'manual' })
    expect(redirect.status).toBe(307)
  })

  test('gets no more than the limit, and ends the exchange when it throws', async () => {
    let size = 0
    const sink = (bytes: Uint8Array) => void (size += bytes.length)
    const refusal = await failure(open(`${base}/bytes?size=1001`, { sink }))
    expect(refusal).toBeInstanceOf(FetchRefused)
    expect(size).toBeLessThanOrEqual(1000)
    const full = () => {
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
    }
    const failed = await failure(open(`${base}/bytes?size=10`, { sink: full }))
    expect(failed).toBeInstanceOf(FetchFailed)
    expect(String(failed)).toContain('ENOSPC')
  })
})

test('a Request and its parts arrive alike', async () => {
  const init = { method: 'POST', body: 'text', headers: { 'x-own': 'yes' } }
  const expected = { method: 'POST', body: 'text', headers: { 'x-own': 'yes' } }
  expect(await json(await open(`${base}/echo`, init))).toMatchObject(expected)
  expect(await json(await open(new Request(`${base}/echo`, init)))).toMatchObject(expected)
  expect(await json(await open(new URL(`${base}/echo`), init))).toMatchObject(expected)
})

test('an error tells the host and no path, query or password', async () => {
  const failed = await failure(open('http://127.0.0.1:1/path?token=secret'))
  expect(failed).toBeInstanceOf(FetchFailed)
  const refused = await failure(open('http://user:secret@127.0.0.1:1/path?token=secret'))
  for (const error of [failed, refused]) {
    expect(Bun.inspect(error)).toContain('127.0.0.1:1')
    expect(String(error) + JSON.stringify(error)).not.toMatch(/secret|path/)
  }
})

test('a proxy in the environment is not used', async () => {
  const program = `
    import { createGuardedFetch } from '${join(import.meta.dir, '../../src/remote/fetch.ts')}'
    const get = createGuardedFetch(
      { allowPrivateNetwork: true, timeoutMs: 2000, responseBytesMax: 1000 })
    process.stdout.write(String((await get('${base}/nothing')).status))`
  const child = Bun.spawn([process.execPath, '-e', program], {
    env: { ...process.env, HTTP_PROXY: 'http://127.0.0.1:1', http_proxy: 'http://127.0.0.1:1' },
    stdout: 'pipe',
  })
  expect(await new Response(child.stdout).text()).toBe('204')
})

test.skipIf(Bun.which('openssl') === null)(
  'a pinned connection asks for the name and checks its certificate',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'stratos-fetch-'))
    const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
    const made = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2
      -keyout ${key} -out ${cert} -subj /CN=pds.test -addext subjectAltName=DNS:pds.test`
    await Bun.spawn(['openssl', ...made.split(/\s+/)], { stderr: 'ignore' }).exited
    const secure = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      tls: { key: Bun.file(key), cert: Bun.file(cert) },
      fetch: (request) => new Response(request.headers.get('host')),
    })
    const ca = await Bun.file(cert).text()
    const get = async (name: string) => {
      const url = new URL(`https://${name}:${secure.port}/`)
      const pinned = pin(url, '127.0.0.1', new Headers())
      return fetch(pinned.url, { headers: pinned.headers, tls: { ...pinned.tls, ca } })
    }
    try {
      expect(await (await get('pds.test')).text()).toBe(`pds.test:${secure.port}`)
      expect(await failure(get('other.test'))).toHaveProperty(
        'code',
        'ERR_TLS_CERT_ALTNAME_INVALID',
      )
    } finally {
      await secure.stop(true)
      await rm(folder, { recursive: true })
    }
  },
)

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}

async function json(response: Response): Promise<{ headers: object }> {
  const value: unknown = await response.json()
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of our own server above
  return value as { headers: object }
}

function drip(signal: AbortSignal): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      await Bun.sleep(20)
      if (signal.aborted) controller.close()
      else controller.enqueue(new Uint8Array(1))
    },
  })
}
