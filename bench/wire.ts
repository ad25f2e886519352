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
    const written = this.#socket.write(request)
    if (written < request.length) throw new Error('the request does not fit into the socket')
    return await promise
  }

  close(): void {
    this.#waiting = undefined
    this.#socket.end()
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
      if (length === undefined) throw new Error('an answer without its length')
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
  readonly bearer: string
  readonly body?: string
}): Buffer {
  const { verb, path, port, bearer, body } = request
  const lines = [
    `${verb} ${path} HTTP/1.1`,
    `Host: localhost:${port}`,
    `Authorization: Bearer ${bearer}`,
    'Accept: */*',
    ...(body === undefined
      ? []
      : ['Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`]),
  ]
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`)
}
