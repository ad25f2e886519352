import { invalidRequest, overloaded } from '../atproto/errors.ts'
import { type Did, isDid, isHandle } from '../atproto/syntax.ts'
import { DidNotResolved, HandleUnavailable, type Identities } from './identity.ts'

/** Stands for a handle where none is known. @see https://atproto.com/specs/handle */
export const noHandle = 'handle.invalid'

/**
 * The account that a text names, by DID or by handle.
 * @throws XrpcError 400 for what is neither, 503 while handles cannot be looked up
 */
export async function accountOf(account: string, identities: Identities): Promise<Did | undefined> {
  if (isDid(account)) return account
  const handle = account.toLowerCase()
  if (!isHandle(handle)) throw invalidRequest('an account is named by its DID or its handle')
  try {
    return await identities.resolveHandle(handle)
  } catch (error) {
    if (error instanceof DidNotResolved || error instanceof HandleUnavailable) {
      throw overloaded('the handle cannot be looked up now')
    }
    throw error
  }
}
