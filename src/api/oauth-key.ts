import { invalidRequest } from '../atproto/errors.ts'
import type { OauthKeys } from '../service/oauth-keys.ts'
import type { Method } from './xrpc.ts'

/** The method by which the operator changes the key of the OAuth client. */
export function oauthKeyMethods(parts: {
  /** None while the client of this service is a public one. */
  readonly keys: OauthKeys | undefined
}): Record<string, Method> {
  return {
    'zone.stratos.admin.rotateOauthKey': {
      audience: 'admin',
      handle: async () => {
        if (parts.keys === undefined) {
          throw invalidRequest('only a service with an https URL has keys of an OAuth client')
        }
        return { body: { kid: await parts.keys.rotate() } }
      },
    },
  }
}
