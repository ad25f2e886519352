import { headerBreaks } from './header-breaks.ts'
import { type Breaks, breaksOf, invalid, type Kind, type Make } from './kind.ts'
import type { Door } from './doors.ts'
import type { World } from './world.ts'

/** The secret that the operator shares with services of their own, as a token. */
export function syncBearer(subject: string): Kind {
  const bearer = (change: (secret: string) => string): Make => {
    return ({ syncSecret }) => ({ authorization: `Bearer ${change(syncSecret)}` })
  }
  const sound = bearer((secret) => secret)
  return {
    caller: 'appview',
    subject,
    make: sound,
    elsewhere: { counts: isStream, outcome: invalid },
    breaks: { ...headerBreaks(sound), ...breaksOf(wrongSecrets(bearer)) },
  }
}

/** The same in the query: browsers set no headers on a WebSocket. */
export function syncQuery(subject: string): Kind {
  const query = (change: (secret: string, world: World) => string): Make => {
    return (world) => ({ query: { syncToken: change(world.syncSecret, world) } })
  }
  const sound = query((secret) => secret)
  return {
    caller: 'appview',
    subject,
    make: sound,
    elsewhere: { counts: isStream, outcome: 'anonymous' },
    breaks: { ...breaksOf(wrongSecrets(query), invalid, isStream), ...queryBreaks(sound) },
  }
}

/** How a query can carry what is sound. */
export function queryBreaks(sound: Make): Breaks {
  const changed = (change: (value: string, world: World) => Awaited<ReturnType<Make>>): Make => {
    return async (world, door) => {
      const { query } = await sound(world, door)
      return change(String(query?.['syncToken']), world)
    }
  }
  const beside = (authorization: (world: World) => string): Make =>
    changed((syncToken, world) => ({
      query: { syncToken },
      authorization: authorization(world),
    }))
  return {
    ...breaksOf(
      {
        'nothing after its name': changed(() => ({ query: { syncToken: '' } })),
        'a scheme before it': changed((value) => ({ query: { syncToken: `Bearer ${value}` } })),
        'a blank after it': changed((value) => ({ query: { syncToken: `${value} ` } })),
        'half of it': changed((value) => ({
          query: { syncToken: value.slice(0, value.length / 2) },
        })),
        'it escaped twice': changed((value) => ({
          query: {
            syncToken: `%${value.charCodeAt(0).toString(16)}${value.slice(1)}`,
          },
        })),
        'a DID in its place': changed((_, world) => ({
          query: { syncToken: world.actor('alice').did },
        })),
        'the password of the operator in its place': changed((_, { stratos }) => ({
          query: { syncToken: stratos.adminPassword },
        })),
        'a session in its place': changed((_, { sessions }) => ({
          query: { syncToken: (sessions.get('sue') ?? '').slice('Bearer '.length) },
        })),
      },
      invalid,
      isStream,
    ),
    ...breaksOf(
      {
        'it twice': changed((value) => ({ query: { syncToken: [value, value] } })),
        'another after it': changed((value) => ({ query: { syncToken: [value, 'other'] } })),
        'another before it': changed((value) => ({ query: { syncToken: ['other', value] } })),
        'the operator beside it': beside(({ stratos }) => stratos.adminBasic),
        'a DID beside it': beside((world) => `Bearer ${world.actor('alice').did}`),
        'an empty header beside it': beside(() => ''),
        'a proof beside it': changed((syncToken) => ({
          query: { syncToken },
          headers: { dpop: 'proof' },
        })),
      },
      [400, 'InvalidRequest'],
      isStream,
    ),
    ...breaksOf(
      {
        'another name': changed((value) => ({ query: { token: value, access_token: value } })),
        'its name in capitals': changed((value) => ({ query: { SYNCTOKEN: value } })),
        'its place in a header': changed((value) => ({ headers: { synctoken: value } })),
        'its place in a cookie': changed((value) => ({
          headers: { cookie: `syncToken=${value}` },
        })),
      },
      'anonymous',
      isStream,
    ),
  }
}

function wrongSecrets(
  made: (change: (secret: string) => string) => Make,
): Readonly<Record<string, Make>> {
  return {
    'another secret': made((secret) => 'x'.repeat(secret.length)),
    'a secret cut short': made((secret) => secret.slice(0, -1)),
    'a longer secret': made((secret) => `${secret}x`),
    'a secret in capitals': made((secret) => secret.toUpperCase()),
    'a secret after another letter': made((secret) => `x${secret}`),
  }
}

function isStream({ inClass }: Door): boolean {
  return inClass === 'stream'
}
