import { afterAll, expect, test } from 'bun:test'
import { connect } from 'node:net'
import { keptOpen } from '../../src/api/kept-open.ts'
import { within } from '../kit/wait.ts'

/** The shortest that there is; connections are looked at every four seconds. */
const idleSeconds = 1

const server: Bun.Server<undefined> = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  idleTimeout: idleSeconds,
  fetch: (request) =>
    keptOpen(request, { server, idleSeconds }, async (keepOpen) => {
      keepOpen()
      const body = await request.text()
      return new Response(body, { status: body === 'bad' ? 400 : 200 })
    }),
})
afterAll(async () => {
  await server.stop(true)
})

test.each(['good', 'bad'])('a connection that was kept open for a %s call ends', async (body) => {
  const socket = connect({ port: Number(server.port), host: '127.0.0.1' })
  const closed = Promise.withResolvers<void>()
  socket.on('close', () => closed.resolve())
  const head = `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n`
  socket.write(head + body)
  const first = Promise.withResolvers<string>()
  socket.on('data', (bytes) => first.resolve(String(bytes)))
  expect(await first.promise).toEndWith(body)
  await within(20_000, 'end of the connection', closed.promise)
})
