import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/** The way to a PostgreSQL server, in which a test can do what goes wrong with servers. */
export class PostgresWire implements AsyncDisposable {
  readonly #to: URL
  readonly #sockets = new Set<Socket>()
  readonly #server = createServer((near) => this.#pass(near))
  #state: 'open' | 'silent' | 'hanging up' = 'open'
  #port = 0

  private constructor(to: string) {
    this.#to = new URL(to)
  }

  static async open(to: string): Promise<PostgresWire> {
    const wire = new PostgresWire(to)
    await wire.#listen()
    return wire
  }

  get url(): string {
    const url = new URL(this.#to)
    url.port = String(this.#port)
    return url.href
  }

  /** As when the server ends: connections break, and nobody listens. */
  async cut(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  /** As when somebody stands in front of a server that has ended: connections are taken and closed. */
  hangUp(): void {
    this.#state = 'hanging up'
    for (const socket of this.#sockets) socket.destroy()
  }

  /** As when its machine is gone from the network: nothing is answered, and nothing breaks. */
  silence(): void {
    this.#state = 'silent'
  }

  async mend(): Promise<void> {
    this.#state = 'open'
    if (!this.#server.listening) await this.#listen()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.cut()
  }

  async #listen(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('it does not listen')
    this.#port = address.port
  }

  #pass(near: Socket): void {
    if (this.#state === 'hanging up') {
      near.destroy()
      return
    }
    const far = connect(Number(this.#to.port), this.#to.hostname)
    this.#join(near, far)
    this.#join(far, near)
  }

  #join(from: Socket, into: Socket): void {
    this.#sockets.add(from)
    from.on('data', (bytes) => {
      if (this.#state === 'open') into.write(bytes)
    })
    from.on('error', () => into.destroy())
    from.on('close', () => {
      this.#sockets.delete(from)
      into.destroy()
    })
  }
}
