import type { NodeOAuthClientOptions } from '@atproto/oauth-client-node'
import { OAuthUnavailable } from './oauth-errors.ts'

/**
 * Refuses what no PDS has reason to say: sessions are searched as a whole for their keys, and the
 * scope is gone through at every write. The library revokes what could not be stored.
 */
export function bounded(
  store: NodeOAuthClientOptions['sessionStore'],
): NodeOAuthClientOptions['sessionStore'] {
  return {
    get: (did) => store.get(did),
    set: async (did, session) => {
      const isTooLong =
        session.tokenSet.scope.length > scopeCharsMax ||
        JSON.stringify(session).length > sessionCharsMax
      if (isTooLong) throw new OAuthUnavailable('its session is larger than any has to be')
      await store.set(did, session)
    },
    del: (did) => store.del(did),
  }
}

/** Many times what we ask for. */
const scopeCharsMax = 4096
/** Those of the official PDS have some 3,000. */
const sessionCharsMax = 64 * 1024
