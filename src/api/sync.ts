import { XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid, parseTid } from '../atproto/syntax.ts'
import type { Bulk } from '../bulk/bulk.ts'
import type { CallActor } from '../service/calls.ts'
import type { View } from '../store/actor.ts'
import { type AccessFacts, findsRepo, grantOf, repoTakendown } from './caller.ts'
import { Exports } from './exports.ts'
import { text } from './members.ts'
import { unauthorized } from './service-auth.ts'
import type { Method } from './xrpc.ts'

/** Whole repos, for those who may see all of one. @see protocol.md, section 6 */
export function syncMethods(
  parts: AccessFacts & { readonly call: CallActor; readonly bulk: Bulk },
): Record<string, Method> {
  const { enrollments, takedowns, call, bulk } = parts
  const exports = new Exports()
  return {
    'zone.stratos.sync.getRepo': {
      audience: 'anyone',
      handle: async ({ params, caller, requestId }) => {
        const did = parseDid(text(params, 'did') ?? '')
        const sinceText = text(params, 'since')
        const since = sinceText === undefined ? undefined : parseTid(sinceText)
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
        const view: View = { boundaries, except }
        const settled = () => call(did, requestId, { kind: 'settle' })
        const stream = await exports.stream(
          caller.kind === 'admin' ? 'admin' : caller.did,
          async () => await bulk.export({ did, view, since }, settled),
        )
        return { body: { stream, type: 'application/vnd.ipld.car' } }
      },
    },
  }
}

function repoNotFound(did: Did): XrpcError {
  return new XrpcError(404, 'RepoNotFound', `${did} has no repo on this service`)
}
