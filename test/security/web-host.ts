/** A web server whose name is somebody's DID. */
export class WebHost implements AsyncDisposable {
  readonly did: string
  readonly #server: Bun.Server<undefined>

  constructor(document: (did: string) => object) {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () => Response.json(document(this.did)),
    })
    this.did = `did:web:localhost%3A${this.#server.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }
}
