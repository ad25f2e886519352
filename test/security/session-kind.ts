import { createHash, createHmac } from 'node:crypto'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { beginSession } from '../kit/stratos-session.ts'
import { isFields } from '../kit/xrpc.ts'
import { headerBreaks } from './header-breaks.ts'
import {
  carried,
  type Change,
  formBreaks,
  keyBreaks,
  signatureBreaks,
  type TokenKind,
} from './jwt-breaks.ts'
import { type Fields, hmacBy } from './jwt.ts'
import { type Breaks, breaksOf, expired, type Kind, type Make } from './kind.ts'
import { nowSeconds } from './service-auth.ts'
import type { World } from './world.ts'

/** A short-lived token of the service itself. @param leaver by whose session our page is left */
export function session(subject: string, leaver: string): Kind {
  const sound: Make = (world, { name }) => ({
    authorization: sessionOf(world, name === '/oauth/revoke' ? leaver : subject),
  })
  return {
    caller: 'self',
    by: 'session',
    subject,
    make: sound,
    renew: async ({ stratos, sessions }) => {
      sessions.set(subject, await beginSession(stratos, subject))
    },
    breaks: {
      ...headerBreaks(sound),
      ...formBreaks(kindOf(subject)),
      ...signatureBreaks(kindOf(subject)),
      ...keyBreaks(kindOf(subject), publicForms),
      ...claimBreaks(kindOf(subject)),
      ...endedBreaks(),
    },
  }
}

/** Made as the service makes it: by its own secret, which nobody else knows. */
function kindOf(subject: string): TokenKind {
  return {
    unsigned: (world) => {
      const [header, claims] = partsOf(sessionOf(world, subject))
      return { header, claims }
    },
    sign:
      ({ stored }) =>
      (bytes) =>
        createHmac('sha256', stored.sessionSecret.secret).update(bytes).digest(),
    carry: (token) => ({ authorization: `Bearer ${token}` }),
  }
}

/** By the right secret, which only a fault of ours could bring about, and yet no session. */
function claimBreaks(kind: TokenKind): Breaks {
  const claimed = (claims: Fields | ((world: World) => Fields)) =>
    carried(kind, (world) => ({ claims: typeof claims === 'function' ? claims(world) : claims }))
  const headed = (header: Fields) => carried(kind, { header })
  const other: Change['sign'] = () => hmacBy('another secret of the same kind')
  return {
    ...breaksOf({
      'another secret': carried(kind, { sign: other }),
      'another secret of another name': carried(kind, { header: { kid: 'other' }, sign: other }),
      'a secret that nobody knows': headed({ kid: 'other' }),
      'no name of a secret': headed({ kid: undefined }),
      'a name that is a path': headed({ kid: '../../../../dev/null' }),
      'a list of secrets': headed({ kid: ['other'] }),
      HS512: carried(kind, ({ stored }) => ({
        header: { alg: 'HS512' },
        sign: () => (bytes) =>
          createHmac('sha512', stored.sessionSecret.secret).update(bytes).digest(),
      })),
      'the key that signs attestations': carried(kind, ({ stored }) => ({
        header: { alg: 'ES256K' },
        sign: () => (bytes) => ServiceKey.import(stored.serviceKeyHex).sign(bytes),
      })),
      'another issuer': claimed({ iss: 'did:web:other.example.com' }),
      'no issuer': claimed({ iss: undefined }),
      'another audience': claimed({ aud: 'did:web:other.example.com' }),
      'a list with our audience': claimed(({ stratos }) => ({ aud: [stratos.did] })),
      'our audience with its fragment': claimed(({ stratos }) => ({
        aud: `${stratos.did}#atproto_pns`,
      })),
      'no audience': claimed({ aud: undefined }),
      'another person': claimed((world) => ({ sub: world.actor('alice').did })),
      'no person': claimed({ sub: undefined }),
      'a handle for a person': claimed({ sub: 'sue.test' }),
      'a list of persons': claimed((world) => ({ sub: [world.actor('sue').did] })),
      'another session': claimed({ sid: 'x'.repeat(22) }),
      'the session of somebody else': claimed((world) => ({
        sid: partsOf(sessionOf(world, 'sol'))[1]['sid'],
      })),
      'the hash of its session': claimed((world) => ({
        sid: createHash('sha256')
          .update(String(partsOf(sessionOf(world, 'sue'))[1]['sid']))
          .digest('hex'),
      })),
      'no session': claimed({ sid: undefined }),
      'a list of sessions': claimed((world) => ({
        sid: [partsOf(sessionOf(world, 'sue'))[1]['sid']],
      })),
      'a later end': claimed(() => ({ iat: nowSeconds() + 10, exp: nowSeconds() + 910 })),
      'an end in a hundred years': claimed(() => ({ exp: nowSeconds() + 3_155_760_000 })),
      'an end beyond all numbers': carried(kind, {
        claimsText: (json) => json.replace(/"exp":\d+/, '"exp":1e999'),
      }),
      'an end that is a text': carried(kind, {
        claimsText: (json) => json.replace(/"exp":(\d+)/, '"exp":"$1"'),
      }),
      'no end': claimed({ exp: undefined }),
      'no time of making': claimed({ iat: undefined }),
      'a making in the future': claimed(() => ({ iat: nowSeconds() + 600 })),
      'the type of a service-auth token': headed({ typ: 'JWT' }),
      'no type': headed({ typ: undefined }),
      'a type of null': headed({ typ: null }),
      'its type in capitals': headed({ typ: 'STRATOS+JWT' }),
      'its type as a media type': headed({ typ: 'application/stratos+jwt' }),
      'the type of an access token': headed({ typ: 'at+jwt' }),
      'the type of a DPoP proof': headed({ typ: 'dpop+jwt' }),
    }),
    ...breaksOf(
      {
        'an end that has passed': claimed(() => ({
          iat: nowSeconds() - 1000,
          exp: nowSeconds() - 100,
        })),
        'an end in this moment': claimed(() => ({ iat: nowSeconds() - 900, exp: nowSeconds() })),
      },
      expired,
    ),
  }
}

/** Tokens that were sound until something else happened. */
function endedBreaks(): Breaks {
  const of =
    (name: string): Make =>
    (world) => ({ authorization: sessionOf(world, name) })
  return breaksOf({
    'a session that its owner ended': of('ended'),
    'a session that the operator ended': of('revoked'),
    'a session of somebody who left': of('lou'),
  })
}

/** The value of an Authorization header. */
function sessionOf({ sessions }: World, name: string): string {
  return sessions.get(name) ?? ''
}

function partsOf(authorization: string): readonly [header: Fields, claims: Fields] {
  const [header, claims] = authorization
    .slice('Bearer '.length)
    .split('.')
    .slice(0, 2)
    .map((part): unknown => JSON.parse(Buffer.from(part, 'base64url').toString()))
  if (!isFields(header) || !isFields(claims)) throw new Error('a session has header and claims')
  return [header, claims]
}

/** Of the service's own key, which stands in its DID document. */
function publicForms({ stored }: World) {
  const { did } = ServiceKey.import(stored.serviceKeyHex)
  return { bytes: Buffer.from(did.slice('did:key:'.length)), text: did }
}
