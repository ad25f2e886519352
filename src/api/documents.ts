import { multibaseOfDidKey, type ServiceKey } from '../atproto/keys.ts'
import type { Config } from '../config.ts'
import type { PublishedKeys } from '../remote/client-keys.ts'
import { type ClientMetadata, jwksPath, ownMetadataPaths } from '../remote/oauth-client.ts'
import { json } from './reply.ts'

interface DocumentParts {
  readonly config: Pick<Config, 'serviceDid' | 'fragment' | 'publicUrl'>
  readonly key: ServiceKey
  readonly clientMetadata: ClientMetadata
  /** Of this moment; none for a client without keys. */
  readonly clientKeys: () => PublishedKeys
  /** Entries beside those of every service. */
  readonly services?: readonly ServiceEntry[]
}

/** Documents that anybody may read and keep for a while, by path. @see protocol.md, section 2 */
export function publicDocuments(parts: DocumentParts): Record<string, () => Response> {
  const document = serviceDocument(parts)
  const metadata = () => json(parts.clientMetadata, publicHeaders)
  return {
    '/.well-known/did.json': () => json(document, publicHeaders),
    ...Object.fromEntries(ownMetadataPaths.map((path) => [path, metadata])),
    // A copy between us and a PDS could be older than a key that is in use by now.
    [jwksPath]: () => json(parts.clientKeys(), { ...publicHeaders, 'cache-control': 'no-cache' }),
    ...robots,
  }
}

/** Those of a process that answers feeds and nothing else. */
export function appViewDocuments(parts: {
  readonly did: string
  readonly publicUrl: string
  readonly key: ServiceKey
}): Record<string, () => Response> {
  const document = didDocument(parts, {
    methods: ['atproto'],
    services: [appViewEntry(parts.publicUrl)],
  })
  return { '/.well-known/did.json': () => json(document, publicHeaders), ...robots }
}

/** Where feeds are answered, in the document of whoever answers them. */
export function appViewEntry(serviceEndpoint: string): ServiceEntry {
  return { id: `#${appViewFragment}`, type: 'StratosAppView', serviceEndpoint }
}

/** What the audience of a token for feeds has behind `#`, where it has anything there. */
export const appViewFragment = 'stratos_appview'

interface ServiceEntry {
  readonly id: string
  readonly type: string
  readonly serviceEndpoint: string
}

/** A changed key must be seen soon; a document that changes hardly ever is worth keeping. */
const publicHeaders = {
  'access-control-allow-origin': '*',
  'cache-control': 'public, max-age=300',
} as const

export const robots = {
  '/robots.txt': () =>
    new Response('User-agent: *\nDisallow: /\n', {
      headers: { 'content-type': 'text/plain; charset=utf-8', ...publicHeaders },
    }),
}

function serviceDocument({ config, key, services = [] }: DocumentParts): object {
  const { serviceDid: did, fragment, publicUrl } = config
  return didDocument(
    { did, key },
    {
      methods: ['atproto', fragment],
      services: [
        { id: `#${fragment}`, type: 'AtprotoPrivateNamespace', serviceEndpoint: publicUrl },
        { id: '#stratos', type: 'StratosService', serviceEndpoint: publicUrl },
        ...services,
      ],
    },
  )
}

function didDocument(
  { did, key }: { readonly did: string; readonly key: ServiceKey },
  has: { readonly methods: readonly string[]; readonly services: readonly ServiceEntry[] },
): object {
  return {
    '@context': ['https://www.w3.org/ns/did/v1', 'https://w3id.org/security/multikey/v1'],
    id: did,
    verificationMethod: has.methods.map((name) => ({
      id: `${did}#${name}`,
      type: 'Multikey',
      controller: did,
      publicKeyMultibase: multibaseOfDidKey(key.did),
    })),
    service: has.services,
  }
}
