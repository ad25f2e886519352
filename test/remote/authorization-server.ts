import { isSignedJwt, JoseKey } from '@atproto/oauth-client-node'
import type { PublishedKeys } from '../../src/remote/client-keys.ts'

/** A PDS with its authorization server, as far as a client can tell, on loopback. */
export class AuthorizationServer implements AsyncDisposable {
  readonly url: string
  /** Whose tokens are given out. */
  subject = ''
  grantedScope = ''
  /** Makes tokens longer. */
  padding = ''
  /** Answers of the token endpoint while set. */
  broken: { readonly status: number; readonly error: string } | undefined
  /** Paths at which there is nothing to be had now. */
  readonly down = new Set<string>()
  /** The token endpoint waits for this. */
  gate: Promise<void> = Promise.resolve()
  /** Answers what is not about OAuth. */
  xrpc: (request: Request) => Response | Promise<Response> = () =>
    new Response(null, { status: 404 })
  /** Whose tokens this PDS takes; its own by default. */
  issuer: string
  /** The client's keys, as they were when this server last looked: it asks for proof by them. */
  clientKeys: PublishedKeys | undefined
  /** Parameters of each call of the token endpoint. */
  readonly tokenCalls: URLSearchParams[] = []
  readonly revoked: string[] = []
  /** Parameters that were pushed, by the `request_uri` that stands for them. */
  readonly #pushed = new Map<string, URLSearchParams>()
  /** Who said yes, where it is not `subject`. */
  readonly #codes = new Map<string, string | undefined>()
  /** The key that the client proved itself with when it began the session. */
  readonly #refreshTokens = new Map<string, string>()
  /** By access token. */
  readonly #proofKeys = new Map<string, string>()
  readonly #server: Bun.Server<undefined>
  #count = 0

  /** @param port of one that was there before */
  constructor(port = 0) {
    this.#server = Bun.serve({
      port,
      hostname: '127.0.0.1',
      fetch: (request) => this.#answer(request),
    })
    this.url = `http://127.0.0.1:${this.#server.port}`
    this.issuer = this.url
  }

  /** What the browser of a person who said yes brings back. */
  approve(state: string, subject?: string): URLSearchParams {
    const code = this.#secret('code')
    this.#codes.set(code, subject)
    return new URLSearchParams({ iss: this.url, state, code })
  }

  /** The state of the sign-in that a browser was sent here for. */
  stateOf(url: string): string {
    const uri = URL.parse(url)?.searchParams.get('request_uri') ?? ''
    return this.#pushed.get(uri)?.get('state') ?? ''
  }

  /** Whether a call carries a token from here, with a proof by the key that it was given to. */
  accepts(request: Request): boolean {
    const token = request.headers.get('authorization')?.replace('DPoP ', '') ?? ''
    return this.#proofKeys.get(token) === proofKeyOf(request)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url)
    if (this.down.has(pathname)) return new Response(null, { status: 503 })
    const isOurs = ['/par', '/token', '/revoke'].includes(pathname)
    const params = new URLSearchParams(isOurs ? await request.text() : '')
    const kid = isOurs ? await this.#proven(params) : ''
    if (kid === undefined) return Response.json({ error: 'invalid_client' }, { status: 401 })
    switch (pathname) {
      case '/.well-known/oauth-protected-resource':
        return Response.json({ resource: this.url, authorization_servers: [this.issuer] })
      case '/.well-known/oauth-authorization-server':
        return Response.json(this.#metadata())
      case '/par':
        return this.#push(params)
      case '/token':
        return this.#token(params, { proofKey: proofKeyOf(request), kid })
      case '/revoke':
        this.revoked.push(params.get('token') ?? '')
        return Response.json({})
      default:
        return this.xrpc(request)
    }
  }

  /** The key of the client's proof, empty where none is asked for; nothing for a bad proof. */
  async #proven(params: URLSearchParams): Promise<string | undefined> {
    if (this.clientKeys === undefined) return ''
    const client = params.get('client_id') ?? ''
    const proof = params.get('client_assertion')
    if (!isSignedJwt(proof)) return undefined
    for (const jwk of this.clientKeys.keys) {
      const key = await JoseKey.fromJWK({ ...jwk })
      const claims = { issuer: client, subject: client, audience: this.url } as const
      try {
        const { protectedHeader } = await key.verifyJwt(proof, claims)
        if (protectedHeader.kid === jwk.kid) return jwk.kid
      } catch {
        // By another key, or by none.
      }
    }
    return undefined
  }

  #push(params: URLSearchParams): Response {
    const uri = `urn:ietf:params:oauth:request_uri:${this.#pushed.size + 1}`
    this.#pushed.set(uri, params)
    return Response.json({ request_uri: uri, expires_in: 60 }, { status: 201 })
  }

  async #token(
    params: URLSearchParams,
    { proofKey, kid }: { readonly proofKey: string; readonly kid: string },
  ): Promise<Response> {
    this.tokenCalls.push(params)
    await this.gate
    if (this.broken !== undefined) {
      return Response.json({ error: this.broken.error }, { status: this.broken.status })
    }
    const refresh = params.get('refresh_token') ?? ''
    const code = params.get('code') ?? ''
    const subject = this.#codes.get(code) ?? this.subject
    const boundTo = this.#refreshTokens.get(refresh)
    this.#refreshTokens.delete(refresh)
    const known = this.#codes.delete(code) || boundTo === kid
    if (!known) {
      // A server may repeat what it was given.
      const description = `unknown ${params.toString()}`
      const body = { error: 'invalid_grant', error_description: description }
      return Response.json(body, { status: 400 })
    }
    const refreshToken = this.#secret('refresh')
    this.#refreshTokens.set(refreshToken, kid)
    const accessToken = this.#secret('access')
    this.#proofKeys.set(accessToken, proofKey)
    return Response.json({
      access_token: accessToken,
      refresh_token: refreshToken,
      token_type: 'DPoP',
      scope: this.grantedScope,
      sub: subject,
      expires_in: 3600,
    })
  }

  #secret(kind: string): string {
    this.#count++
    return `${kind}-SECRET-${this.#count}${this.padding}`
  }

  #metadata(): object {
    return {
      issuer: this.issuer.startsWith(this.url) ? this.issuer : this.url,
      authorization_endpoint: `${this.url}/authorize`,
      token_endpoint: `${this.url}/token`,
      revocation_endpoint: `${this.url}/revoke`,
      pushed_authorization_request_endpoint: `${this.url}/par`,
      require_pushed_authorization_requests: true,
      authorization_response_iss_parameter_supported: true,
      client_id_metadata_document_supported: true,
      response_types_supported: ['code'],
      grant_types_supported: ['authorization_code', 'refresh_token'],
      code_challenge_methods_supported: ['S256'],
      token_endpoint_auth_methods_supported: ['none', 'private_key_jwt'],
      token_endpoint_auth_signing_alg_values_supported: ['ES256'],
      dpop_signing_alg_values_supported: ['ES256'],
      scopes_supported: ['atproto'],
    }
  }
}

function proofKeyOf(request: Request): string {
  const [header = ''] = (request.headers.get('dpop') ?? '').split('.', 1)
  return String(JSON.parse(Buffer.from(header, 'base64url').toString()).jwk.x)
}
