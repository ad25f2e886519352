import { multibaseOfDidKey, type ServiceKey } from '../atproto/keys.ts'
import type { Config } from '../config.ts'
import type { PublishedKeys } from '../remote/client-keys.ts'
import { type ClientMetadata, jwksPath, ownMetadataPaths } from '../remote/oauth-client.ts'
import { json } from './reply.ts'

/** Documents that anybody may read and keep for a while, by path. @see protocol.md, section 2 */
export function publicDocuments(parts: {
  readonly config: Pick<Config, 'serviceDid' | 'fragment' | 'publicUrl'>
  readonly key: ServiceKey
  readonly clientMetadata: ClientMetadata
  /** Of this moment; none for a client without keys. */
  readonly clientKeys: () => PublishedKeys
}): Record<string, () => Response> {
  const didDocument = didDocumentOf(parts)
  const metadata = () => json(parts.clientMetadata, publicHeaders)
  return {
    '/.well-known/did.json': () => json(didDocument, publicHeaders),
    ...Object.fromEntries(ownMetadataPaths.map((path) => [path, metadata])),
    // A copy between us and a PDS could be older than a key that is in use by now.
    [jwksPath]: () => json(parts.clientKeys(), { ...publicHeaders, 'cache-control': 'no-cache' }),
    '/robots.txt': () =>
      new Response('User-agent: *\nDisallow: /\n', {
        headers: { 'content-type': 'text/plain; charset=utf-8', ...publicHeaders },
      }),
  }
}

/** A changed key must be seen soon; a document that changes hardly ever is worth keeping. */
const publicHeaders = {
  'access-control-allow-origin': '*',
  'cache-control': 'public, max-age=300',
} as const

function didDocumentOf({ config, key }: Parameters<typeof publicDocuments>[0]): object {
  const { serviceDid, fragment, publicUrl } = config
  const method = (name: string) => ({
    id: `${serviceDid}#${name}`,
    type: 'Multikey',
    controller: serviceDid,
    publicKeyMultibase: multibaseOfDidKey(key.did),
  })
  return {
    '@context': ['https://www.w3.org/ns/did/v1', 'https://w3id.org/security/multikey/v1'],
    id: serviceDid,
    verificationMethod: [method('atproto'), method(fragment)],
    service: [
      { id: `#${fragment}`, type: 'AtprotoPrivateNamespace', serviceEndpoint: publicUrl },
      { id: '#stratos', type: 'StratosService', serviceEndpoint: publicUrl },
    ],
  }
}
