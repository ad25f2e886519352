import type { Door } from './doors.ts'
import {
  type Algorithm,
  asDer,
  compact,
  type Fields,
  hmacBy,
  neighbour,
  type Sign,
  withHighS,
} from './jwt.ts'
import { breaksOf, type Breaks, type Make } from './kind.ts'
import type { Sent } from './sent.ts'
import type { World } from './world.ts'

/** A token before it is written: what a break changes, and then signs as its issuer would. */
interface Unsigned {
  readonly header: Fields
  readonly claims: Fields
}

/** How a kind of token is made and carried. */
export interface TokenKind {
  unsigned(world: World, door: Door): Unsigned
  sign(world: World): Sign
  carry(token: string, world: World, door: Door): Promise<Sent> | Sent
}

/** Members of a token, how they are written as JSON, or another signature. */
export interface Change {
  readonly header?: Fields
  readonly claims?: Fields
  readonly headerText?: (json: string) => string
  readonly claimsText?: (json: string) => string
  readonly sign?: (own: Sign) => Sign
}

type Changed = Change | ((world: World, door: Door) => Change)

/** The token of a kind, sound but for `changed`. */
export function carried(kind: TokenKind, changed: Changed = {}): Make {
  return async (world, door) => {
    const change = typeof changed === 'function' ? changed(world, door) : changed
    return await kind.carry(await tokenOf(kind, { world, door, change }), world, door)
  }
}

async function tokenOf(
  kind: TokenKind,
  { world, door, change }: { world: World; door: Door; change: Change },
): Promise<string> {
  const { header, claims } = kind.unsigned(world, door)
  const own = kind.sign(world)
  const headerText = JSON.stringify({ ...header, ...change.header })
  const claimsText = JSON.stringify({ ...claims, ...change.claims })
  return await compact(
    change.headerText?.(headerText) ?? headerText,
    change.claimsText?.(claimsText) ?? claimsText,
    change.sign?.(own) ?? own,
  )
}

/** The same token in other letters; what is signed stays as it is signed. */
export function formBreaks(kind: TokenKind): Breaks {
  const written =
    (change: (header: string, claims: string, sig: string) => string): Make =>
    async (world, door) => {
      const token = await tokenOf(kind, { world, door, change: {} })
      const [header = '', claims = '', sig = ''] = token.split('.')
      return await kind.carry(change(header, claims, sig), world, door)
    }
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const reopened = (text: string) => JSON.parse(Buffer.from(text, 'base64url').toString())
  return breaksOf({
    'no signature': written((header, claims) => `${header}.${claims}`),
    'an empty signature': written((header, claims) => `${header}.${claims}.`),
    'an empty header part': written((_, claims, sig) => `.${claims}.${sig}`),
    'empty claims': written((header, _, sig) => `${header}..${sig}`),
    'three empty parts': written(() => '..'),
    'a fourth part': written((header, claims, sig) => `${header}.${claims}.${sig}.${sig}`),
    'a dot at the end': written((header, claims, sig) => `${header}.${claims}.${sig}.`),
    padding: written((header, claims, sig) => `${header}.${claims}.${sig}==`),
    'the other Base64 alphabet': written(
      (header, claims, sig) => `${header}.${claims}.${sig.slice(0, 40)}+/${sig.slice(42)}`,
    ),
    'bits left over in the signature': written(
      (header, claims, sig) => `${header}.${claims}.${sig.slice(0, -1)}${neighbour(sig.slice(-1))}`,
    ),
    'a character that is none of Base64': written(
      (header, claims, sig) => `${header}.${claims}.${sig.slice(0, 40)}!${sig.slice(41)}`,
    ),
    'other claims under the signature': written(
      (header, claims, sig) => `${header}.${part({ ...reopened(claims), jti: 'other' })}.${sig}`,
    ),
    'another header under the signature': written(
      (header, claims, sig) => `${part({ ...reopened(header), kid: 'other' })}.${claims}.${sig}`,
    ),
    'header and claims in each other’s place': written(
      (header, claims, sig) => `${claims}.${header}.${sig}`,
    ),
    'five parts of an encrypted token': written(
      (header, claims, sig) => `${header}.${sig}.${sig}.${claims}.${sig}`,
    ),
    'a list for claims': carried(kind, { claimsText: (json) => `[${json}]` }),
    'a text for claims': carried(kind, { claimsText: (json) => JSON.stringify(json) }),
    'null for claims': carried(kind, { claimsText: () => 'null' }),
    'a list for a header': carried(kind, { headerText: (json) => `[${json}]` }),
    'claims that are no JSON': carried(kind, { claimsText: (json) => json.slice(0, -1) }),
    'claims after a byte order mark': carried(kind, { claimsText: (json) => `\ufeff${json}` }),
    'claims and more': carried(kind, { claimsText: (json) => `${json}{}` }),
    'a claim given twice': carried(kind, {
      claimsText: (json) => `{"${firstName(json)}":"other",${json.slice(1)}`,
    }),
    'a claim given twice, once in disguise': carried(kind, {
      claimsText: (json) => `{"${disguised(firstName(json))}":"other",${json.slice(1)}`,
    }),
    'a header member given twice': carried(kind, {
      headerText: (json) => `{"alg":"none",${json.slice(1)}`,
    }),
    'more than 8 KiB': carried(kind, { claims: { padding: 'x'.repeat(7000) } }),
  })
}

