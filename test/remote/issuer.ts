import { Secp256k1Keypair } from '@atproto/crypto'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { AppKey, type Bent, claimsOf, type Fields, jwtOf } from '../kit/dpop.ts'

/** A PDS with its authorization server in one, or one of both, that signs by keys it publishes. */
export class Issuer implements AsyncDisposable {
  readonly url: string
  /** What it publishes. */
  keys: Fields[] = []
  /** Paths that were asked for. */
  readonly asked: string[] = []
  /** Answers of paths other than the usual ones. */
  readonly answers = new Map<string, () => Response | Promise<Response>>()
  /** The server that it leaves sign-ins to. */
  issuer: string
  #key: AppKey
  readonly #server: Bun.Server<undefined>

  private constructor(key: AppKey) {
    this.#key = key
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => this.#answer(request),
    })
    this.url = `http://127.0.0.1:${this.#server.port}`
    this.issuer = this.url
  }

  static async open(): Promise<Issuer> {
    const issuer = new Issuer(await AppKey.create())
    issuer.keys = [issuer.published('first')]
    return issuer
  }

  /** Its key under a name. */
  published(kid: string): Fields {
    return { ...this.#key.jwk, kid, alg: 'ES256', use: 'sig' }
  }

  /** Signs by another key from now on, and publishes that alone. */
  async rotate(kid: string): Promise<void> {
    this.#key = await AppKey.create()
    this.keys = [this.published(kid)]
  }

  /** The did:web of the server. */
  get did(): string {
    return `did:web:${encodeURIComponent(new URL(this.url).host)}`
  }

  /** A token of this PDS for an app that has `key`. */
  async token(did: string, key: AppKey, bent: Bent = {}): Promise<string> {
    const own = { aud: this.did, iss: this.issuer, scope: 'atproto transition:generic' }
    return await jwtOf(
      { typ: 'at+jwt', alg: 'ES256', kid: 'first', ...bent.header },
      { ...claimsOf(did, key), ...own, ...bent.claims },
      bent.sign ?? ((bytes) => this.sign(bytes)),
    )
  }

  sign(bytes: Uint8Array): Promise<Uint8Array> {
    return this.#key.sign(bytes)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url)
    this.asked.push(pathname)
    const answer = this.answers.get(pathname)
    if (answer !== undefined) return await answer()
    switch (pathname) {
      case '/.well-known/oauth-protected-resource':
        return Response.json({ resource: this.url, authorization_servers: [this.issuer] })
      case '/.well-known/oauth-authorization-server':
        return Response.json({ issuer: this.url, jwks_uri: `${this.url}/oauth/jwks` })
      case '/oauth/jwks':
        return Response.json({ keys: this.keys })
      default:
        return new Response(null, { status: 404 })
    }
  }
}

/** A key of secp256k1, as an issuer publishes it, and signing as OpenSSL does: with any s. */
export async function k256Key(kid: string) {
  const pair = await Secp256k1Keypair.create({ exportable: true })
  const secret = await pair.export()
  const point = secp256k1.getPublicKey(secret, false)
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((part) => {
    return Buffer.from(part).toString('base64url')
  })
  const sign = (bytes: Uint8Array) => {
    const options = { prehash: true, lowS: false, format: 'compact' } as const
    return secp256k1.sign(bytes, secret, options)
  }
  return { jwk: { kty: 'EC', crv: 'secp256k1', x, y, kid, alg: 'ES256K' }, sign }
}
