import { ServiceKey } from '../../src/atproto/keys.ts'
import { attest, type AttestationClaim } from '../../src/service/attestation.ts'
import { method } from '../remote/directory.ts'

/** A PDS on loopback that answers anybody with the enrollment records of one account. */
export class SignpostPds implements AsyncDisposable {
  /** By record key. */
  readonly records = new Map<string, unknown>()
  /** Answers with this instead, while it is set. */
  broken: ((request: Request) => Response) | undefined
  readonly asked: string[] = []
  readonly #server: Bun.Server<undefined>

  constructor() {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => this.#answer(request),
    })
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  #answer(request: Request): Response {
    const { pathname, searchParams } = new URL(request.url)
    this.asked.push(pathname)
    if (this.broken !== undefined) return this.broken(request)
    const prefix = `at://${searchParams.get('repo')}/${searchParams.get('collection')}`
    const records = [...this.records].map(([rkey, value]) => {
      return { uri: `${prefix}/${rkey}`, cid: 'bafyone', value }
    })
    return Response.json({ records })
  }
}

/** A service of which there is nothing but its DID document and its key. */
export class SignpostService implements AsyncDisposable {
  readonly key = ServiceKey.generate()
  /** What its document says instead of the truth. */
  said: { id?: string; key?: string; endpoint?: string; type?: string } = {}
  readonly #server: Bun.Server<undefined>

  constructor() {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: ({ url }) =>
        url.endsWith('/.well-known/did.json')
          ? Response.json(this.#document())
          : new Response(null, { status: 404 }),
    })
  }

  get url(): string {
    return `http://localhost:${this.#server.port}`
  }

  get did(): string {
    return `did:web:localhost%3A${this.#server.port}`
  }

  get rkey(): string {
    return `did:web:localhost:${this.#server.port}`
  }

  /** As a service writes it to the PDS of somebody who enrolled. */
  record(claim: AttestationClaim): Record<string, unknown> {
    return {
      $type: 'zone.stratos.actor.enrollment',
      service: this.url,
      boundaries: claim.boundaries.map((value) => ({ value })),
      signingKey: claim.signingKey,
      attestation: attest(claim, this.key),
      createdAt: '2026-11-23T00:00:00.000Z',
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  #document(): object {
    const { id = this.did, key = this.key.did, endpoint = this.url, type } = this.said
    return {
      id,
      verificationMethod: [method(id, 'atproto', key)],
      service: [{ id: '#stratos', type: type ?? 'StratosService', serviceEndpoint: endpoint }],
    }
  }
}
