import type { Person } from './seeded.ts'

export interface TokenOptions {
  readonly header?: Readonly<Record<string, unknown>>
  /** Replaces claims; one that is undefined is left out. */
  readonly claims?: Readonly<Record<string, unknown>>
  readonly sign?: (signed: Uint8Array) => Uint8Array | Promise<Uint8Array>
}

/** A service-auth token as the PDS of `person` would mint it, except for what `options` change. */
export async function serviceToken(
  person: Person,
  { aud, lxm }: { readonly aud: string; readonly lxm: string },
  options: TokenOptions = {},
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const header = { typ: 'JWT', alg: 'ES256K', ...options.header }
  const claims = { iss: person.did, aud, lxm, iat: now, exp: now + 60, ...options.claims }
  const signed = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  const sign = options.sign ?? ((bytes: Uint8Array) => person.key.sign(bytes))
  const sig = await sign(Buffer.from(signed))
  return `${signed}.${Buffer.from(sig).toString('base64url')}`
}
