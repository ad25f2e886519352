import type { Door } from './doors.ts'
import { headerBreaks } from './header-breaks.ts'
import {
  carried,
  carriedKeyBreaks,
  type Change,
  derBreaks,
  ecdsaBreaks,
  formBreaks,
  keyBreaks,
  signatureBreaks,
  type TokenKind,
} from './jwt-breaks.ts'
import type { Fields } from './jwt.ts'
import { type Breaks, breaksOf, expired, invalid, type Kind, type Make } from './kind.ts'
import { queryBreaks } from './stream-kinds.ts'
import type { World } from './world.ts'

type Claims = Fields | ((world: World, door: Door) => Fields)

/** A token that the PDS of somebody, or a service, signed for one method of this service. */
export function serviceAuthToken(issuer: string): TokenKind {
  return {
    unsigned: (world, { name }) => {
      const { did, key } = world.actor(issuer)
      const iat = nowSeconds()
      const jti = crypto.randomUUID()
      return {
        header: { typ: 'JWT', alg: key.jwtAlg },
        claims: { iss: did, aud: world.stratos.did, lxm: name, iat, exp: iat + 60, jti },
      }
    },
    sign: (world) => (bytes) => world.actor(issuer).key.sign(bytes),
    carry: (token) => ({ authorization: `Bearer ${token}` }),
  }
}

type Named = Pick<Kind, 'caller' | 'subject'>

/** The kind without its breaks, for tokens that are sound in another way. */
export function serviceAuthOf(issuer: string, named: Named, change: Change = {}): Kind {
  return {
    ...named,
    // An AppView is no person. The moderation service is one where there is nothing to moderate.
    ...(named.caller === 'appview' ? {} : { by: 'service-auth' }),
    make: carried(serviceAuthToken(issuer), change),
    isOnce: (door) => door.isOnce,
    // It is for one method, and a page is none.
    elsewhere: { counts: ({ inClass }) => inClass !== 'page', outcome: invalid },
    breaks: {},
  }
}

export function serviceAuth(
  issuer: string,
  named: Named = { caller: 'self', subject: issuer },
): Kind {
  const kind = serviceAuthToken(issuer)
  const sound = serviceAuthOf(issuer, named)
  const once = onceBreaks(kind, { isOnce: (door) => door.isOnce, ageSeconds: 600 })
  return {
    ...sound,
    breaks: { ...headerBreaks(sound.make), ...tokenBreaks(kind, issuer), ...once },
  }
}

/** The same token in the query of the stream, where it is good for two minutes, and once. */
export function streamToken(subject: string): Kind {
  const kind: TokenKind = {
    ...serviceAuthToken(subject),
    carry: (syncToken) => ({ query: { syncToken } }),
  }
  const counts = ({ inClass }: Door) => inClass === 'stream'
  const make = carried(kind)
  const once = onceBreaks(kind, { isOnce: counts, ageSeconds: 150 })
  const all = { ...tokenBreaks(kind, subject), ...once, ...queryBreaks(make) }
  return {
    caller: 'self',
    by: 'service-auth',
    subject,
    make,
    isOnce: counts,
    elsewhere: { counts, outcome: 'anonymous' },
    breaks: Object.fromEntries(
      Object.entries(all).map(([name, one]) => [name, { ...one, at: counts }]),
    ),
  }
}

/** What can be wrong with a token that does not depend on where it stands. */
function tokenBreaks(kind: TokenKind, issuer: string): Breaks {
  const algorithmOf = (world: World) => {
    return world.actor(issuer).key.jwtAlg === 'ES256' ? 'ES256' : 'ES256K'
  }
  const publicForms = (world: World) => {
    const { key } = world.actor(issuer)
    return { bytes: key.publicKeyBytes(), text: key.did() }
  }
  return {
    ...formBreaks(kind),
    ...signatureBreaks(kind),
    ...keyBreaks(kind, publicForms),
    ...carriedKeyBreaks(kind),
    ...ecdsaBreaks(kind, algorithmOf),
    ...derBreaks(kind),
    ...claimBreaks(kind, issuer),
  }
}

