import { XrpcError } from '../atproto/errors.ts'
import { parseDid } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import { type AccessFacts, repoTakendown } from './caller.ts'
import { findsRepo } from './caller.ts'
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
        if (!(await findsRepo(caller, did, enrollments))) {
          throw new XrpcError(404, 'RepoNotFound', `${did} has no repo on this service`)
        }
        const { repo, records } = await takedowns.of(did)
        if (repo && caller.kind !== 'admin') throw repoTakendown()
        const ask = { kind: 'export', except: records } as const
        const stream = await exports.stream(
          did,
          async () => (await call(did, requestId, ask)).bytes,
        )
        return { body: { stream, type: 'application/vnd.ipld.car' } }
      },
    },
  }
}
