import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import type { Account } from './account.ts'
import { assets } from './assets.ts'
import type { BlobLinks } from './blob-links.ts'
import type { SignIn } from './oauth.ts'
import { ownHeadersOf, refusalBody, refusalOf, xrpcHeaders } from './reply.ts'
import type { Page, Visit } from './server.ts'
import { contentResponse } from './xrpc.ts'

interface Parts {
  readonly config: Pick<Config, 'publicUrl'>
  readonly signIn: SignIn
  readonly account: Account
  readonly links: BlobLinks
  readonly log: Log
}

/** What people's browsers come for: the pages of the service, and blobs by their links. */
export function ownPages(parts: Parts): Page[] {
  const { signIn, account } = parts
  const headers = Object.entries(ownHeadersOf(parts.config))
  // No other site reads along, or learns the address.
  const own = (answer: Page['answer']) => async (visit: Visit) => {
    const response = await answer(visit)
    for (const [name, value] of headers) response.headers.set(name, value)
    return response
  }
  return [
    { verb: 'get', path: '/blob/:did/:cid', answer: (visit) => blob(visit, parts) },
    { verb: 'get', path: '/oauth/authorize', answer: own((visit) => signIn.authorize(visit)) },
    { verb: 'get', path: '/oauth/callback', answer: own((visit) => signIn.callback(visit)) },
    { verb: 'get', path: '/oauth/status', answer: own((visit) => account.status(visit)) },
    { verb: 'post', path: '/oauth/revoke', answer: own((visit) => account.revoke(visit)) },
    { verb: 'post', path: '/oauth/signout', answer: own((visit) => account.signOut(visit)) },
    { verb: 'get', path: '/', answer: own((visit) => account.page(visit)) },
    ...documentPages(assets),
  ]
}

/** The same for everybody, by path. */
export function documentPages(documents: Readonly<Record<string, () => Response>>): Page[] {
  return Object.entries(documents).map(([path, document]) => ({
    verb: 'get',
    path,
    answer: async () => document(),
  }))
}

async function blob(
  { request, url, requestId }: Visit,
  { links, log }: Pick<Parts, 'links' | 'log'>,
): Promise<Response> {
  try {
    const { body, headers } = await links.open(url, request, requestId)
    const own = { ...headers, 'referrer-policy': 'no-referrer', 'x-request-id': requestId }
    return await contentResponse(request, body, own)
  } catch (error) {
    const refusal = refusalOf(error, { log, requestId })
    const { status } = refusal
    const headers = xrpcHeaders({ ...refusal.headers, 'x-request-id': requestId })
    return new Response(JSON.stringify(refusalBody(refusal)), { status, headers })
  }
}
