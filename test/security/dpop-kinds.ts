import { type AppKey, claimsOf, DpopApp } from '../kit/dpop.ts'
import { isFields } from '../kit/xrpc.ts'
import type { Door } from './doors.ts'
import { headerBreaks } from './header-breaks.ts'
import {
  carried,
  carriedKeyBreaks,
  derBreaks,
  formBreaks,
  keyBreaks,
  signatureBreaks,
  type TokenKind,
} from './jwt-breaks.ts'
import type { Fields } from './jwt.ts'
import { type Breaks, breaksOf, expired, type Kind, type Make, without } from './kind.ts'
import { proofBreaks } from './proof-breaks.ts'
import { proofFor } from './proof.ts'
import type { Sent } from './sent.ts'
import { nowSeconds } from './service-auth.ts'
import type { World } from './world.ts'

/**
 * A token that an authorization server signed by a key that it publishes.
 * @param leaver by whose token our page is left
 */
export function publishedToken(subject: string, leaver: string): Kind {
  const name = `published ${subject}`
  const kind = tokenKind(
    name,
    ({ issuer }) =>
      (bytes) =>
        issuer.sign(bytes),
  )
  const sound = soundOf(name)
  return {
    ...publishedTokenOf(subject, { caller: 'self', subject }),
    make: async (world, door) => {
      const isLeft = door.name === '/oauth/revoke'
      return await soundOf(isLeft ? `published ${leaver}` : name)(world, door)
    },
    breaks: {
      ...requestBreaks(sound),
      ...formBreaks(kind),
      ...signatureBreaks(kind),
      ...keyBreaks(kind, ({ issuer }) => {
        const { x } = issuer.published('first')
        return { bytes: Buffer.from(String(x), 'base64url'), text: JSON.stringify(issuer.keys[0]) }
      }),
      ...carriedKeyBreaks(kind),
      ...derBreaks(kind),
      ...boundBreaks(kind, subject),
      ...issuedBreaks(kind, subject),
      ...proofBreaks(name),
    },
  }
}

/** The kind without its breaks. */
export function publishedTokenOf(issuedTo: string, named: Pick<Kind, 'caller' | 'subject'>): Kind {
  return { ...named, by: 'dpop-token', make: soundOf(`published ${issuedTo}`), breaks: {} }
}

/** A token that proves nothing, beside a proof by a key that its owner bound here. */
export function boundKey(subject: string): Kind {
  const name = `bound ${subject}`
  const kind = tokenKind(name, () => () => new Uint8Array(32))
  const sound = soundOf(name)
  return {
    caller: 'self',
    by: 'bound-key',
    subject,
    make: sound,
    breaks: {
      ...requestBreaks(sound),
      // Nobody but the PDS can tell whether the signature is right.
      ...without(
        formBreaks(kind),
        'an empty signature',
        'other claims under the signature',
        'another header under the signature',
      ),
      ...unsignedBreaks(kind),
      ...carriedKeyBreaks(kind),
      ...boundBreaks(kind, subject),
      ...keysThatAreNotBound(subject),
      ...proofBreaks(name),
    },
  }
}

/** How the request carries both: the header of the token, and that of the proof. */
function requestBreaks(sound: Make): Breaks {
  return without(
    headerBreaks(sound),
    // What is left then is a proof alone, which is a credential, and a bad one.
    'its place in the query',
    'its place in another header',
    'its place in a cookie',
  )
}

function soundOf(name: string): Make {
  return async (world, door) => await withProof(world, door, { app: world.app(name) })
}

async function withProof(
  world: World,
  door: Door,
  { app, token = app.token }: { readonly app: DpopApp; readonly token?: string },
): Promise<Sent> {
  const proof = await proofFor(world, door, { key: app.key, token })
  return { authorization: `DPoP ${token}`, headers: { dpop: proof } }
}

