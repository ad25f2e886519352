import type { Log } from '../lib/log.ts'
import type { Fetch } from './fetch.ts'
import type { ClientMetadata } from './oauth-client.ts'

/**
 * Tells the operator where client metadata that are hosted elsewhere differ from what sign-ins
 * need: no PDS would say so, it refuses. Never fails.
 */
export async function checkHostedMetadata(
  wanted: ClientMetadata,
  { fetch, log }: { readonly fetch: Fetch; readonly log: Log },
): Promise<void> {
  const url = String(wanted.client_id)
  try {
    const request = { headers: { accept: 'application/json' }, bytesMax: metadataBytesMax }
    // A PDS follows no redirect either.
    const response = await fetch(url, { ...request, redirect: 'error' })
    const wrong = await faultsOf(response, wanted)
    const advice = 'host there what this service answers at /client-metadata.json'
    if (wrong.length > 0) log.error('oauth.hosted-metadata.wrong', { url, wrong, advice })
  } catch (error) {
    log.warn('oauth.hosted-metadata.not-seen', { url, error })
  }
}

/** Several times what ours are. */
const metadataBytesMax = 64 * 1024

async function faultsOf(response: Response, wanted: ClientMetadata): Promise<string[]> {
  if (response.status !== 200) return [`status ${response.status}`]
  const type = response.headers.get('content-type') ?? ''
  if (!/^application\/json\s*(;|$)/i.test(type)) return ['content-type']
  const hosted = objectOf(await response.text())
  if (hosted === undefined) return ['not a JSON object']
  const different = sameMembers.filter((name) => Reflect.get(hosted, name) !== wanted[name])
  const lacking = listMembers.filter((name) => {
    const present = listOf(Reflect.get(hosted, name))
    return !listOf(wanted[name]).every((value) => present.includes(value))
  })
  return [...different, ...lacking]
}

const sameMembers = [
  'client_id',
  'token_endpoint_auth_method',
  'token_endpoint_auth_signing_alg',
  'jwks_uri',
  'dpop_bound_access_tokens',
] as const
/** May hold more than we need. */
const listMembers = ['redirect_uris', 'scope', 'grant_types', 'response_types'] as const

function listOf(value: unknown): readonly unknown[] {
  if (typeof value === 'string') return value.split(' ')
  return Array.isArray(value) ? value : []
}

function objectOf(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}
