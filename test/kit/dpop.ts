import { createHash, createHmac } from 'node:crypto'
import type { Person, SeededStratos } from './seeded.ts'
import { serviceToken } from './token.ts'
import { type Answer, type Call, isFields, xrpc } from './xrpc.ts'

export type Fields = Readonly<Record<string, unknown>>

/** How a test makes a JWT other than it should be. A claim that is undefined is left out. */
export interface Bent {
  readonly header?: Fields
  readonly claims?: Fields
  readonly sign?: (signed: Uint8Array) => Uint8Array | Promise<Uint8Array>
}

/** A key of an app, made and used as in a browser. */
export class AppKey {
  readonly jwk: Fields
  readonly thumbprint: string
  readonly #pair: CryptoKeyPair

  private constructor(pair: CryptoKeyPair, { x, y }: Fields) {
    this.#pair = pair
    this.jwk = { kty: 'EC', crv: 'P-256', x, y }
    const named = JSON.stringify({ crv: 'P-256', kty: 'EC', x, y })
    this.thumbprint = createHash('sha256').update(named).digest('base64url')
  }

  static async create(): Promise<AppKey> {
    const kind = { name: 'ECDSA', namedCurve: 'P-256' } as const
    const pair = await crypto.subtle.generateKey(kind, true, ['sign', 'verify'])
    return new AppKey(pair, { ...(await crypto.subtle.exportKey('jwk', pair.publicKey)) })
  }

