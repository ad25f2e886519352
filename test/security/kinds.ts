import { cookie } from './cookie-kind.ts'
import { boundKey, publishedToken, publishedTokenOf } from './dpop-kinds.ts'
import { carried } from './jwt-breaks.ts'
import { breaksOf, type Kinds } from './kind.ts'
import { adminBasic, adminBearer, anonymous, developer } from './plain-kinds.ts'
import { serviceAuth, serviceAuthOf, serviceAuthToken } from './service-auth.ts'
import { session } from './session-kind.ts'

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
  'service auth of another member': serviceAuthOf('otto', { caller: 'other', subject: 'alice' }),
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
  'the operator by Basic': adminBasic('vic'),
  'the operator by Bearer': adminBearer('val'),
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
