import { type Call, isFields, verbOf } from '../kit/xrpc.ts'
import type { Door } from './doors.ts'
import { carried, derBreaks, formBreaks, signatureBreaks, type TokenKind } from './jwt-breaks.ts'
import { type Fields, hmacBy } from './jwt.ts'
import { type Breaks, breaksOf, type Make, without } from './kind.ts'
import { sendCall } from './sent.ts'
import { nowSeconds } from './service-auth.ts'
import type { World } from './world.ts'

/** What can go wrong with a proof beside a token that is sound. @param name of the app */
export function proofBreaks(name: string): Breaks {
  const kind = proofKind(name)
  const all = {
    ...headerBreaks(name),
    ...without(formBreaks(kind), 'three empty parts'),
    ...signatureBreaks(kind),
    ...derBreaks(kind),
    ...keyBreaks(kind),
    ...claimBreaks(kind),
    ...nonceBreaks(kind),
    ...replays(name),
  }
  return Object.fromEntries(Object.entries(all).map(([name, one]) => [`a proof with ${name}`, one]))
}

/** A proof by the key of an app for its token, as `kit/dpop.ts` would make it. */
function proofKind(name: string): TokenKind {
  return {
    unsigned: (world, door) => {
      const { key, token } = world.app(name)
      return {
        header: { typ: 'dpop+jwt', alg: 'ES256', jwk: key.jwk },
        claims: {
          jti: crypto.randomUUID(),
          htm: methodOf(world, door),
          htu: world.stratos.url + door.path,
          iat: nowSeconds(),
          nonce: world.nonce,
          ath: hashOf(token),
        },
      }
    },
    sign: (world) => (bytes) => world.app(name).key.sign(bytes),
    carry: (proof, world) => ({
      authorization: `DPoP ${world.app(name).token}`,
      headers: { dpop: proof },
    }),
  }
}

function headerBreaks(name: string): Breaks {
  const sound = carried(proofKind(name))
  const changed =
    (change: (proof: string) => string | string[]): Make =>
    async (world, door) => {
      const { headers, ...rest } = await sound(world, door)
      return { ...rest, headers: { dpop: change(String(headers?.['dpop'])) } }
    }
  return breaksOf({
    'no header of its own': async (world, door) => {
      const { authorization = '' } = await sound(world, door)
      return { authorization }
    },
    'an empty header': changed(() => ''),
    'a header of blanks': changed(() => '   '),
    'the scheme before it': changed((proof) => `DPoP ${proof}`),
    'quotation marks': changed((proof) => `"${proof}"`),
    'a word at the end': changed((proof) => `${proof} more`),
    'a comma at the end': changed((proof) => `${proof},`),
    'its header twice': changed((proof) => [proof, proof]),
    'another header of its name after it': changed((proof) => [proof, 'other']),
    'another header of its name before it': changed((proof) => ['other', proof]),
    'half of it': changed((proof) => proof.slice(0, proof.length / 2)),
    'its token in its place': (world) => {
      const { token } = world.app(name)
      return { authorization: `DPoP ${token}`, headers: { dpop: token } }
    },
    'its place in the header of another kind of proof': async (world, door) => {
      const { headers, ...rest } = await sound(world, door)
      return { ...rest, headers: { 'dpop-bind': String(headers?.['dpop']) } }
    },
  })
}

/** The key in its header. */
function keyBreaks(kind: TokenKind): Breaks {
  const jwk = (change: (jwk: Fields) => unknown) =>
    carried(kind, (world, door) => {
      const { jwk: own } = kind.unsigned(world, door).header
      return { header: { jwk: change(isFields(own) ? own : {}) } }
    })
  return breaksOf({
    'a foreign key': carried(kind, ({ foreignApp }) => ({
      header: { jwk: foreignApp.jwk },
      sign: () => (bytes) => foreignApp.sign(bytes),
    })),
    'a foreign signature': carried(kind, ({ foreignApp }) => ({
      sign: () => (bytes) => foreignApp.sign(bytes),
    })),
    'HS256 by its public key': carried(kind, (world, door) => ({
      header: { alg: 'HS256' },
      sign: () => hmacBy(JSON.stringify(kind.unsigned(world, door).header['jwk'])),
    })),
    'HS256 and the secret in its header': carried(kind, {
      header: { alg: 'HS256', jwk: { kty: 'oct', k: 'c2VjcmV0' } },
      sign: () => hmacBy('secret'),
    }),
    'no key': jwk(() => undefined),
    'a key of null': jwk(() => null),
    'a list of keys': jwk((own) => [own]),
    'a private key': jwk((own) => ({ ...own, d: own['x'] })),
    'half a key': jwk((own) => ({ ...own, y: undefined })),
    'a key that is no point': jwk((own) => ({ ...own, y: own['x'] })),
    'a key of another curve': jwk((own) => ({ ...own, crv: 'secp256k1' })),
    'a key of another kind': jwk((own) => ({ ...own, kty: 'RSA' })),
    'a name of a key': carried(kind, (world) => ({
      header: { jwk: undefined, kid: world.foreignApp.thumbprint },
    })),
  })
}

