import type { Did } from '../../src/atproto/syntax.ts'

/** Somebody else's server, with a list of who may enroll. */
export class ListServer implements AsyncDisposable {
  /** What the list says. */
  body: string | Uint8Array<ArrayBuffer> = '# nobody'
  status = 200
  etag: string | undefined
  /** Answers wait for this. */
  gate: Promise<void> = Promise.resolve()
  /** The entity tag that each request came with, if any. */
  readonly requests: (string | null)[] = []
  readonly #server: Bun.Server<undefined>

  constructor() {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => this.#answer(request),
    })
  }

  get uri(): string {
    return `http://127.0.0.1:${this.#server.port}/people.txt?secret=IN-THE-URI`
  }

  set(...dids: readonly Did[]): void {
    this.body = `# people\n${dids.join('\n')}\n`
  }

  /** Nobody answers any more at this address. */
  async close(): Promise<void> {
    await this.#server.stop(true)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #answer(request: Request): Promise<Response> {
    const given = request.headers.get('if-none-match')
    this.requests.push(given)
    await this.gate
    const headers = this.etag === undefined ? {} : { etag: this.etag }
    if (given !== null && given === this.etag) return new Response(null, { status: 304, headers })
    return new Response(this.body, { status: this.status, headers })
  }
}
