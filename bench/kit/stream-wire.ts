import { randomBytes } from 'node:crypto'

/** Where a message lies in the bytes that hold it: nothing is copied for whoever only counts. */
export type TakeMessage = (bytes: Buffer, start: number, end: number) => void

/**
 * One WebSocket that reads. It does as little as it can, so that what is measured on a machine of
 * few cores is the server: messages are passed on where they lie, and pings are answered.
 */
export class StreamWire {
  readonly #take: TakeMessage
  readonly #ended: (error: Error) => void
  readonly #opened = Promise.withResolvers<void>()
  #socket: Bun.Socket | undefined
  #isOpen = false
  /** The start of a message whose end is still to come. */
  #rest: Buffer | undefined

  private constructor(parts: {
    readonly take: TakeMessage
    readonly ended: (error: Error) => void
  }) {
    this.#take = parts.take
    this.#ended = parts.ended
  }

  /** @param ended learns of any end but ours. @throws where there is no upgrade */
  static async open(
    request: {
      readonly port: number
      readonly path: string
      readonly headers: Readonly<Record<string, string>>
    },
    parts: { readonly take: TakeMessage; readonly ended: (error: Error) => void },
  ): Promise<StreamWire> {
    const wire = new StreamWire(parts)
    const lines = [
      `GET ${request.path} HTTP/1.1`,
      `Host: localhost:${request.port}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      ...Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`),
    ]
    wire.#socket = await Bun.connect({
      hostname: '127.0.0.1',
      port: request.port,
      socket: {
        open: (socket) => void socket.write(`${lines.join('\r\n')}\r\n\r\n`),
        data: (_, chunk) => wire.#receive(chunk),
        close: () => wire.#fail(new Error('the server closed a stream')),
      },
    })
    await wire.#opened.promise
    return wire
  }

  /** Of cursors; at most what a socket takes at once. */
  send(text: string): void {
    const bytes = textMessage(text)
    if (this.#socket?.write(bytes) !== bytes.length) throw new Error('a message was not sent')
  }

  close(): void {
    this.#isOpen = false
    this.#socket?.end()
  }

  #fail(error: Error): void {
    this.#opened.reject(error)
    if (this.#isOpen) this.#ended(error)
    this.#isOpen = false
  }

  #receive(chunk: Buffer): void {
    const all = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk])
    const from = this.#isOpen ? this.#messages(all, 0) : this.#head(all)
    // The socket uses its buffer again.
    this.#rest = from < all.length ? Buffer.from(all.subarray(from)) : undefined
  }

  /** @returns where what was not taken begins */
  #head(bytes: Buffer): number {
    const end = bytes.indexOf('\r\n\r\n')
    if (end < 0) return 0
    const head = bytes.toString('latin1', 0, end)
    if (!head.startsWith('HTTP/1.1 101 ')) {
      this.#fail(new Error(`no upgrade: ${bytes.toString('latin1', 0, 500)}`))
      return bytes.length
    }
    this.#isOpen = true
    this.#opened.resolve()
    return this.#messages(bytes, end + 4)
  }

  #messages(bytes: Buffer, from: number): number {
    let at = from
    while (at + 2 <= bytes.length && this.#isOpen) {
      const short = (bytes[at + 1] ?? 0) & 0x7f
      const start = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
      if (start > bytes.length) break
      const length =
        short < 126
          ? short
          : short === 126
            ? bytes.readUInt16BE(at + 2)
            : Number(bytes.readBigUInt64BE(at + 2))
      if (start + length > bytes.length) break
      this.#message(bytes[at], { bytes, start, end: start + length })
      at = start + length
    }
    return at
  }

  #message(
    kind: number | undefined,
    { bytes, start, end }: { readonly bytes: Buffer; readonly start: number; readonly end: number },
  ): void {
    if (kind === wholeBinary) this.#take(bytes, start, end)
    else if (kind === ping && start === end) this.#socket?.write(emptyPong)
    else {
      const reason = kind === closing ? bytes.toString('latin1', start + 2, end) : `kind ${kind}`
      this.#fail(new Error(`a stream ended: ${reason}`))
    }
  }
}

/** First bytes of messages that are in one piece. */
const [wholeText, wholeBinary, closing, ping] = [0x81, 0x82, 0x88, 0x89]
/** What a client sends is masked; a mask of zeros leaves it as it is. */
const emptyPong = Buffer.from([0x8a, 0x80, 0, 0, 0, 0])

function textMessage(text: string): Buffer {
  const body = Buffer.from(text)
  const head = Buffer.alloc(14)
  head.writeUInt8(wholeText, 0)
  head.writeUInt8(0x80 | 127, 1)
  head.writeBigUInt64BE(BigInt(body.length), 2)
  return Buffer.concat([head, body])
}
