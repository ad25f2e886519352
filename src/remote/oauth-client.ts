import type { NodeOAuthClientOptions } from '@atproto/oauth-client-node'
import type { Nsid } from '../atproto/syntax.ts'

export type ClientMetadata = NodeOAuthClientOptions['clientMetadata']

/** What the operator says about this service as an OAuth client. */
export interface ClientDescription {
  readonly publicUrl: string
  readonly clientName: string
  readonly scope: string
  /** https URLs for the consent page of a PDS; empty for none. */
  readonly logoUri?: string
  readonly tosUri?: string
  readonly policyUri?: string
  /** Where the metadata are hosted instead of here; empty for here. */
  readonly clientId?: string
}

/**
 * What this service tells a PDS about itself, and answers at `/client-metadata.json`.
 *
 * With an https URL, a PDS fetches it from there, and the client proves itself by keys that it
 * publishes. On loopback no PDS could fetch anything, so the client id itself carries all of it;
 * such a redirect names an address, because `localhost` is refused.
 * @throws Error for plain http beyond loopback
 * @see https://atproto.com/specs/oauth#clients
 */
export function clientMetadataOf(client: ClientDescription): ClientMetadata {
  const url = new URL(client.publicUrl)
  const common = {
    client_name: client.clientName,
    scope: client.scope,
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    dpop_bound_access_tokens: true,
  } satisfies Partial<ClientMetadata>

  if (isConfidential(client.publicUrl)) {
    const { logoUri, tosUri, policyUri } = client
    const client_id = httpsUrl(client.clientId) ?? `https://${url.host}${ownMetadataPaths[0]}`
    return {
      ...common,
      client_id,
      // A PDS takes only one of the same origin as the client id.
      client_uri: `https://${new URL(client_id).host}`,
      logo_uri: httpsUrl(logoUri),
      tos_uri: httpsUrl(tosUri),
      policy_uri: httpsUrl(policyUri),
      redirect_uris: [`https://${url.host}${callbackPath}`],
      application_type: 'web',
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks_uri: `https://${url.host}${jwksPath}`,
    }
  }
  if (url.protocol !== 'http:' || !loopbackHosts.has(url.hostname)) {
    throw new Error(`${client.publicUrl} must be https, or http on loopback`)
  }
  const port = url.port === '' ? '' : `:${url.port}`
  const redirect_uri =
    url.hostname === '[::1]'
      ? (`http://[::1]${port}${callbackPath}` as const)
      : (`http://127.0.0.1${port}${callbackPath}` as const)
  const query = new URLSearchParams({ redirect_uri, scope: client.scope })
  return {
    ...common,
    client_id: `http://localhost?${query.toString()}`,
    redirect_uris: [redirect_uri],
    application_type: 'native',
    token_endpoint_auth_method: 'none',
  }
}

/** Whether a service at this URL has a client with keys. */
export function isConfidential(publicUrl: string): boolean {
  return publicUrl.startsWith('https:')
}

/** Where this service itself answers with its metadata, and with its keys. */
export const ownMetadataPaths = [
  '/client-metadata.json',
  '/.well-known/oauth-client-metadata.json',
] as const
export const jwksPath = '/.well-known/jwks.json'

/** Sign-in, and writing to these collections of the public repo. */
export function scopeFor(collections: readonly Nsid[]): string {
  return ['atproto', ...collections.map((nsid) => `repo:${nsid}`)].join(' ')
}

/**
 * What was asked for and not granted. A PDS drops what it does not understand without a word, and
 * may write what it grants in another form than it was asked for.
 */
export function missingScopes(requested: string, granted: string): string[] {
  const given = scopesOf(granted)
  return scopesOf(requested).filter(
    (scope) => !given.includes(scope) && !given.some((other) => grantsCollection(other, scope)),
  )
}

const callbackPath = '/oauth/callback'
const loopbackHosts: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]'])
const repoActions = ['create', 'update', 'delete']

function httpsUrl(text: string | undefined): `https://${string}/${string}` | undefined {
  return isHttpsUrl(text) ? text : undefined
}

function isHttpsUrl(text: string | undefined): text is `https://${string}/${string}` {
  return text !== undefined && /^https:\/\/[^/]+\//.test(text)
}

function scopesOf(text: string): string[] {
  return text.split(' ').filter((scope) => scope !== '')
}

/** Whether `other` gives all actions on the collection of `scope`, which is `repo:{nsid}`. */
function grantsCollection(other: string, scope: string): boolean {
  const { place, query } = repoScope(other)
  const wanted = repoScope(scope).place
  if (place === undefined || wanted === undefined) return false
  const collections = [...query.getAll('collection'), place]
  const actions = query.has('action') ? query.getAll('action') : repoActions
  return (
    (collections.includes(wanted) || collections.includes('*')) &&
    repoActions.every((action) => actions.includes(action))
  )
}

/** `repo:{place}?{query}` or `repo?{query}`; no place for a scope of another kind. */
function repoScope(scope: string): { place: string | undefined; query: URLSearchParams } {
  const [head = '', query = ''] = scope.split('?', 2)
  const place = head === 'repo' ? '' : head.startsWith('repo:') ? head.slice(5) : undefined
  return { place, query: new URLSearchParams(query) }
}
