import type { Key, OAuthSession } from '@atproto/oauth-client-node'

import { fieldsOf, textOf } from './xrpc.ts'

/**
 * Lets the key of an app's session act for its person at a Stratos service: all that such an app
 * needs beside what its OAuth library does, in a browser as elsewhere.
 * @returns until when
 */
export async function bindSessionKey(
  session: OAuthSession,
  service: { readonly url: string; readonly did: string },
): Promise<string> {
  const nsid = 'zone.stratos.server.bindKey'
  const query = new URLSearchParams({ aud: `${service.did}#atproto_pns`, lxm: nsid })
  const path = `/xrpc/com.atproto.server.getServiceAuth?${query.toString()}`
  const token = textOf(await jsonOf(await session.fetchHandler(path)), 'token')
  const { dpopKey } = session.server
  const jkt = await thumbprintOf(dpopKey)
  const htu = `${service.url}/xrpc/${nsid}`
  let nonce: string | undefined
  // The first answer brings the nonce, and leaves the token as good as it was.
  for (let tries = 0; tries < 2; tries++) {
    const response = await fetch(htu, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'dpop-bind': await proofBy(dpopKey, { htu, token, nonce }),
        'content-type': 'application/json',
      },
      body: JSON.stringify({ jkt }),
    })
    const body = await jsonOf(response)
    if (response.ok) return textOf(body, 'expiresAt')
    if (body['error'] !== 'use_dpop_nonce') throw new Error(JSON.stringify(body))
    nonce = response.headers.get('dpop-nonce') ?? undefined
  }
  throw new Error('the service asks for one nonce after the other')
}

async function proofBy(
  key: Key,
  about: { readonly htu: string; readonly token: string; readonly nonce: string | undefined },
): Promise<string> {
  const { htu, token, nonce } = about
  const { bareJwk } = key
  if (bareJwk === undefined) throw new Error('the key is a shared secret')
  const claims = {
    jti: crypto.randomUUID(),
    htm: 'POST',
    htu,
    iat: Math.floor(Date.now() / 1000),
    ath: await sha256(token),
    ...(nonce === undefined ? {} : { nonce }),
  }
  return await key.createJwt({ typ: 'dpop+jwt', alg: 'ES256', jwk: bareJwk }, claims)
}

/** @see https://www.rfc-editor.org/rfc/rfc7638 */
export async function thumbprintOf({ bareJwk }: Key): Promise<string> {
  const { kty, crv, x, y } = fieldsOf({ bareJwk }, 'bareJwk')
  return await sha256(JSON.stringify({ crv, kty, x, y }))
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))
  return new Uint8Array(digest).toBase64({ alphabet: 'base64url', omitPadding: true })
}

async function jsonOf(response: Response): Promise<Record<string, unknown>> {
  return fieldsOf({ body: await response.json() }, 'body')
}
