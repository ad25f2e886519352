/**
 * A cookie of our own pages: no script reads it, and a request that another site causes carries it
 * only when that is a person following a link.
 */
export class Cookie {
  readonly #name: string
  readonly #attributes: string

  /** @param publicUrl with https, no other host and no page on plain http can set the cookie */
  constructor(name: string, publicUrl: string) {
    const secure = publicUrl.startsWith('https:')
    this.#name = secure ? `__Host-${name}` : name
    this.#attributes = `Path=/; HttpOnly; SameSite=Lax${secure ? '; Secure' : ''}`
  }

  read(request: Request): string | undefined {
    for (const pair of (request.headers.get('cookie') ?? '').split(';')) {
      const [name, value] = pair.trim().split('=', 2)
      if (name === this.#name && value !== undefined && value !== '') return value
    }
    return undefined
  }

  /** The value of a `Set-Cookie` header. */
  write(value: string, maxAgeSeconds: number): string {
    return `${this.#name}=${value}; Max-Age=${maxAgeSeconds}; ${this.#attributes}`
  }

  /** The same for one that is to go. */
  remove(): string {
    return this.write('', 0)
  }
}

/** A response may carry several of these lines. */
export function withCookies(response: Response, ...lines: readonly string[]): Response {
  for (const line of lines) response.headers.append('set-cookie', line)
  return response
}