function claimBreaks(kind: TokenKind): Breaks {
  const claimed = (claims: Fields | ((world: World, door: Door) => Fields)) =>
    carried(kind, (world, door) => ({
      claims: typeof claims === 'function' ? claims(world, door) : claims,
    }))
  const headed = (header: Fields) => carried(kind, { header })
  return breaksOf({
    'the type JWT': headed({ typ: 'JWT' }),
    'the type of an access token': headed({ typ: 'at+jwt' }),
    'no type': headed({ typ: undefined }),
    'another htm': claimed((world, door) => ({
      htm: methodOf(world, door) === 'GET' ? 'POST' : 'GET',
    })),
    'htm in small letters': claimed((world, door) => ({
      htm: methodOf(world, door).toLowerCase(),
    })),
    'no htm': claimed({ htm: undefined }),
    'a list for htm': claimed((world, door) => ({ htm: [methodOf(world, door)] })),
    'htu of another method': claimed(({ stratos }) => ({ htu: `${stratos.url}/xrpc/_health` })),
    'htu of the twin': claimed(({ stratos }, { path }) => ({ htu: stratos.url + twinOf(path) })),
    'htu of another host': claimed((_, { path }) => ({ htu: `http://other.example.com${path}` })),
    'htu of another port': claimed((_, { path }) => ({ htu: `http://localhost:1${path}` })),
    'htu of https': claimed(({ stratos }, { path }) => ({
      htu: stratos.url.replace('http:', 'https:') + path,
    })),
    'htu of a user': claimed(({ stratos }, { path }) => ({
      htu: stratos.url.replace('http://', 'http://user@') + path,
    })),
    'htu without a host': claimed((_, { path }) => ({ htu: path })),
    'htu of the service alone': claimed(({ stratos }) => ({ htu: stratos.url })),
    'htu with more of a path': claimed(({ stratos }, { path }) => ({
      htu: `${stratos.url}${path}/`,
    })),
    'htu in capitals': claimed(({ stratos }, { path }) => ({
      htu: stratos.url + path.toUpperCase(),
    })),
    'no htu': claimed({ htu: undefined }),
    'a list for htu': claimed(({ stratos }, { path }) => ({ htu: [stratos.url + path] })),
    'ath of another token': claimed({ ath: hashOf('another token') }),
    'ath in hexadecimal': claimed((world, door) => ({
      ath: Buffer.from(String(kind.unsigned(world, door).claims['ath']), 'base64url').toString(
        'hex',
      ),
    })),
    'an empty ath': claimed({ ath: '' }),
    'no ath': claimed({ ath: undefined }),
    'no jti': claimed({ jti: undefined }),
    'an empty jti': claimed({ jti: '' }),
    'a jti without end': claimed({ jti: 'x'.repeat(257) }),
    'a jti that is no text': claimed({ jti: 7 }),
    'no time': claimed({ iat: undefined }),
    'a time that is a text': claimed(() => ({ iat: String(nowSeconds()) })),
    'a time ten minutes ago': claimed(() => ({ iat: nowSeconds() - 600 })),
    'a time in ten minutes': claimed(() => ({ iat: nowSeconds() + 600 })),
    'a time beyond all numbers': carried(kind, {
      claimsText: (json) => json.replace(/"iat":\d+/, '"iat":1e999'),
    }),
  })
}

function nonceBreaks(kind: TokenKind): Breaks {
  const claimed = (nonce: (world: World) => unknown) =>
    carried(kind, (world) => ({ claims: { nonce: nonce(world) } }))
  return breaksOf(
    {
      'no nonce': claimed(() => undefined),
      'an empty nonce': claimed(() => ''),
      'a nonce of null': claimed(() => null),
      'a nonce of its own': claimed(() => crypto.randomUUID()),
      'a stale nonce': claimed(({ staleNonce }) => staleNonce),
      'a nonce of another time': claimed(({ nonce = '' }) => {
        const [time = '', mac] = nonce.split('.')
        return `${(Number.parseInt(time, 36) + 1).toString(36)}.${mac}`
      }),
      'a list of nonces': claimed(({ nonce }) => [nonce]),
    },
    [401, 'use_dpop_nonce'],
  )
}

/** It was sound once: the first use asked for what no method does. */
function replays(name: string): Breaks {
  const sound = carried(proofKind(name))
  const used: Make = async (world, door) => {
    const sent = await sound(world, door)
    const { body, headers = {} } = door.call(world.actor('alice'), world)
    // A body of another type would be refused before the proof is looked at.
    const asked: Call = body === undefined ? { input: {} } : { body, headers }
    const call = methodOf(world, door) === 'GET' ? {} : asked
    const { status } = await sendCall(world, door, { call, sent })
    if (status === 401) throw new Error(`the first use at ${door.name} was refused`)
    return sent
  }
  // What ends a membership needs no input, and any bytes are a blob: it would be done at first.
  const at = ({ isExit, name }: Door) => !isExit && !name.endsWith('.uploadBlob')
  return breaksOf({ 'an earlier use': used }, undefined, at)
}

function methodOf(world: World, door: Door): string {
  return verbOf(door.call(world.actor('alice'), world))
}

function hashOf(token: string): string {
  return Bun.SHA256.hash(token, 'base64url')
}

function twinOf(path: string): string {
  return path.includes('com.atproto.')
    ? path.replace('com.atproto.', 'zone.stratos.')
    : path.replace('zone.stratos.', 'com.atproto.').replace('/oauth/', '/other/')
}
