/**
 * One kept-alive HTTP/1.1 connection that asks one thing after another. It does as little as it
 * can, so that what is measured on a machine of few cores is the server.
 */
export class Wire {
  readonly #socket: Bun.Socket
  #parts: Buffer[] = []
  #bytes = 0
  /** Length of head and body once the head is there. */
  #length = Number.POSITIVE_INFINITY
  #headLength = 0
  #waiting: PromiseWithResolvers<Reply> | undefined
  /** What of the request the socket did not take yet. */
  #unsent: Buffer | undefined

  private constructor(socket: Bun.Socket) {
    this.#socket = socket
  }

  static async open(port: number): Promise<Wire> {
    let wire: Wire | undefined
    const socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data: (_, chunk) => wire?.receive(chunk),
        drain: () => wire?.send(),
        close: () => wire?.fail(new Error('the server closed the connection')),
      },
    })
    wire = new Wire(socket)
    return wire
  }

  /** @param request the bytes of a whole request, as `requestBytes` gives them */
  async ask(request: Buffer): Promise<Reply> {
    this.#waiting = Promise.withResolvers<Reply>()
    const { promise } = this.#waiting
    this.#unsent = request
    this.send()
    return await promise
  }

  close(): void {
    this.#waiting = undefined
    this.#socket.end()
  }

  private send(): void {
    if (this.#unsent === undefined) return
    const written = this.#socket.write(this.#unsent)
    if (written < 0) return this.fail(new Error('the connection is closed'))
    this.#unsent = written < this.#unsent.length ? this.#unsent.subarray(written) : undefined
  }

  private fail(error: Error): void {
    this.#waiting?.reject(error)
  }

  private receive(chunk: Buffer): void {
    this.#parts.push(Buffer.from(chunk))
    this.#bytes += chunk.length
    if (this.#length === Number.POSITIVE_INFINITY) {
      const all = Buffer.concat(this.#parts)
      const end = all.indexOf('\r\n\r\n')
      if (end < 0) return
      const length = /\r\ncontent-length: (\d+)/i.exec(all.toString('latin1', 0, end))?.[1]
      if (length === undefined) return this.fail(new Error('an answer without its length'))
      this.#headLength = end + 4
      this.#length = this.#headLength + Number(length)
    }
    if (this.#bytes < this.#length) return
    const [first = chunk] = this.#parts
    const all = this.#parts.length === 1 ? first : Buffer.concat(this.#parts)
    const status = Number(all.toString('latin1', 9, 12))
    const body = all.subarray(this.#headLength)
    this.#parts = []
    this.#bytes = 0
    this.#length = Number.POSITIVE_INFINITY
    this.#waiting?.resolve({ status, body })
  }
}

export interface Reply {
  readonly status: number
  readonly body: Buffer
}

export function requestBytes(request: {
  readonly verb: 'GET' | 'POST'
  readonly path: string
  readonly port: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | null
}): Buffer {
  const { verb, path, port, headers, body } = request
  const lines = [
    `${verb} ${path} HTTP/1.1`,
    `Host: localhost:${port}`,
    'Accept: */*',
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...(body === null
      ? []
      : ['Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`]),
  ]
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`)
}
