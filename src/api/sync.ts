import { XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import { type AccessFacts, findsRepo, grantOf, repoTakendown } from './caller.ts'
import { Exports } from './exports.ts'
import { text } from './members.ts'
import { unauthorized } from './service-auth.ts'
import type { Method } from './xrpc.ts'

/** Whole repos, for those who may see all of one. @see protocol.md, section 6 */
export function syncMethods(
  parts: AccessFacts & { readonly call: CallActor },
): Record<string, Method> {
  const { enrollments, takedowns, call } = parts
  const exports = new Exports()
  return {
    'zone.stratos.sync.getRepo': {
      audience: 'anyone',
      handle: async ({ params, caller, requestId }) => {
        const did = parseDid(text(params, 'did') ?? '')
        if (caller.kind === 'anonymous') throw unauthorized('AuthMissing', 'a repo has an owner')
        if (caller.kind === 'user' && caller.did !== did) {
          throw new XrpcError(403, 'Forbidden', 'a whole repo is for its owner')
        }
        if (caller.kind === 'service' && caller.boundaries !== 'all') {
          const message = 'a whole repo is for AppViews that may read all boundaries'
          throw new XrpcError(403, 'Forbidden', message)
        }
        if (!(await findsRepo(caller, did, enrollments))) throw repoNotFound(did)
        const { repo, records: except } = await takedowns.of(did)
        if (repo && caller.kind === 'service') throw repoNotFound(did)
        if (repo && caller.kind !== 'admin') throw repoTakendown()
        const boundaries = caller.kind === 'service' ? grantOf(caller, enrollments) : 'all'
        const ask = { kind: 'export', view: { boundaries, except } } as const
        const stream = await exports.stream(
          did,
          async () => (await call(did, requestId, ask)).bytes,
        )
        return { body: { stream, type: 'application/vnd.ipld.car' } }
      },
    },
  }
}

function repoNotFound(did: Did): XrpcError {
  return new XrpcError(404, 'RepoNotFound', `${did} has no repo on this service`)
}