/** Another signature under the same token, of whatever algorithm. */
export function signatureBreaks(kind: TokenKind): Breaks {
  const signed = (change: (sig: Uint8Array) => Uint8Array): Make =>
    carried(kind, { sign: (own) => async (bytes) => change(await own(bytes)) })
  return breaksOf({
    'a signature of something else': carried(kind, {
      sign: (own) => () => own(new Uint8Array(3)),
    }),
    'a signature cut short': signed((sig) => sig.subarray(0, -1)),
    'a longer signature': signed((sig) => Buffer.concat([sig, Buffer.of(0)])),
    'a signature after a zero': signed((sig) => Buffer.concat([Buffer.of(0), sig])),
    'a signature with a recovery byte': signed((sig) => Buffer.concat([sig, Buffer.of(27)])),
    'a signature of zeros': signed((sig) => new Uint8Array(sig.length)),
    'a signature of ones': signed((sig) => new Uint8Array(sig.length).fill(255)),
    'a signature of all zeros but one': signed((sig) =>
      new Uint8Array(sig.length).with(sig.length - 1, 1),
    ),
    'a signature with one bit turned': signed((sig) => sig.with(0, (sig[0] ?? 0) ^ 1)),
    'alg none and no signature': carried(kind, {
      header: { alg: 'none' },
      sign: () => () => new Uint8Array(),
    }),
    'alg none and its signature': carried(kind, { header: { alg: 'none' } }),
    'alg None': carried(kind, { header: { alg: 'None' }, sign: () => () => new Uint8Array() }),
    'a name of no algorithm': carried(kind, { header: { alg: 'ES512' } }),
    'the algorithm in small letters': carried(kind, {
      headerText: (json) => json.replace(/"alg":"\w+"/, (alg) => alg.toLowerCase()),
    }),
    'no algorithm': carried(kind, { header: { alg: undefined } }),
    'a list of algorithms': carried(kind, {
      headerText: (json) => json.replace(/"alg":("\w+")/, '"alg":[$1]'),
    }),
    'HS256 by nothing': carried(kind, { header: { alg: 'HS256' }, sign: () => hmacBy('') }),
    'critical extensions': carried(kind, { header: { crit: ['exp'], exp: 1 } }),
    'an empty list of critical extensions': carried(kind, { header: { crit: [] } }),
    'claims that are not encoded': carried(kind, { header: { crit: ['b64'], b64: false } }),
  })
}

/** The public key, known to everybody, as the secret of an HMAC; and keys of somebody else. */
export function keyBreaks(
  kind: TokenKind,
  publicForms: (world: World) => Readonly<Record<string, Uint8Array | string>>,
): Breaks {
  const byPublic = (name: string): Make =>
    carried(kind, (world) => ({
      header: { alg: 'HS256' },
      sign: () => hmacBy(publicForms(world)[name] ?? ''),
    }))
  return {
    ...breaksOf({
      'HS256 by the public key': byPublic('bytes'),
      'HS256 by the public key as text': byPublic('text'),
      'a foreign key of K-256': carried(kind, ({ foreignKey }) => ({
        header: { alg: 'ES256K' },
        sign: () => (bytes) => foreignKey.sign(bytes),
      })),
      'a foreign key of P-256': carried(kind, ({ foreignApp }) => ({
        header: { alg: 'ES256' },
        sign: () => (bytes) => foreignApp.sign(bytes),
      })),
      'a foreign key that it names in its header': carried(kind, ({ foreignKey, otherIssuer }) => ({
        header: { alg: 'ES256K', kid: foreignKey.did(), jku: `${otherIssuer.url}/oauth/jwks` },
        sign: () => (bytes) => foreignKey.sign(bytes),
      })),
    }),
  }
}

/** A foreign key in the header of the token itself. Proofs are meant to have one there. */
export function carriedKeyBreaks(kind: TokenKind): Breaks {
  return breaksOf({
    'a foreign key that it carries in its header': carried(kind, ({ foreignApp }) => ({
      header: { alg: 'ES256', jwk: foreignApp.jwk },
      sign: () => (bytes) => foreignApp.sign(bytes),
    })),
  })
}

/** Forms that AT Protocol forbids; signatures of JOSE may have a high S. */
export function ecdsaBreaks(kind: TokenKind, algorithmOf: (world: World) => Algorithm): Breaks {
  return breaksOf({
    'a high S': carried(kind, (world) => ({
      sign: (own) => async (bytes) => withHighS(await own(bytes), algorithmOf(world)),
    })),
    'the name of the other curve': carried(kind, (world) => ({
      header: { alg: algorithmOf(world) === 'ES256' ? 'ES256K' : 'ES256' },
    })),
  })
}

export function derBreaks(kind: TokenKind): Breaks {
  const sign =
    (own: Sign): Sign =>
    async (bytes) =>
      asDer(await own(bytes))
  return breaksOf({ 'a signature in DER': carried(kind, { sign }) })
}

function firstName(json: string): string {
  return /^\{"(\w+)":/.exec(json)?.[1] ?? ''
}

/** The same name in JSON, in other letters. */
function disguised(name: string): string {
  return `\\u${name.charCodeAt(0).toString(16).padStart(4, '0')}${name.slice(1)}`
}
