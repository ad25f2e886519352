import { scopeFor } from '../../src/remote/oauth-client.ts'
import { defaultCollections, publicCollections } from '../../src/service/collections.ts'
import type { AuthorizationServer } from '../remote/authorization-server.ts'
import { Browser, redirectOf } from './browser.ts'
import type { SeededStratos } from './seeded.ts'

export interface SigningIn {
  readonly redirectUri?: string
  /** What the browser likes to get. */
  readonly accept?: string
}

/**
 * Moves somebody to a PDS that agrees to everything, and walks them through a sign-in.
 * @returns the service's last answer: of the callback, or of the start when that refused
 */
export async function signIn(
  stratos: SeededStratos,
  name: string,
  { pds, redirectUri, accept = '*/*' }: SigningIn & { readonly pds: AuthorizationServer },
): Promise<Response> {
  const { did, handle, key } = stratos.person(name)
  stratos.directory.accounts.set(did, { didKey: key.did(), handle, pds: pds.url })
  pds.subject = did
  pds.grantedScope = scopeFor(publicCollections(defaultCollections))
  const browser = new Browser()
  const origin = `http://127.0.0.1:${stratos.port}`
  const start = new URL('/oauth/authorize', origin)
  start.searchParams.set('handle', did)
  if (redirectUri !== undefined) start.searchParams.set('redirect_uri', redirectUri)
  const begun = await browser.visit(start, { headers: { accept } })
  if (begun.status !== 302) return begun
  const callback = new URL('/oauth/callback', origin)
  callback.search = pds.approve(pds.stateOf(redirectOf(begun, origin)?.href ?? '')).toString()
  return browser.visit(callback, { headers: { accept } })
}