/** The token of an app made anew; a proof for it goes along. */
function tokenKind(name: string, sign: TokenKind['sign']): TokenKind {
  return {
    unsigned: (world) => {
      const [header, claims] = partsOf(world.app(name).token)
      return { header, claims: { ...claims, jti: crypto.randomUUID() } }
    },
    sign,
    carry: (token, world, door) => withProof(world, door, { app: world.app(name), token }),
  }
}

/** What both cases ask of the token. */
function boundBreaks(kind: TokenKind, subject: string): Breaks {
  const claimed = (claims: Fields | ((world: World) => Fields)) =>
    carried(kind, (world) => ({ claims: typeof claims === 'function' ? claims(world) : claims }))
  const foreign = ({ foreignApp }: World) => foreignApp.thumbprint
  return {
    ...breaksOf({
      'a stripped cnf': claimed({ cnf: undefined }),
      'an empty cnf': claimed({ cnf: {} }),
      'a cnf of null': claimed({ cnf: null }),
      'a cnf that is a text': claimed((world) => ({ cnf: foreign(world) })),
      'a swapped cnf': claimed((world) => ({ cnf: { jkt: foreign(world) } })),
      'a cnf with a list of keys': claimed((world) => ({ cnf: { jkt: [foreign(world)] } })),
      'a cnf with the key itself': claimed(({ foreignApp }) => ({ cnf: { jwk: foreignApp.jwk } })),
      'another person': claimed((world) => ({ sub: world.actor('alice').did })),
      'no person': claimed({ sub: undefined }),
      'a handle for a person': claimed({ sub: `${subject}.test` }),
      'a list of persons': claimed((world) => ({ sub: [world.actor(subject).did] })),
      'an end that is a text': claimed(() => ({ exp: String(nowSeconds() + 60) })),
      'an end of null': claimed({ exp: null }),
      'an end beyond all numbers': carried(kind, {
        claimsText: (json) => json.replace(/"exp":\d+/, '"exp":1e999'),
      }),
      'the address of a key in its header': carried(kind, ({ otherIssuer }) => ({
        header: { jku: `${otherIssuer.url}/oauth/jwks` },
      })),
    }),
    ...breaksOf(
      {
        'an end that has passed': claimed(() => ({ exp: nowSeconds() - 60 })),
        'an end in this moment': claimed(() => ({ exp: nowSeconds() })),
      },
      expired,
    ),
  }
}

/** What is asked where keys are published. */
function issuedBreaks(kind: TokenKind, subject: string): Breaks {
  const claimed = (claims: Fields | ((world: World) => Fields)) =>
    carried(kind, (world) => ({ claims: typeof claims === 'function' ? claims(world) : claims }))
  const headed = (header: Fields) => carried(kind, { header })
  return {
    ...breaksOf({
      'another issuer': claimed(({ otherIssuer }) => ({ iss: otherIssuer.url })),
      'the key of another issuer': carried(kind, ({ otherIssuer }) => ({
        sign: () => (bytes) => otherIssuer.sign(bytes),
      })),
      'another issuer and its key': carried(kind, ({ otherIssuer }) => ({
        claims: { iss: otherIssuer.url, aud: otherIssuer.did },
        sign: () => (bytes) => otherIssuer.sign(bytes),
      })),
      // The attacker has an account and a key of their own; only the name is that of the victim.
      'all of it forged but the person': forgedFor(subject),
      'no issuer': claimed({ iss: undefined }),
      'a list of issuers': claimed(({ issuer }) => ({ iss: [issuer.url] })),
      'the issuer with a path': claimed(({ issuer }) => ({ iss: `${issuer.url}/` })),
      'another audience': claimed({ aud: 'did:web:other.example.com' }),
      'no audience': claimed({ aud: undefined }),
      'no end': claimed({ exp: undefined }),
      'a beginning in the future': claimed(() => ({ nbf: nowSeconds() + 600 })),
      'a making in the future': claimed(() => ({ iat: nowSeconds() + 600 })),
      'a making that is a text': claimed({ iat: 'now' }),
      'the type of a service-auth token': headed({ typ: 'JWT' }),
      'no type': headed({ typ: undefined }),
      'the type of a session': headed({ typ: 'stratos+jwt' }),
      'the type of an ID token': headed({ typ: 'id+jwt' }),
      'the name of another key': headed({ kid: 'other' }),
      'a name of a key that is a number': headed({ kid: 1 }),
      'HS256, as a PDS signs that publishes no key': headed({ alg: 'HS256' }),
    }),
    ...breaksOf(
      {
        'a scope of nothing': claimed({ scope: 'atproto' }),
        'no scope': claimed({ scope: undefined }),
        'a scope for another collection': claimed({ scope: 'atproto repo:app.bsky.feed.post' }),
        'a scope for another service': claimed({
          scope: 'atproto rpc:*?aud=did:web:other.example.com%23atproto_pns',
        }),
      },
      [403, 'ScopeMissing'],
      isOpenToPeople,
    ),
  }
}

