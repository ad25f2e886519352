import { parseDid, parseTid } from '../atproto/syntax.ts'
import type { Bulk } from '../bulk/bulk.ts'
import type { CallActor } from '../service/calls.ts'
import type { View } from '../store/actor.ts'
import { type AccessFacts, grantOf } from './caller.ts'
import { Downloads } from './downloads.ts'
import { text } from '../atproto/members.ts'
import { findWholeRepo } from './whole-repo.ts'
import type { Method } from './xrpc.ts'

/** Whole repos, for those who may see all of one. @see protocol.md, section 6 */
export function syncMethods(
  parts: AccessFacts & { readonly call: CallActor; readonly bulk: Bulk },
): Record<string, Method> {
  const { enrollments, call, bulk } = parts
  const exports = new Downloads(exportLimits)
  const getRepo: Method = {
    audience: 'anyone',
    handle: async ({ params, caller, requestId }) => {
      const did = parseDid(text(params, 'did') ?? '')
      const sinceText = text(params, 'since')
      const since = sinceText === undefined ? undefined : parseTid(sinceText)
      const { records: except } = await findWholeRepo(caller, did, parts)
      const boundaries = caller.kind === 'service' ? grantOf(caller, enrollments) : 'all'
      const view: View = { boundaries, except }
      const settled = () => call(did, requestId, { kind: 'settle' })
      const stream = await exports.stream(
        'did' in caller ? caller.did : caller.kind,
        async () => await bulk.export({ did, view, since }, settled),
      )
      return { body: { stream, type: 'application/vnd.ipld.car' } }
    },
  }
  return { 'zone.stratos.sync.getRepo': getRepo, 'com.atproto.sync.getRepo': getRepo }
}

/** Each is walked through by a worker while it is sent. */
const exportLimits = { ofCallerMax: 3, togetherMax: 12, what: 'whole repos' } as const
