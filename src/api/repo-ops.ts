import { invalidRequest } from '../atproto/errors.ts'
import { type Did, isTid, parseDid, parseTid } from '../atproto/syntax.ts'
import { isCid } from '../atproto/cid.ts'
import type { CallActor, OpsFrom, OpsStart } from '../service/calls.ts'
import type { Eyes } from '../service/event-view.ts'
import { cursorAgeMs } from '../stream/repo-stream.ts'
import { type AccessFacts, grantOf } from './caller.ts'
import { flag, number, text } from '../atproto/members.ts'
import { checkSubscriber } from './stream.ts'
import type { Answer, Call, Method } from './xrpc.ts'

/** What streams tell, for whoever pulls. @see protocol.md, section 6 */
export function repoOpsMethods(
  parts: AccessFacts & { readonly call: CallActor },
): Record<string, Method> {
  return {
    'zone.stratos.sync.listRepoOps': {
      // What opens the stream alone, such as its token in a query, opens nothing here.
      audience: 'anyone',
      handle: (call) => listRepoOps(call, parts),
    },
  }
}

async function listRepoOps(
  { params, caller, requestId }: Call,
  parts: AccessFacts & { readonly call: CallActor },
): Promise<Answer> {
  const did = parseDid(text(params, 'did') ?? '')
  await checkSubscriber(caller, did, parts)
  const { repo, records } = await parts.takedowns.of(did)
  const eyes: Eyes = caller.kind === 'service' ? grantOf(caller, parts.enrollments) : 'all'
  const isWhole = caller.kind !== 'service' || caller.boundaries === 'all'
  // Who sees a part is told times of their own, and of the rest not even when it last changed.
  const recently = (Date.now() - cursorAgeMs) * 1000
  const from = fromOf(params, did, isWhole ? undefined : { seq: recently })
  const { ops, seq, commit, next } = await parts.call(did, requestId, {
    kind: 'ops',
    from,
    limit: number(params, 'limit') ?? 500,
    eyes,
    values: flag(params, 'excludeValues') ? 'left-out' : 'along',
    except: caller.kind === 'admin' ? [] : repo ? 'all' : records,
  })
  const more = next === undefined ? {} : { cursor: cursorText(next) }
  if (isWhole) return { body: { ops, ...more, commit, seq } }
  const isEndOfLog = from.kind !== 'present' && next === undefined
  return { body: { ops, ...more, seq: isEndOfLog ? recently : seq } }
}

/**
 * @param start what a reader is told of where the repo stands now, where that is not all
 * @throws XrpcError 400 InvalidRequest for a cursor that is none of ours
 */
function fromOf(params: Call['params'], did: Did, start: OpsStart | undefined): OpsFrom {
  const cursor = text(params, 'cursor')
  const since = text(params, 'since')
  if (cursor !== undefined) return cursorOf(cursor, did)
  if (since !== undefined) return { kind: 'since', rev: parseTid(since) }
  return { kind: 'present', after: `at://${did}/`, start }
}

/** Where the next page begins: nothing that the caller was not told, and nothing that opens more. */
function cursorText(from: OpsFrom): string {
  return Buffer.from(JSON.stringify(from)).toString('base64url')
}

function cursorOf(cursor: string, did: Did): OpsFrom {
  const from = parsed(cursor)
  const { seq, count, after } = from
  if (from['kind'] === 'after' && isCount(seq) && isCount(count))
    return { kind: 'after', seq, count }
  const start = startOf(from['start'])
  const isHere = typeof after === 'string' && after.startsWith(`at://${did}/`)
  if (from['kind'] === 'present' && isHere && start !== undefined) {
    return { kind: 'present', after, start }
  }
  throw invalidRequest('cursor must be one that a page before this ended with')
}

function startOf(value: unknown): OpsStart | undefined {
  if (!isObject(value) || !isCount(value['seq'])) return undefined
  const { seq, commit } = value
  if (commit === undefined) return { seq }
  if (!isObject(commit)) return undefined
  const { rev, cid } = commit
  const isCommit = typeof rev === 'string' && typeof cid === 'string' && isTid(rev) && isCid(cid)
  return isCommit ? { seq, commit: { rev, cid } } : undefined
}

function parsed(cursor: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    return isObject(value) ? value : {}
  } catch {
    return {}
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}