function forgedFor(subject: string): Make {
  return async (world, door) => {
    const key = world.foreignApp
    const token = await world.otherIssuer.token(world.actor(subject).did, key)
    const app = new DpopApp(world.stratos, key, token)
    return await withProof(world, door, { app })
  }
}

/** A token that its PDS alone can verify is worth nothing without a key that its owner bound. */
function keysThatAreNotBound(subject: string): Breaks {
  const by =
    (key: (world: World) => AppKey, did: (world: World) => string): Make =>
    async (world, door) => {
      const claims = claimsOf(did(world), key(world))
      const own: TokenKind = {
        ...tokenKind(`bound ${subject}`, () => () => new Uint8Array(32)),
        unsigned: () => ({ header: { typ: 'at+jwt', alg: 'HS256' }, claims }),
        carry: (token) =>
          withProof(world, door, { app: new DpopApp(world.stratos, key(world), token) }),
      }
      return await carried(own)(world, door)
    }
  const self = (world: World) => world.actor(subject).did
  return breaksOf({
    'a key that nobody bound': by(({ foreignApp }) => foreignApp, self),
    'a key whose binding was revoked': by((world) => world.app('unbound').key, self),
    'a key whose binding is over': by((world) => world.app('overdue').key, self),
    'a key that somebody else bound': by(
      (world) => world.app(`bound ${subject}`).key,
      (world) => world.actor('alice').did,
    ),
    'a key that somebody bound who left': by(
      (world) => world.app('bound lou').key,
      (world) => world.actor('lou').did,
    ),
  })
}

/** `none` is no signature, though nobody here could check one. */
function unsignedBreaks(kind: TokenKind): Breaks {
  const headed = (header: Fields) => carried(kind, { header })
  return breaksOf({
    'alg none and no signature': carried(kind, {
      header: { alg: 'none' },
      sign: () => () => new Uint8Array(),
    }),
    'alg none and its signature': headed({ alg: 'none' }),
    'alg None': headed({ alg: 'None' }),
    'no algorithm': headed({ alg: undefined }),
    'a list of algorithms': headed({ alg: ['HS256'] }),
    'critical extensions': headed({ crit: ['exp'] }),
  })
}

/** Whom a method is for comes before what a token is for. */
function isOpenToPeople({ answers, accepts }: Door): boolean {
  const outcome = answers.self
  return accepts.includes('dpop-token') && (typeof outcome === 'string' || outcome[0] === 501)
}

function partsOf(token: string): readonly [header: Fields, claims: Fields] {
  const [header, claims] = token
    .split('.')
    .slice(0, 2)
    .map((part): unknown => JSON.parse(Buffer.from(part, 'base64url').toString()))
  if (!isFields(header) || !isFields(claims)) throw new Error('a token has header and claims')
  return [header, claims]
}
