import { connect, type Socket } from 'node:net'
import type { SeededStratos } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'

/** A repo, or what else is at a path, on its way to a client that takes as much as it is told to, byte by byte as it is sent. */
export class Download {
  readonly #socket: Socket
  #bytes = 0
  #head = ''
  #tail = Buffer.alloc(0)
  #closed = false

  constructor(
    { port }: SeededStratos,
    ask: { readonly authorization: string } & (
      | { readonly did: string }
      | { readonly path: string }
    ),
  ) {
    const path = 'path' in ask ? ask.path : `/xrpc/zone.stratos.sync.getRepo?did=${ask.did}`
    this.#socket = connect({ port, host: '127.0.0.1' })
    this.#socket.on('data', (data) => {
      const chunk = typeof data === 'string' ? Buffer.from(data) : data
      this.#bytes += chunk.length
      if (this.#head.length < headCharsMax) this.#head += String(chunk.subarray(0, headCharsMax))
      this.#tail = Buffer.concat([this.#tail, chunk]).subarray(-tailBytes)
    })
    // A transfer that breaks off may end by a reset.
    this.#socket.on('error', () => undefined)
    this.#socket.on('close', () => (this.#closed = true))
    this.#socket.write(
      `GET ${path} HTTP/1.1\r\n` +
        `Host: localhost:${port}\r\nAuthorization: ${ask.authorization}\r\n\r\n`,
    )
  }

  get bytes(): number {
    return this.#bytes
  }

  get closed(): boolean {
    return this.#closed
  }

  get status(): number {
    return Number(this.#head.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length))
  }

  /** Whether it came to the end that HTTP gives a body whose length was not known. */
  get isWhole(): boolean {
    return this.#tail.toString('latin1') === '\r\n0\r\n\r\n'
  }

  /** Takes something, and then nothing more until `resume`. */
  async stall(): Promise<void> {
    await eventually('first bytes', () => (this.#bytes > 0 ? true : undefined), { everyMs: 1 })
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  leave(): void {
    this.#socket.destroy()
  }

  /** Until the connection is closed, or all is there. */
  async over(): Promise<void> {
    await eventually('end', () => (this.#closed || this.isWhole ? true : undefined), { everyMs: 5 })
  }
}

const headCharsMax = 1_000
const tailBytes = 7
