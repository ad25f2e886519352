/** A PDS with its authorization server, as far as a client can tell, on loopback. */
export class AuthorizationServer implements AsyncDisposable {
  /** Whose tokens are given out. */
  subject = ''
  grantedScope = ''
  /** Answers of the token endpoint while set. */
  broken: { readonly status: number; readonly error: string } | undefined
  /** The token endpoint waits for this. */
  gate: Promise<void> = Promise.resolve()
  /** Answers what is not about OAuth. */
  xrpc: (request: Request) => Response | Promise<Response> = () =>
    new Response(null, { status: 404 })
  /** Parameters of each call of the token endpoint. */
  readonly tokenCalls: URLSearchParams[] = []
  readonly revoked: string[] = []
  /** Parameters that were pushed, by the `request_uri` that stands for them. */
  readonly #pushed = new Map<string, URLSearchParams>()
  /** Who said yes, where it is not `subject`. */
  readonly #codes = new Map<string, string | undefined>()
  readonly #refreshTokens = new Set<string>()
  /** By access token. */
  readonly #proofKeys = new Map<string, string>()
  readonly #server: Bun.Server<undefined>
  #count = 0

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
    switch (pathname) {
      case '/.well-known/oauth-protected-resource':
        return Response.json({ resource: this.url, authorization_servers: [this.url] })
      case '/.well-known/oauth-authorization-server':
        return Response.json(this.#metadata())
      case '/par':
        return this.#push(new URLSearchParams(await request.text()))
      case '/token':
        return this.#token(new URLSearchParams(await request.text()), proofKeyOf(request))
      case '/revoke':
        this.revoked.push(new URLSearchParams(await request.text()).get('token') ?? '')
        return Response.json({})
      default:
        return this.xrpc(request)
    }
  }

  #push(params: URLSearchParams): Response {
    const uri = `urn:ietf:params:oauth:request_uri:${this.#pushed.size + 1}`
    this.#pushed.set(uri, params)
    return Response.json({ request_uri: uri, expires_in: 60 }, { status: 201 })
  }

  async #token(params: URLSearchParams, proofKey: string): Promise<Response> {
    this.tokenCalls.push(params)
    await this.gate
    if (this.broken !== undefined) {
      return Response.json({ error: this.broken.error }, { status: this.broken.status })
    }
    const refresh = params.get('refresh_token') ?? ''
    const code = params.get('code') ?? ''
    const subject = this.#codes.get(code) ?? this.subject
    const known = this.#codes.delete(code) || this.#refreshTokens.delete(refresh)
    if (!known) {
      // A server may repeat what it was given.
      const description = `unknown ${params.toString()}`
      const body = { error: 'invalid_grant', error_description: description }
      return Response.json(body, { status: 400 })
    }
    const refreshToken = this.#secret('refresh')
    this.#refreshTokens.add(refreshToken)
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
    return `${kind}-SECRET-${this.#count}`
  }

  #metadata(): object {
    return {
      issuer: this.url,
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
      token_endpoint_auth_methods_supported: ['none'],
      dpop_signing_alg_values_supported: ['ES256'],
      scopes_supported: ['atproto'],
    }
  }
}

function proofKeyOf(request: Request): string {
  const [header = ''] = (request.headers.get('dpop') ?? '').split('.', 1)
  return String(JSON.parse(Buffer.from(header, 'base64url').toString()).jwk.x)
}
