import { XrpcError } from '../atproto/errors.ts'
import { parseDid } from '../atproto/syntax.ts'
import { type AccessFacts, type Caller, findsRepo, owns, repoTakendown } from './caller.ts'
import { text } from './members.ts'
import { repoNotFound } from './repo-name.ts'
import type { Method } from './xrpc.ts'

/** What is sent as it happens. Refusals come before any upgrade. @see protocol.md, section 6 */
export function streamMethods(parts: AccessFacts): Record<string, Method> {
  return {
    'zone.stratos.sync.subscribeRecords': {
      audience: 'stream',
      handle: async ({ params, caller }) => {
        await checkSubscriber(caller, text(params, 'did'), parts)
        throw new XrpcError(501, 'MethodNotImplemented', 'this service sends no stream yet')
      },
    },
  }
}

/** @throws XrpcError 403 Forbidden, RepoTakendown; 404 RepoNotFound */
async function checkSubscriber(
  caller: Caller,
  of: string | undefined,
  { enrollments, takedowns }: AccessFacts,
): Promise<void> {
  if (of === undefined) {
    if (caller.kind === 'service') return
    throw new XrpcError(403, 'Forbidden', 'the stream of the whole service is for AppViews')
  }
  const did = parseDid(of)
  if (caller.kind === 'user' && !owns(caller, did)) {
    throw new XrpcError(403, 'Forbidden', 'the stream of a repo is for its owner')
  }
  if (!(await findsRepo(caller, did, enrollments))) throw repoNotFound(did)
  const { repo } = await takedowns.of(did)
  if (!repo || caller.kind === 'admin') return
  throw caller.kind === 'user' ? repoTakendown() : repoNotFound(did)
}
