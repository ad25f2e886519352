import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { createGuardedFetch } from '../../src/remote/fetch.ts'

export interface Account {
  readonly id?: string
  readonly didKey?: string
  readonly pds?: string
  readonly handle?: string
}

/** A PLC directory on loopback, with as many accounts as a test puts into it. */
export class Directory implements AsyncDisposable {
  readonly accounts = new Map<string, Account>()
  /** Look-ups that arrived, by DID. */
  readonly asked: string[] = []
  /** Answers with this instead of a document, while it is set. */
  broken: { readonly status: number; readonly body?: string } | undefined
  /** Answers wait for this. */
  gate: Promise<void> = Promise.resolve()
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

  /** A new account and its DID. */
  add(account: Account): Did {
    const letters = Array.from(crypto.getRandomValues(new Uint8Array(24)), (byte) => {
      return 'abcdefghijklmnopqrstuvwxyz234567'.charAt(byte % 32)
    })
    const did = parseDid(`did:plc:${letters.join('')}`)
    this.accounts.set(did, account)
    return did
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  async #answer(request: Request): Promise<Response> {
    const did = decodeURIComponent(new URL(request.url).pathname.slice(1))
    this.asked.push(did)
    await this.gate
    if (this.broken !== undefined) return new Response(this.broken.body, this.broken)
    const account = this.accounts.get(did)
    if (account === undefined) return Response.json({ message: 'not registered' }, { status: 404 })
    return Response.json(documentOf(did, account))
  }
}

export function documentOf(did: string, { id, didKey, pds, handle }: Account): object {
  return {
    '@context': ['https://www.w3.org/ns/did/v1'],
    id: id ?? did,
    alsoKnownAs: handle === undefined ? [] : [`at://${handle}`],
    verificationMethod: didKey === undefined ? [] : [method(did, 'atproto', didKey)],
    service: pds === undefined ? [] : [pdsEntry(pds)],
  }
}

export function method(did: string, name: string, didKey: string): object {
  const publicKeyMultibase = didKey.slice('did:key:'.length)
  return { id: `${did}#${name}`, type: 'Multikey', controller: did, publicKeyMultibase }
}

export const loopbackFetch = createGuardedFetch({
  allowPrivateNetwork: true,
  timeoutMs: 5000,
  responseBytesMax: 100_000,
})

/** A clock that moves only when a test moves it. */
export class Clock {
  ms = 1_800_000_000_000

  readonly now = (): number => this.ms
}

function pdsEntry(serviceEndpoint: string): object {
  return { id: '#atproto_pds', type: 'AtprotoPersonalDataServer', serviceEndpoint }
}
