import { JoseKey, Keyset } from '@atproto/oauth-client-node'
import { randomBytes } from 'node:crypto'
import { assert } from '../lib/assert.ts'

/** A private key of the OAuth client, as text: a secret. */
export interface ClientKey {
  /** Hexadecimal, unlike any other text that a session holds. */
  readonly kid: string
  readonly jwk: string
}

/** What `GET /.well-known/jwks.json` answers. */
export interface PublishedKeys {
  readonly keys: readonly PublicJwk[]
}

interface PublicJwk {
  readonly kty: string
  readonly crv: string
  readonly x: string
  readonly y: string
  readonly kid: string
  readonly alg: 'ES256'
  readonly use: 'sig'
}

/** The keys with which this service proves to a PDS that it is the client that it says it is. */
export class ClientKeys {
  readonly keyset: Keyset
  readonly published: PublishedKeys

  private constructor(keys: readonly JoseKey[]) {
    this.keyset = new Keyset(keys)
    this.published = { keys: keys.map(publicHalf) }
  }

  /**
   * @param keys the one for new sign-ins first; each session goes on with its own
   * @throws Error for a text that is no key of ours; the text is not in it
   */
  static async import(keys: readonly ClientKey[]): Promise<ClientKeys> {
    return new ClientKeys(await Promise.all(keys.map(imported)))
  }
}

export async function generateClientKey(): Promise<ClientKey> {
  const kid = randomBytes(16).toString('hex')
  const { privateJwk } = await JoseKey.generate(['ES256'], kid)
  assert(privateJwk !== undefined, 'a generated key is private')
  return { kid, jwk: JSON.stringify({ ...privateJwk, alg: 'ES256', key_ops: ['sign'] }) }
}

async function imported({ kid, jwk }: ClientKey): Promise<JoseKey> {
  try {
    return await JoseKey.fromJWK(jwk, kid)
  } catch {
    // What the library says of it may quote it.
    throw new Error(
      `the OAuth client key ${kid} cannot be read: restore the database of the service`,
    )
  }
}

/** Members by name, so that no other, such as the private one, can be among them. */
function publicHalf({ bareJwk, kid }: JoseKey): PublicJwk {
  assert(bareJwk?.kty === 'EC' && kid !== undefined, 'a client key is one that we made')
  const { kty, crv, x, y } = bareJwk
  assert(y !== undefined, 'a key of P-256 has two coordinates')
  return { kty, crv, x, y, kid, alg: 'ES256', use: 'sig' }
}
