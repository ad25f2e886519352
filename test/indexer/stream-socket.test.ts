import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { messageFrame } from '../../src/atproto/stream-frame.ts'
import { StreamSocket } from '../../src/indexer/stream-socket.ts'
import { eventually } from '../kit/wait.ts'

const frame = messageFrame('#info', { name: 'Heartbeat' })

let service: Bun.Server<undefined>
let line: Line
let ofService: Bun.ServerWebSocket[]

beforeAll(() => {
  service = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: (request, server) => (server.upgrade(request) ? undefined : new Response('no socket')),
    websocket: { open: (socket) => void ofService.push(socket), message: () => undefined },
  })
})
afterAll(async () => {
  await service.stop(true)
})
beforeEach(() => {
  ofService = []
})

test('of a frame that was on its way for long it is known that it may be old', async () => {
  await using way = await Line.to(service.port ?? 0)
  line = way
  using socket = await opened({ isProven: true })
  await eventually('answer', () => (socket.provenMs > -Infinity ? true : undefined))
  const heldFromMs = Date.now()
  line.hold()
  ofService[0]?.sendBinary(frame)
  await Bun.sleep(1_500)
  line.release()
  const { frames, sentMs } = await socket.take()
  expect(frames).toHaveLength(1)
  expect(sentMs).toBeGreaterThan(heldFromMs - 1_500)
  expect(sentMs).toBeLessThanOrEqual(heldFromMs)
  // And of what comes after that it is not.
  await eventually('answer', () => (socket.provenMs > heldFromMs + 1_500 ? true : undefined))
  ofService[0]?.sendBinary(frame)
  expect((await socket.take()).sentMs).toBeGreaterThan(heldFromMs + 1_500)
})

test('of a stream that is not asked for answers it is not known when frames were sent', async () => {
  await using way = await Line.to(service.port ?? 0)
  line = way
  using socket = await opened({})
  ofService[0]?.sendBinary(frame)
  expect((await socket.take()).sentMs).toBe(-Infinity)
})

async function opened(options: { readonly isProven?: boolean }): Promise<StreamSocket> {
  const web = new WebSocket(`ws://127.0.0.1:${line.port}`)
  web.binaryType = 'arraybuffer'
  const socket = new StreamSocket(web, options)
  expect(await socket.opened()).toBe(true)
  await eventually('socket', () => ofService[0])
  return socket
}

/** A way to a server on which what is said can be kept for a while. */
class Line implements AsyncDisposable {
  readonly #server: Server
  readonly #ends = new Set<Socket>()

  private constructor(port: number) {
    this.#server = createServer((near) => {
      const far = connect(port, '127.0.0.1')
      for (const end of [near, far]) {
        this.#ends.add(end)
        end.on('error', () => end.destroy())
      }
      near.pipe(far)
      far.on('data', (bytes) => void near.write(bytes))
      far.on('close', () => near.destroy())
    })
  }

  static async to(port: number): Promise<Line> {
    const line = new Line(port)
    line.#server.listen(0, '127.0.0.1')
    await once(line.#server, 'listening')
    return line
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' ? (address?.port ?? 0) : 0
  }

  hold(): void {
    for (const end of this.#ends) end.cork()
  }

  release(): void {
    for (const end of this.#ends) end.uncork()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends) end.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
