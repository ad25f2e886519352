import { expect, test } from 'bun:test'
import { FirehoseUrlError, parseFirehoseUrl } from '../../src/indexer/firehose-url.ts'
import { pin } from '../../src/remote/fetch.ts'
import { certificateFor } from '../kit/certificate.ts'

test('a pinned socket asks for the name, and checks its certificate', async () => {
  const { cert, key } = certificateFor('relay.test')
  const hosts: (string | null)[] = []
  const secure = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    tls: { cert, key },
    fetch: (request, upgrader) => {
      hosts.push(request.headers.get('host'))
      return upgrader.upgrade(request) ? undefined : new Response('no')
    },
    websocket: { message: () => undefined },
  })
  const opens = async (name: string) => {
    const url = new URL(`wss://${name}:${secure.port}/`)
    const { url: to, headers, tls } = pin(url, '127.0.0.1', new Headers())
    const socket = new WebSocket(to, { headers, tls: { ...tls, ca: cert } })
    const opened = Promise.withResolvers<boolean>()
    socket.addEventListener('open', () => opened.resolve(true))
    socket.addEventListener('close', () => opened.resolve(false))
    const isOpen = await opened.promise
    socket.terminate()
    return isOpen
  }
  try {
    expect([await opens('relay.test'), await opens('other.test')]).toEqual([true, false])
    expect(hosts).toEqual([`relay.test:${secure.port}`])
  } finally {
    await secure.stop(true)
  }
})

test('a URL is wss, or ws in closed networks', () => {
  const closed = { allowPrivateNetwork: true }
  const open = { allowPrivateNetwork: false }
  for (const [text, around] of [
    ['ws://user:secret@relay.test', open],
    ['https://secret.test', closed],
    ['secret', closed],
  ] as const) {
    expect(() => parseFirehoseUrl(text, around)).toThrow(FirehoseUrlError)
    expect(() => parseFirehoseUrl(text, around)).not.toThrow('secret')
  }
  const { url: at, name } = parseFirehoseUrl('wss://u:p@relay.test/other/path?key=k#x', open)
  expect([at.href, name]).toEqual([
    'wss://u:p@relay.test/other/path?key=k',
    'wss://relay.test/other/path',
  ])
})
