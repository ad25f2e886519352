import { XrpcError } from '../atproto/errors.ts'
import { parseDid } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import type { Enrollments } from '../service/enrollment.ts'
import { Exports } from './exports.ts'
import { text } from './members.ts'
import { unauthorized } from './service-auth.ts'
import type { Method } from './xrpc.ts'

/** Whole repos, for those who may see all of one. @see protocol.md, section 6 */
export function syncMethods(parts: {
  readonly enrollments: Enrollments
  readonly call: CallActor
}): Record<string, Method> {
  const { enrollments, call } = parts
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
        if ((await enrollments.find(did)) === undefined) {
          throw new XrpcError(404, 'RepoNotFound', `${did} has no repo on this service`)
        }
        const stream = await exports.stream(
          did,
          async () => (await call(did, requestId, { kind: 'export' })).bytes,
        )
        return { body: { stream, type: 'application/vnd.ipld.car' } }
      },
    },
  }
}
