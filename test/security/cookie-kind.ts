import type { Door } from './doors.ts'
import { breaksOf, forbidden, invalid, type Kind, type Make } from './kind.ts'
import type { World } from './world.ts'

/** What a browser has after somebody signed in on our own pages. */
export function cookie(subject: string): Kind {
  const valued = (value: (world: World, door: Door) => string): Make => {
    return (world, door) => ({ headers: { cookie: `${cookieName}=${value(world, door)}` } })
  }
  const sound = valued(valueOf)
  const from = (headers: (world: World) => Readonly<Record<string, string>>): Make => {
    return async (world, door) => {
      const { headers: own } = await sound(world, door)
      return { headers: { ...own, ...headers(world) } }
    }
  }
  const counts = ({ accepts }: Door) => accepts.includes('cookie')
  const changes = (door: Door) => counts(door) && door.name !== '/oauth/status'
  const cookies = (text: (value: string) => string): Make => {
    return (world, door) => ({ headers: { cookie: text(valueOf(world, door)) } })
  }
  return {
    caller: 'self',
    by: 'cookie',
    subject,
    make: sound,
    elsewhere: { counts, outcome: 'anonymous' },
    breaks: {
      ...breaksOf(
        {
          'no value': valued(() => ''),
          'another value': valued(() => 'x'.repeat(43)),
          'its first half': valued((world, door) => valueOf(world, door).slice(0, 21)),
          'all but its last character': valued((world, door) => valueOf(world, door).slice(0, -1)),
          'one character more': valued((world, door) => `${valueOf(world, door)}x`),
          'quotation marks': valued((world, door) => `"${valueOf(world, door)}"`),
          'an escaped character': valued((world, door) => {
            const value = valueOf(world, door)
            return `%${value.charCodeAt(0).toString(16)}${value.slice(1)}`
          }),
          'a value that has ended': valued(({ stored }) => stored.cookies.get('ended') ?? ''),
          'a value whose time is over': valued(({ stored }) => stored.cookies.get('expired') ?? ''),
          'the name of a secure cookie': cookies((value) => `__Host-${cookieName}=${value}`),
          'its name in capitals': cookies((value) => `${cookieName.toUpperCase()}=${value}`),
          'another name': cookies((value) => `session=${value}`),
          'another cookie of its name before it': cookies(
            (value) => `${cookieName}=${'x'.repeat(43)}; ${cookieName}=${value}`,
          ),
          'a session token for a value': valued(({ sessions }) =>
            (sessions.get('sue') ?? '').slice('Bearer '.length),
          ),
        },
        'anonymous',
        counts,
      ),
      ...breaksOf(
        {
          'a page of another site': from(() => ({ origin: 'https://other.example.com' })),
          'a page of another port': from(() => ({ origin: 'http://localhost:1' })),
          'a page without an origin': from(() => ({ origin: 'null' })),
          'a page of this host by https': from(({ stratos }) => ({
            origin: stratos.url.replace('http:', 'https:'),
          })),
          'a request that another site caused': from(() => ({ 'sec-fetch-site': 'cross-site' })),
          'a request of a neighbouring site': from(() => ({ 'sec-fetch-site': 'same-site' })),
          'a name that leads here': from(({ stratos }) => ({
            host: `stratos.example.com:${stratos.port}`,
          })),
        },
        forbidden,
        counts,
      ),
      ...breaksOf(
        {
          'its place in a header': (world, door) => ({
            authorization: `Bearer ${valueOf(world, door)}`,
          }),
          'a bad token beside it': async (world, door) => ({
            ...(await sound(world, door)),
            authorization: 'Bearer other',
          }),
          'an empty header beside it': async (world, door) => ({
            ...(await sound(world, door)),
            authorization: '',
          }),
        },
        invalid,
        counts,
      ),
      ...breaksOf({ 'no origin': from(() => ({ origin: '' })) }, forbidden, changes),
      ...breaksOf(
        { 'a body that a form can send': from(() => ({ 'content-type': 'text/plain' })) },
        forbidden,
        ({ name }) => name.endsWith('.createSession'),
      ),
    },
  }
}

const cookieName = 'stratos-session'

/** What one page ends, another has of its own. */
function valueOf({ stored }: World, { name }: Door): string {
  const whose = { '/oauth/signout': 'cora who signs out', '/oauth/revoke': 'cleo' }[name] ?? 'cora'
  return stored.cookies.get(whose) ?? ''
}
