import { Secp256k1Keypair } from '@atproto/crypto'
import { documentOf, method } from '../remote/directory.ts'

/** The web server whose name is somebody's DID. */
export class WebHost implements AsyncDisposable {
  readonly did: string
  readonly key: Secp256k1Keypair
  /** Stands first in the document, and is not the one that speaks for the account. */
  readonly labelKey: Secp256k1Keypair
  readonly #server: Bun.Server<undefined>

  private constructor(keys: readonly [Secp256k1Keypair, Secp256k1Keypair]) {
    ;[this.key, this.labelKey] = keys
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () => Response.json(this.#document()),
    })
    this.did = `did:web:localhost%3A${this.#server.port}`
  }

  static async start(): Promise<WebHost> {
    return new WebHost([await Secp256k1Keypair.create(), await Secp256k1Keypair.create()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  #document(): object {
    const { did } = this
    const verificationMethod = [
      method(did, 'atproto_label', this.labelKey.did()),
      method(did, 'atproto', this.key.did()),
    ]
    return { ...documentOf(did, { handle: 'wes.test' }), verificationMethod }
  }
}
