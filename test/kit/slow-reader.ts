import { decodeFirst } from '@atcute/cbor'
import { connect, type Socket } from 'node:net'
import { randomBytes } from 'node:crypto'
import { within } from './wait.ts'
import { isFields } from './xrpc.ts'

interface Received {
  readonly type: string
  readonly body: Readonly<Record<string, unknown>>
}

/** A reader of a stream who takes nothing from the network until they are told to. */
export class SlowReader implements Disposable {
  readonly received: Received[] = []
  code: number | undefined
  readonly #socket: Socket
  readonly #ended = Promise.withResolvers<void>()
  #bytes = Buffer.alloc(0)
  #isOpen = false

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (bytes: Buffer) => this.#take(bytes))
    socket.on('error', () => this.#ended.resolve())
    socket.on('close', () => this.#ended.resolve())
  }

  static async open(port: number, path: string, authorization: string): Promise<SlowReader> {
    const socket = connect({ port, host: '127.0.0.1' })
    const reader = new SlowReader(socket)
    const head = [
      `GET ${path} HTTP/1.1`,
      `Host: localhost:${port}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      `Authorization: ${authorization}`,
    ]
    const opened = Promise.withResolvers<void>()
    socket.once('data', () => opened.resolve())
    socket.write(`${head.join('\r\n')}\r\n\r\n`)
    await within(10_000, 'upgrade', opened.promise)
    socket.pause()
    return reader
  }

  /** Takes a little of what waits in the network, now and then. */
  trickle(everyMs: number): Disposable {
    const timer = setInterval(() => {
      this.#socket.resume()
      setImmediate(() => this.#socket.pause())
    }, everyMs)
    return { [Symbol.dispose]: () => clearInterval(timer) }
  }

  /** Takes all there is, up to the end of the connection. */
  async rest(): Promise<void> {
    this.#socket.resume()
    await within(20_000, 'end of the connection', this.#ended.promise)
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }

  #take(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    if (!this.#isOpen) {
      const end = this.#bytes.indexOf('\r\n\r\n')
      if (end < 0) return
      if (!this.#bytes.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error('no upgrade')
      this.#isOpen = true
      this.#bytes = this.#bytes.subarray(end + 4)
    }
    for (let frame = this.#frame(); frame !== undefined; frame = this.#frame()) {
      if (frame.kind === 8) this.code = frame.content.readUInt16BE(0)
      if (frame.kind === 2) this.received.push(decoded(frame.content))
    }
  }

  /** @see https://www.rfc-editor.org/rfc/rfc6455#section-5.2 */
  #frame(): { readonly kind: number; readonly content: Buffer } | undefined {
    const bytes = this.#bytes
    if (bytes.length < 2) return undefined
    const short = bytes.readUInt8(1)
    const start = short === 126 ? 4 : short === 127 ? 10 : 2
    if (bytes.length < start) return undefined
    const length =
      short === 126
        ? bytes.readUInt16BE(2)
        : short === 127
          ? Number(bytes.readBigUInt64BE(2))
          : short
    if (bytes.length < start + length) return undefined
    this.#bytes = bytes.subarray(start + length)
    return { kind: bytes.readUInt8(0) & 15, content: bytes.subarray(start, start + length) }
  }
}

function decoded(bytes: Uint8Array): Received {
  const [header, rest] = decodeFirst(bytes)
  const [body] = decodeFirst(rest)
  if (!isFields(header) || !isFields(body)) throw new Error('a frame is two maps')
  return { type: typeof header['t'] === 'string' ? header['t'] : 'error', body }
}
