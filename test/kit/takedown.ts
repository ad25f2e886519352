import type { SeededStratos } from './seeded.ts'
import type { Answer } from './xrpc.ts'

export const updateStatus = 'com.atproto.admin.updateSubjectStatus'
export const getStatus = 'com.atproto.admin.getSubjectStatus'

export function repoSubject(did: string) {
  return { $type: 'com.atproto.admin.defs#repoRef', did }
}

export function recordSubject({ uri, cid }: { readonly uri: string; readonly cid: string }) {
  return { $type: 'com.atproto.repo.strongRef', uri, cid }
}

export function blobSubject({ did, cid }: { readonly did: string; readonly cid: string }) {
  return { $type: 'com.atproto.admin.defs#repoBlobRef', did, cid }
}

/** Takes down or lets up, as the operator. */
export async function setTakedown(
  stratos: SeededStratos,
  subject: object,
  takedown: { readonly applied: boolean; readonly ref?: string },
): Promise<Answer> {
  const call = { input: { subject, takedown }, authorization: stratos.adminBasic }
  const answer = await stratos.call(updateStatus, call)
  if (answer.status !== 200) throw new Error(`${updateStatus} answered ${answer.status}`)
  return answer
}
