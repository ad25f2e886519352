import { parseDid } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import { type AccessFacts, findsRepo } from './caller.ts'
import { text } from '../atproto/members.ts'
import { repoNotFound } from './repo-name.ts'
import { checkSeesWhole, findWholeRepo } from './whole-repo.ts'
import type { Answer, Call, Method } from './xrpc.ts'

interface Parts extends AccessFacts {
  readonly call: CallActor
}

/** How far and in what state repos are, for those who see all of one. */
export function repoStatusMethods(parts: Parts): Record<string, Method> {
  const commit: Method = { audience: 'anyone', handle: (call) => getLatestCommit(call, parts) }
  const status: Method = { audience: 'anyone', handle: (call) => getRepoStatus(call, parts) }
  return {
    'zone.stratos.sync.getLatestCommit': commit,
    'com.atproto.sync.getLatestCommit': commit,
    'zone.stratos.sync.getRepoStatus': status,
    'com.atproto.sync.getRepoStatus': status,
  }
}

async function getLatestCommit(call: Call, parts: Parts): Promise<Answer> {
  const did = parseDid(text(call.params, 'did') ?? '')
  await findWholeRepo(call.caller, did, parts)
  const { cid, rev } = await parts.call(did, call.requestId, { kind: 'head' })
  return { body: { cid, rev } }
}

/** A takedown is no secret before those who would otherwise ask again and again. */
async function getRepoStatus({ params, caller, requestId }: Call, parts: Parts): Promise<Answer> {
  const { enrollments, takedowns } = parts
  const did = parseDid(text(params, 'did') ?? '')
  checkSeesWhole(caller, did)
  if (!(await findsRepo(caller, did, enrollments))) throw repoNotFound(did)
  const inactive = (status: string): Answer => ({ body: { did, active: false, status } })
  if ((await takedowns.of(did)).repo) return inactive('takendown')
  if ((await enrollments.find(did)) === undefined) return inactive('deactivated')
  const { rev } = await parts.call(did, requestId, { kind: 'head' })
  return { body: { did, active: true, rev } }
}
