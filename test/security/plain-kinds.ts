import { basic } from '../kit/seeded.ts'
import type { Door } from './doors.ts'
import { headerBreaks } from './header-breaks.ts'
import { breaksOf, invalid, type Kind, type Make, without } from './kind.ts'
import type { World } from './world.ts'

/** No credential at all. */
export const anonymous: Kind = {
  caller: 'anonymous',
  subject: 'alice',
  make: () => ({}),
  breaks: {},
}

/** A name without proof, which counts in development only. */
export function developer(subject: string): Kind {
  const named = (change: (did: string, world: World) => string): Make => {
    return (world) => ({ authorization: `Bearer ${change(world.actor(subject).did, world)}` })
  }
  const sound = named((did) => did)
  const from = (headers: (world: World) => Readonly<Record<string, string>>): Make => {
    return async (world, door) => ({ ...(await sound(world, door)), headers: headers(world) })
  }
  return {
    caller: 'self',
    by: 'development',
    subject,
    make: sound,
    breaks: {
      // A part of a DID, or another letter in it, is another DID.
      ...without(
        headerBreaks(sound),
        'its first half',
        'all but its last character',
        'another last character',
        'the credential twice',
      ),
      ...breaksOf({
        'a DID with a fragment': named((did) => `${did}#atproto`),
        'a DID with a path': named((did) => `${did}/path`),
        'two DIDs': named((did, world) => `${did},${world.actor('alice').did}`),
        'half a DID': named(() => 'did:'),
        'a method and no more': named(() => 'did:plc:'),
        'a DID in capitals': named((did) => did.toUpperCase()),
        'an escaped DID': named((did) => encodeURIComponent(did)),
        'a handle': named(() => `${subject}.test`),
        'a mark of a proxy': from(() => ({ 'x-forwarded-for': '10.0.0.1' })),
        'another mark of a proxy': from(() => ({ forwarded: 'for=10.0.0.1' })),
        'the mark of a proxy that hides the caller': from(() => ({ via: '1.1 proxy' })),
        'the host that a proxy was asked for': from(({ stratos }) => ({
          'x-forwarded-host': new URL(stratos.url).host,
        })),
        'a page of another site': from(() => ({ origin: 'https://other.example.com' })),
        'a page without an origin': from(() => ({ origin: 'null' })),
        'a name that leads here': from(({ stratos }) => ({
          host: `stratos.example.com:${stratos.port}`,
        })),
        'a name like ours': from(({ stratos }) => ({
          host: `localhost.example.com:${stratos.port}`,
        })),
      }),
    },
  }
}

/** The operator's password, as a browser would send it. */
export function adminBasic(subject: string): Kind {
  const sound: Make = ({ stratos }) => ({ authorization: stratos.adminBasic })
  const encoded = (change: (password: string) => string): Make => {
    return ({ stratos }) => ({
      authorization: `Basic ${Buffer.from(change(stratos.adminPassword)).toString('base64')}`,
    })
  }
  return {
    caller: 'admin',
    subject,
    make: sound,
    breaks: {
      ...headerBreaks(sound),
      ...breaksOf({
        ...wrongPasswords((change) => encoded((password) => `admin:${change(password)}`)),
        'another user': encoded((password) => `root:${password}`),
        'a user in capitals': encoded((password) => `Admin:${password}`),
        'no user': encoded((password) => `:${password}`),
        'no colon': encoded((password) => `admin${password}`),
        'user and password in each other’s place': encoded((password) => `${password}:admin`),
        'the password alone': encoded((password) => password),
        'text that is not encoded': ({ stratos }) => ({
          authorization: `Basic admin:${stratos.adminPassword}`,
        }),
        'a character that is none of Base64': ({ stratos }) => {
          const text = stratos.adminBasic
          return { authorization: `${text.slice(0, 10)}!${text.slice(10)}` }
        },
        'a blank in its middle': ({ stratos }) => {
          const text = stratos.adminBasic
          return { authorization: `${text.slice(0, 10)} ${text.slice(10)}` }
        },
        'no padding': ({ stratos }) => ({ authorization: stratos.adminBasic.replace(/=+$/, '') }),
        'more padding': ({ stratos }) => ({ authorization: `${stratos.adminBasic}==` }),
        'nothing encoded': () => ({ authorization: basic('', '') }),
      }),
    },
  }
}

/** The same password as a token, which it is for methods of the operator only. */
export function adminBearer(subject: string): Kind {
  const bearer = (change: (password: string) => string): Make => {
    return ({ stratos }) => ({ authorization: `Bearer ${change(stratos.adminPassword)}` })
  }
  const sound = bearer((password) => password)
  const counts = ({ inClass }: Door) => inClass === 'admin' || inClass === 'moderation'
  return {
    caller: 'admin',
    subject,
    make: sound,
    elsewhere: { counts, outcome: invalid },
    breaks: {
      ...headerBreaks(sound),
      ...breaksOf({
        ...wrongPasswords(bearer),
        'user and password': bearer((password) => `admin:${password}`),
        'what Basic takes': bearer((password) => basic('admin', password).slice('Basic '.length)),
        'two dots in it': bearer((password) => `${password}..`),
      }),
    },
  }
}

function wrongPasswords(
  made: (change: (password: string) => string) => Make,
): Readonly<Record<string, Make>> {
  return {
    'another password': made((password) => 'x'.repeat(password.length)),
    'no password': made(() => ''),
    'a password cut short': made((password) => password.slice(0, -1)),
    'a longer password': made((password) => `${password}x`),
    'a password in small letters': made((password) => `${password.toLowerCase()}.`),
    'a password after another letter': made((password) => `x${password}`),
  }
}
