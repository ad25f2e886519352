import { invalidRequest, overloaded } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { noHandle } from '../remote/account.ts'
import { DidNotResolved, type Identities } from '../remote/identity.ts'

/** What is public about an account. @see lexicon com.atproto.repo.describeRepo */
export async function describeAccount(did: Did, identities: Identities): Promise<object> {
  try {
    const didDoc = await identities.document(did)
    if (didDoc === undefined) throw invalidRequest('the DID document is too large to be passed on')
    const handle = await identities.handle(did)
    const handleIsCorrect = handle !== undefined && (await identities.lead(handle, did)) === 'there'
    return { did, didDoc, handle: handle ?? noHandle, handleIsCorrect }
  } catch (error) {
    if (!(error instanceof DidNotResolved)) throw error
    const later = error.failure === 'unreachable' || error.failure === 'busy'
    if (later) throw overloaded('the DID document cannot be looked up now')
    throw invalidRequest('the DID leads to no document')
  }
}
