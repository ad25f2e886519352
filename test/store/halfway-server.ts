import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

interface Asked {
  readonly method: string
  readonly url: string
}

type Broken = 'error' | 'half an answer' | 'no length' | 'changed bytes'

/** Stands between a client and a bucket, and can be told to break. */
export class HalfwayServer implements AsyncDisposable {
  break: (asked: Asked) => Broken | undefined = () => undefined
  /** Most parts of uploads that were on their way at one time. */
  partsAtOnce = 0
  #parts = 0
  readonly #target: string
  readonly #server = createServer((asked, answer) => {
    void this.#count(asked, answer)
  })

  private constructor(target: string) {
    this.#target = new URL(target).origin
  }

  static async start(target: string): Promise<HalfwayServer> {
    const started = new HalfwayServer(target)
    started.#server.listen(0, '127.0.0.1')
    await once(started.#server, 'listening')
    return started
  }

  get origin(): string {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('it does not listen')
    return `http://127.0.0.1:${address.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  async #count(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const isPart = asked.url?.includes('partNumber=') === true
    this.#parts += isPart ? 1 : 0
    this.partsAtOnce = Math.max(this.partsAtOnce, this.#parts)
    try {
      await this.#pass(asked, answer)
    } catch {
      answer.destroy()
    } finally {
      this.#parts -= isPart ? 1 : 0
    }
  }

  async #pass(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/' } = asked
    const broken = this.break({ method, url })
    const bytes = Buffer.concat(await Array.fromAsync<Buffer>(asked))
    if (broken === 'error') {
      answer.writeHead(503).end()
      return
    }
    if (broken === 'changed bytes') bytes[0] = (bytes[0] ?? 0) ^ 1
    const found = await fetch(this.#target + url, {
      method,
      // The host is under the signature.
      headers: new Headers(
        Object.entries(asked.headers).map(([name, value]) => [name, String(value)]),
      ),
      ...(bytes.length === 0 ? {} : { body: bytes }),
    })
    const whole = await found.bytes()
    const headers = Object.fromEntries(found.headers)
    if (broken === 'no length') delete headers['content-length']
    answer.writeHead(found.status, headers)
    if (broken !== 'half an answer') {
      answer.end(whole)
      return
    }
    answer.write(whole.subarray(0, whole.length / 2), () => answer.destroy())
  }
}
