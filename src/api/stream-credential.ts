import { invalidRequest } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { AppViews } from './appviews.ts'
import type { AppView, User } from './caller.ts'
import { isSame } from './secret.ts'
import { type ServiceAuth, type ServiceAuthDoor, unauthorized } from './service-auth.ts'

interface Parts {
  readonly serviceAuth: ServiceAuth
  readonly appViews: AppViews
  readonly serviceDid: Did
  /** Empty: there is none. */
  readonly syncToken: string
}

/**
 * What opens the stream of records beside the credentials of every method: browsers set no headers
 * on a WebSocket, so a token may stand in the query, where others may come to see it. There it is
 * good for two minutes, and once.
 * @see protocol.md, section 3
 */
export class StreamCredentials {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** By the secret that the operator shares with services of their own. */
  holder(credential: string): AppView | undefined {
    const { syncToken, serviceDid } = this.#parts
    if (syncToken === '' || !isSame(credential, syncToken)) return undefined
    return { kind: 'service', did: serviceDid, boundaries: 'all' }
  }

  /**
   * By `syncToken` of the query.
   * @throws XrpcError 401, 503
   */
  async identify(
    credential: string,
    { nsid, address }: Pick<ServiceAuthDoor, 'nsid' | 'address'>,
  ): Promise<AppView | User> {
    const { serviceAuth, appViews } = this.#parts
    const holder = this.holder(credential)
    if (holder !== undefined) return holder
    if (credential.split('.').length !== 3) {
      throw unauthorized('InvalidToken', 'syncToken is nothing that opens this')
    }
    const did = await serviceAuth.verify(credential, { nsid, tokens: 'stream', address })
    return (await appViews.find(did)) ?? { kind: 'user', did, by: 'service-auth' }
  }
}

/** @throws XrpcError 400 where more than one is given, or one beside another credential */
export function syncTokenOf({ url, headers }: Request): string | undefined {
  const start = url.indexOf('?')
  const given = new URLSearchParams(start < 0 ? '' : url.slice(start)).getAll('syncToken')
  if (given.length > 1) throw invalidRequest('syncToken must not be given more than once')
  if (given.length > 0 && (headers.has('authorization') || headers.has('dpop'))) {
    throw invalidRequest('syncToken and a credential in a header are one too many')
  }
  return given[0]
}
