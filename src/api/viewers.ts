import type { Caller, Door, Doorkeeper } from './caller.ts'
import type { AuthFailures } from './auth-failures.ts'
import { type ServiceAuth, unauthorized } from './service-auth.ts'

/**
 * Tells who reads a feed, by a service-auth token and by nothing else: an AppView knows nobody's
 * sessions, keys or cookies.
 */
export class Viewers implements Doorkeeper {
  readonly #serviceAuth: ServiceAuth
  readonly #failures: AuthFailures

  constructor(parts: { readonly serviceAuth: ServiceAuth; readonly failures: AuthFailures }) {
    this.#serviceAuth = parts.serviceAuth
    this.#failures = parts.failures
  }

  /** @throws XrpcError 401 AuthMissing, InvalidToken, ExpiredToken; 429; 503 */
  async identify({ headers }: Request, door: Door): Promise<Caller> {
    return await this.#failures.counted(door.address, async () => {
      const header = headers.get('authorization')
      if (header === null) {
        if (!headers.has('dpop'))
          throw unauthorized('AuthMissing', 'a service-auth token is needed')
        throw unauthorized(
          'InvalidToken',
          'proofs are not accepted here: send a service-auth token',
        )
      }
      const [, token] = /^bearer +([^ ]+)$/i.exec(header) ?? []
      if (token === undefined || door.nsid === undefined) {
        throw unauthorized(
          'InvalidToken',
          'a service-auth token is needed, and nothing else counts',
        )
      }
      const { nsid, tokens, fragment, address } = door
      const did = await this.#serviceAuth.verify(token, { nsid, tokens, fragment, address })
      return { kind: 'user', did, by: 'service-auth' }
    })
  }
}
