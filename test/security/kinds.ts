import { cookie } from './cookie-kind.ts'
import { boundKey, publishedToken, publishedTokenOf } from './dpop-kinds.ts'
import { carried } from './jwt-breaks.ts'
import { breaksOf, type Kinds, type Make } from './kind.ts'
import { adminBasic, adminBearer, anonymous, developer } from './plain-kinds.ts'
import { serviceAuth, serviceAuthOf, serviceAuthToken, streamToken } from './service-auth.ts'
import { syncBearer, syncQuery } from './stream-kinds.ts'
import { session } from './session-kind.ts'

const aMember = { caller: 'other', subject: 'alice' } as const
const aStranger = { caller: 'stranger', subject: 'alice' } as const

/**
 * Every kind of credential, with all the ways in which it can be no good. Those without any are
 * sound, and of somebody who counts for less than before.
 */
export const kinds: Kinds = {
  'no credential': anonymous,
  'service auth by K-256': serviceAuth('kate'),
  'service auth by P-256': serviceAuth('pat'),
  'service auth of a did:web': withLabelKey('wes'),
  'service auth of an AppView': serviceAuth('view', { caller: 'appview', subject: 'alice' }),
  'service auth of the moderation service': serviceAuth('mod', {
    caller: 'moderator',
    subject: 'moe',
  }),
  'service auth of another member': serviceAuthOf('otto', aMember),
  'service auth for our fragment': serviceAuthOf('olga', aMember, {
    claimsText: (json) => json.replace(/"aud":"([^"]+)"/, '"aud":"$1#atproto_pns"'),
  }),
  'service auth without a type': serviceAuthOf('otis', aMember, { header: { typ: undefined } }),
  'service auth in capitals': {
    ...serviceAuthOf('oona', aMember),
    make: renamed(serviceAuthOf('oona', aMember).make, 'BEARER'),
  },
  'service auth of a stranger': serviceAuthOf('stranger', aStranger),
  'service auth of somebody who left': serviceAuthOf('lou', aStranger),
  'service auth of an AppView that is off the list': serviceAuthOf('former-view', aStranger),
  'service auth of a former moderation service': serviceAuthOf('former-mod', aStranger),
  'a development DID': developer('dan'),
  'a session': session('sue', 'sol'),
  'an access token of published keys': publishedToken('dora', 'dolf'),
  'an access token of somebody who left': publishedTokenOf('lou', aStranger),
  'a bound key': boundKey('bea'),
  'the cookie of our own pages': cookie('cora'),
  'a token in the query of the stream': streamToken('stan'),
  'the secret of the stream': syncBearer('alice'),
  'the secret in the query of the stream': syncQuery('alice'),
  'the operator by Basic': adminBasic('vic'),
  'the operator by Bearer': adminBearer('val'),
  'the operator in small letters': {
    ...adminBasic('wim'),
    make: renamed(adminBasic('wim').make, 'basic'),
    breaks: {},
  },
}

/** Of the keys in a DID document one speaks for the account. */
function withLabelKey(issuer: string) {
  const kind = serviceAuth(issuer)
  const breaks = breaksOf({
    'another key of its document': carried(serviceAuthToken(issuer), ({ labelKey }) => ({
      sign: () => (bytes) => labelKey.sign(bytes),
    })),
  })
  return { ...kind, breaks: { ...kind.breaks, ...breaks } }
}

/** The name of a scheme is the same in letters of any case. */
function renamed(sound: Make, scheme: string): Make {
  return async (world, door) => {
    const { authorization } = await sound(world, door)
    return { authorization: String(authorization).replace(/^\w+/, scheme) }
  }
}
