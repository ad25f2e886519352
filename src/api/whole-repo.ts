import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { RepoTakedowns } from '../store/takedown.ts'
import { type AccessFacts, type Caller, findsRepo, repoTakendown } from './caller.ts'
import { repoNotFound } from './repo-name.ts'
import { unauthorized } from './service-auth.ts'

/**
 * The repo of `did` as somebody finds it who sees all of it, with what of it is taken down.
 * @throws XrpcError as `checkSeesWhole`; 404 RepoNotFound, 403 RepoTakendown to the owner
 */
export async function findWholeRepo(
  caller: Caller,
  did: Did,
  { enrollments, takedowns }: AccessFacts,
): Promise<RepoTakedowns> {
  checkSeesWhole(caller, did)
  if (!(await findsRepo(caller, did, enrollments))) throw repoNotFound(did)
  const found = await takedowns.of(did)
  if (found.repo && caller.kind === 'service') throw repoNotFound(did)
  if (found.repo && caller.kind !== 'admin') throw repoTakendown()
  return found
}

/** Whole repos are for their owners, the operator, and AppViews that may read all boundaries. */
export function seesWhole(caller: Caller, did: Did): boolean {
  switch (caller.kind) {
    case 'admin':
      return true
    case 'user':
      return caller.did === did
    case 'service':
      return caller.boundaries === 'all'
    case 'anonymous':
    case 'moderator':
      return false
    default:
      return unreachable(caller)
  }
}

/** @throws XrpcError 401 AuthMissing, 403 Forbidden: the same of every repo, there or not */
export function checkSeesWhole(caller: Caller, did: Did): void {
  if (seesWhole(caller, did)) return
  if (caller.kind === 'anonymous') throw unauthorized('AuthMissing', 'a repo has an owner')
  const whom = caller.kind === 'service' ? 'AppViews that may read all boundaries' : 'its owner'
  throw new XrpcError(403, 'Forbidden', `a whole repo is for ${whom}`)
}