  async privateJwk(): Promise<Fields> {
    return { ...(await crypto.subtle.exportKey('jwk', this.#pair.privateKey)) }
  }

  async sign(bytes: Uint8Array): Promise<Uint8Array> {
    const kind = { name: 'ECDSA', hash: 'SHA-256' } as const
    const signed = new Uint8Array(bytes)
    return new Uint8Array(await crypto.subtle.sign(kind, this.#pair.privateKey, signed))
  }
}

/** A proof as clients make them, except for what `bent` changes. */
export async function dpopProof(
  key: AppKey,
  about: { htm: string; htu: string; token: string; nonce: string | undefined },
  bent: Bent = {},
): Promise<string> {
  const { htm, htu, token, nonce } = about
  const ath = createHash('sha256').update(token).digest('base64url')
  const jti = crypto.randomUUID()
  return await jwtOf(
    { typ: 'dpop+jwt', alg: 'ES256', jwk: key.jwk, ...bent.header },
    { jti, htm, htu, iat: seconds(), nonce, ath, ...bent.claims },
    bent.sign ?? ((bytes) => key.sign(bytes)),
  )
}

/** A token as PDSes give them to apps today: signed by a secret that nobody else has. */
export async function pdsToken(did: string, key: AppKey, bent: Bent = {}): Promise<string> {
  return await jwtOf(
    { typ: 'at+jwt', alg: 'HS256', ...bent.header },
    { ...claimsOf(did, key), ...bent.claims },
    bent.sign ?? ((bytes) => createHmac('sha256', pdsSecret).update(bytes).digest()),
  )
}

/** What every token of a PDS says. */
export function claimsOf(did: string, { thumbprint }: AppKey): Fields {
  return {
    sub: did,
    aud: 'did:web:pds.test',
    iss: 'https://pds.test',
    iat: seconds(),
    exp: seconds() + 3600,
    jti: crypto.randomUUID(),
    cnf: { jkt: thumbprint },
    client_id: 'https://app.test/client-metadata.json',
  }
}

export async function jwtOf(
  header: Fields,
  claims: Fields,
  sign: (signed: Uint8Array) => Uint8Array | Promise<Uint8Array>,
): Promise<string> {
  const signed = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${signed}.${Buffer.from(await sign(Buffer.from(signed))).toString('base64url')}`
}

/** Seconds since the epoch. */
export function seconds(): number {
  return Math.floor(Date.now() / 1000)
}

/** How a call differs from that of a client in good order. */
export interface BentCall {
  readonly proof?: Bent
  readonly htm?: string
  readonly htu?: string
  /** Instead of the one that the service gave last; `none` leaves it out. */
  readonly nonce?: string
  /** In place of the whole header; null for no such header. */
  readonly header?: string | null
}

export interface BentBinding extends BentCall {
  readonly jkt?: string
  /** Of the token. */
  readonly aud?: string
}

/** An app with its key and a token, that asks for nonces as clients do. */
export class DpopApp {
  readonly key: AppKey
  token: string
  nonce: string | undefined
  readonly #stratos: SeededStratos

  constructor(stratos: SeededStratos, key: AppKey, token: string) {
    this.#stratos = stratos
    this.key = key
    this.token = token
  }

  /** With a key that the person has bound, unless `isBound` is `unbound`. */
  static async of(
    stratos: SeededStratos,
    name: string,
    state: 'bound' | 'unbound' = 'bound',
  ): Promise<DpopApp> {
    const person = stratos.person(name)
    const key = await AppKey.create()
    const app = new DpopApp(stratos, key, await pdsToken(person.did, key))
    if (state === 'unbound') return app
    const answer = await app.bind(person)
    if (answer.status !== 200) throw new Error(`bindKey answered ${JSON.stringify(answer.body)}`)
    return app
  }

  /** One request; a nonce is not asked for. */
  async once(nsid: string, call: Call = {}, bent: BentCall = {}): Promise<Answer> {
    const header = bent.header === undefined ? await this.proof(nsid, call, bent) : bent.header
    const answer = await xrpc(this.#stratos.url, nsid, {
      ...call,
      authorization: `DPoP ${this.token}`,
      headers: { ...call.headers, ...(header === null ? {} : { dpop: header }) },
    })
    this.nonce = answer.headers.get('dpop-nonce') ?? this.nonce
    return answer
  }

  /** A second time when the service asks for another nonce. */
  async call(nsid: string, call: Call = {}, bent: BentCall = {}): Promise<Answer> {
    const first = await this.once(nsid, call, bent)
    return first.body['error'] === 'use_dpop_nonce' ? await this.once(nsid, call, bent) : first
  }

  /** One of our own pages for programs. */
  async visit(path: string, verb: 'GET' | 'POST' = 'GET'): Promise<Answer> {
    const htu = `${this.#stratos.url}${path}`
    const about = { htm: verb, htu, token: this.token, nonce: this.nonce }
    const response = await fetch(htu, {
      method: verb,
      headers: {
        authorization: `DPoP ${this.token}`,
        dpop: await dpopProof(this.key, about),
        'content-type': 'application/json',
      },
      ...(verb === 'POST' ? { body: '{}' } : {}),
    })
    this.nonce = response.headers.get('dpop-nonce') ?? this.nonce
    const body: unknown = await response.json()
    const { status, headers } = response
    return { status, headers, body: isFields(body) ? body : {} }
  }

  async proof(nsid: string, call: Call = {}, bent: BentCall = {}): Promise<string> {
    const about = {
      htm: bent.htm ?? call.verb ?? (call.input === undefined ? 'GET' : 'POST'),
      htu: bent.htu ?? `${this.#stratos.url}/xrpc/${nsid}`,
      token: this.token,
      nonce: bent.nonce === 'none' ? undefined : (bent.nonce ?? this.nonce),
    }
    return await dpopProof(this.key, about, bent.proof)
  }

  /** Binds the key, as the person that a service-auth token names. */
  async bind(person: Person, bent: BentBinding = {}): Promise<Answer> {
    const token = await this.bindToken(person, bent.aud)
    const first = await this.bindOnce(token, bent)
    return first.body['error'] === 'use_dpop_nonce' ? await this.bindOnce(token, bent) : first
  }

  async bindToken(person: Person, aud = this.#stratos.did): Promise<string> {
    const asked = { aud, lxm: 'zone.stratos.server.bindKey' }
    return await serviceToken(person, asked, { claims: { jti: crypto.randomUUID() } })
  }

  async bindOnce(token: string, bent: BentBinding = {}): Promise<Answer> {
    const nsid = 'zone.stratos.server.bindKey'
    const about = {
      htm: bent.htm ?? 'POST',
      htu: bent.htu ?? `${this.#stratos.url}/xrpc/${nsid}`,
      token,
      nonce: bent.nonce === 'none' ? undefined : (bent.nonce ?? this.nonce),
    }
    const made = bent.header === undefined ? await dpopProof(this.key, about, bent.proof) : null
    const header = bent.header ?? made
    const answer = await xrpc(this.#stratos.url, nsid, {
      input: { jkt: bent.jkt ?? this.key.thumbprint },
      authorization: `Bearer ${token}`,
      headers: header === null ? {} : { 'dpop-bind': header },
    })
    this.nonce = answer.headers.get('dpop-nonce') ?? this.nonce
    return answer
  }
}

const pdsSecret = 'only the PDS knows it'
