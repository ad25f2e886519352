import { invalidRequest, overloaded } from '../atproto/errors.ts'
import type { Did, Handle } from '../atproto/syntax.ts'
import { DidNotResolved, HandleUnavailable, type Identities } from '../remote/identity.ts'

/** What is public about an account. @see lexicon com.atproto.repo.describeRepo */
export async function describeAccount(did: Did, identities: Identities): Promise<object> {
  try {
    const didDoc = await identities.document(did)
    if (didDoc === undefined) throw invalidRequest('the DID document is too large to be passed on')
    const handle = await identities.handle(did)
    const handleIsCorrect = handle !== undefined && (await leadsTo(did, handle, identities))
    return { did, didDoc, handle: handle ?? noHandle, handleIsCorrect }
  } catch (error) {
    if (!(error instanceof DidNotResolved)) throw error
    const later = error.failure === 'unreachable' || error.failure === 'busy'
    if (later) throw overloaded('the DID document cannot be looked up now')
    throw invalidRequest('the DID leads to no document')
  }
}

/** Stands for a handle where a document claims none. @see https://atproto.com/specs/handle */
const noHandle = 'handle.invalid'

async function leadsTo(did: Did, handle: Handle, identities: Identities): Promise<boolean> {
  try {
    return (await identities.resolveHandle(handle)) === did
  } catch (error) {
    // Not known to be correct.
    if (error instanceof DidNotResolved || error instanceof HandleUnavailable) return false
    throw error
  }
}
