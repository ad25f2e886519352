import { invalidRequest, overloaded, XrpcError } from '../atproto/errors.ts'
import { type Did, isDid, isHandle } from '../atproto/syntax.ts'
import { DidNotResolved, HandleUnavailable, type Identities } from '../remote/identity.ts'

/**
 * The account that `repo` names, by DID or by handle.
 * @throws XrpcError 400 for what is neither, 503 while handles cannot be looked up
 */
export async function accountOf(repo: string, identities: Identities): Promise<Did | undefined> {
  if (isDid(repo)) return repo
  const handle = repo.toLowerCase()
  if (!isHandle(handle)) throw invalidRequest('repo must be a DID or a handle')
  try {
    return await identities.resolveHandle(handle)
  } catch (error) {
    if (error instanceof DidNotResolved || error instanceof HandleUnavailable) {
      throw overloaded('the handle cannot be looked up now')
    }
    throw error
  }
}

export function repoNotFound(repo: string): XrpcError {
  return new XrpcError(404, 'RepoNotFound', `${repo} has no repo on this service`)
}