/** Signed by the right key, and yet not for this. */
function claimBreaks(kind: TokenKind, issuer: string): Breaks {
  const claimed = (claims: Claims) =>
    carried(kind, (world, door) => ({
      claims: typeof claims === 'function' ? claims(world, door) : claims,
    }))
  const headed = (header: Fields) => carried(kind, { header })
  return {
    ...breaksOf({
      'another audience': claimed({ aud: 'did:web:other.example.com' }),
      'another fragment of the service': claimed(({ stratos }) => ({
        aud: `${stratos.did}#stratos`,
      })),
      'the URL of the service as audience': claimed(({ stratos }) => ({ aud: stratos.url })),
      'its issuer as audience': claimed((world) => ({ aud: world.actor(issuer).did })),
      'a list with our audience': claimed(({ stratos }) => ({ aud: [stratos.did] })),
      'two audiences': claimed(({ stratos }) => ({
        aud: [stratos.did, 'did:web:other.example.com'],
      })),
      'no audience': claimed({ aud: undefined }),
      'another method': claimed((_, { name }) => ({ lxm: otherMethod(name) })),
      'the twin of the method': claimed((_, { name }) => ({ lxm: twin(name) })),
      'the method in capitals': claimed((_, { name }) => ({ lxm: name.toUpperCase() })),
      'no method': claimed({ lxm: undefined }),
      'any method': claimed({ lxm: '*' }),
      'a list of methods': claimed((_, { name }) => ({ lxm: [name] })),
      'no issuer': claimed({ iss: undefined }),
      'another issuer': claimed({ iss: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa' }),
      'a member as issuer': claimed((world) => ({ iss: world.actor('alice').did })),
      'an issuer without a key': claimed(({ badIssuers }) => ({ iss: badIssuers.keyless })),
      'an issuer whose key is no point of K-256': claimed(({ badIssuers }) => ({
        iss: badIssuers.offK256,
      })),
      'an issuer whose key is no point of P-256': carried(kind, ({ badIssuers }) => ({
        header: { alg: 'ES256' },
        claims: { iss: badIssuers.offP256 },
      })),
      'an issuer with the document of somebody else': claimed(({ badIssuers }) => ({
        iss: badIssuers.impostor,
      })),
      'an issuer of another kind of DID': claimed({ iss: 'did:example:alice' }),
      'an issuer whose host does not exist': claimed({ iss: 'did:web:nowhere.invalid' }),
      'an issuer with a fragment': claimed((world) => ({
        iss: `${world.actor(issuer).did}#atproto`,
      })),
      'its key as issuer': claimed((world) => ({ iss: world.actor(issuer).key.did() })),
      'a handle as issuer': claimed({ iss: 'alice.test' }),
      'a list of issuers': claimed((world) => ({ iss: [world.actor(issuer).did] })),
      'our own DID as issuer': claimed(({ stratos }) => ({ iss: stratos.did })),
      'no end': claimed({ exp: undefined }),
      'an end that is a text': claimed(() => ({ exp: String(nowSeconds() + 60) })),
      'an end of null': claimed({ exp: null }),
      'an end beyond all numbers': carried(kind, {
        claimsText: (json) => json.replace(/"exp":\d+/, '"exp":1e999'),
      }),
      'an end in a hundred years': claimed(() => ({ exp: nowSeconds() + 3_155_760_000 })),
      'an end in milliseconds': claimed(() => ({ exp: (nowSeconds() + 60) * 1000 })),
      'an end in more than an hour': claimed(() => ({ exp: nowSeconds() + 3700 })),
      'a life of a day, in its last hour': claimed(() => ({
        iat: nowSeconds() - 86_000,
        exp: nowSeconds() + 400,
      })),
      'a beginning in the future': claimed(() => ({ nbf: nowSeconds() + 600 })),
      'a making in the future': claimed(() => ({
        iat: nowSeconds() + 600,
        exp: nowSeconds() + 660,
      })),
      'a making that is a text': claimed({ iat: 'now' }),
      'a jti that is no text': claimed({ jti: 7 }),
      'the type of an access token': headed({ typ: 'at+jwt' }),
      'the type of a DPoP proof': headed({ typ: 'dpop+jwt' }),
      'the type of a session': headed({ typ: 'stratos+jwt' }),
      'the type of a session in capitals': headed({ typ: 'STRATOS+JWT' }),
      'the type of a refresh token': headed({ typ: 'refresh+jwt' }),
      'a type of null': headed({ typ: null }),
      // What an account's authorization server says of it to an app.
      'the claims of an ID token': claimed((world) => ({
        sub: world.actor(issuer).did,
        iss: 'https://pds.example.com',
        aud: `${world.stratos.url}/client-metadata.json`,
        lxm: undefined,
      })),
      // What a PDS hands to its own apps.
      'the claims of an access token of a PDS': claimed((world) => ({
        iss: undefined,
        sub: world.actor(issuer).did,
        aud: 'did:web:pds.example.com',
        scope: 'com.atproto.access',
        lxm: undefined,
      })),
    }),
    ...breaksOf(
      {
        'an end that has passed': claimed(() => ({
          iat: nowSeconds() - 120,
          exp: nowSeconds() - 60,
        })),
        'an end in this moment': claimed(() => ({ exp: nowSeconds() })),
      },
      expired,
    ),
  }
}

/** Only where each token counts once. */
function onceBreaks(
  kind: TokenKind,
  { isOnce, ageSeconds }: { isOnce: (door: Door) => boolean; ageSeconds: number },
): Breaks {
  const made = (claims: () => Fields) => carried(kind, () => ({ claims: claims() }))
  const names: Readonly<Record<string, Make>> = {
    'no jti': made(() => ({ jti: undefined })),
    'an empty jti': made(() => ({ jti: '' })),
    'a jti without end': made(() => ({ jti: 'x'.repeat(257) })),
    'no time of making': made(() => ({ iat: undefined })),
  }
  const old = { 'a making too long ago': made(() => ({ iat: nowSeconds() - ageSeconds })) }
  return { ...breaksOf(names, invalid, isOnce), ...breaksOf(old, expired, isOnce) }
}

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1000)
}

function otherMethod(nsid: string): string {
  return nsid === 'zone.stratos.server.listDomains'
    ? 'zone.stratos.repo.createRecord'
    : 'zone.stratos.server.listDomains'
}

/** Also of methods that have none. */
function twin(nsid: string): string {
  return nsid.startsWith('com.atproto.')
    ? nsid.replace('com.atproto.', 'zone.stratos.')
    : nsid.replace('zone.stratos.', 'com.atproto.')
}
