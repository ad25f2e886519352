import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { CallActor } from '../service/calls.ts'
import type { Eyes } from '../service/event-view.ts'
import type { BoundKeys } from '../store/bound-key.ts'
import type { MemberLog } from '../store/member-log.ts'
import type { ServiceStore } from '../store/service.ts'
import type { Sessions } from '../store/session.ts'
import type { Following } from '../stream/following.ts'
import { Memberships } from '../stream/memberships.ts'
import { type Reading, RepoStream } from '../stream/repo-stream.ts'
import { ServiceStream } from '../stream/service-stream.ts'
import type { Streams, Wanted } from '../stream/streams.ts'
import type { ToldCursors } from '../stream/told-cursors.ts'
import {
  type AccessFacts,
  type Caller,
  checkAudience,
  findsRepo,
  grantOf,
  owns,
  repoTakendown,
} from './caller.ts'
import { flag, number, text } from '../atproto/members.ts'
import { repoNotFound } from './repo-name.ts'
import { type Call, type Method, upgraded } from './xrpc.ts'

interface Parts extends AccessFacts {
  readonly config: { readonly publicUrl: string }
  readonly store: ServiceStore
  readonly members: MemberLog
  readonly tokenSessions: Sessions
  readonly boundKeys: BoundKeys
  readonly call: CallActor
  readonly following: Following
  readonly told: ToldCursors
  readonly streams: Streams
  readonly log: Log
}

/** What is sent as it happens. Refusals come before any upgrade. @see protocol.md, section 6 */
export function streamMethods(parts: Parts): Record<string, Method> {
  return {
    'zone.stratos.sync.subscribeRecords': {
      audience: 'stream',
      handle: async (call) => {
        const stream = parts.streams.admit(await wantedBy(call, parts))
        const protocol = protocolOf(call.request)
        const headers = protocol === undefined ? {} : { 'sec-websocket-protocol': protocol }
        if (call.upgrade(stream, headers)) return { body: upgraded }
        stream.closed()
        throw new XrpcError(426, 'UpgradeRequired', 'this method is a WebSocket', {
          headers: { upgrade: 'websocket', connection: 'upgrade' },
        })
      },
    },
  }
}

const jsonProtocol = 'xrpc.v1.json'
const cborProtocol = 'xrpc.v1.cbor'

/** The first that the client offers and is known here; without one, frames are CBOR. */
function protocolOf({ headers }: Request): string | undefined {
  const offered = (headers.get('sec-websocket-protocol') ?? '').split(',').map((one) => one.trim())
  return offered.find((one) => one === jsonProtocol || one === cborProtocol)
}

async function wantedBy(
  { params, caller, request, requestId }: Call,
  parts: Parts,
): Promise<Wanted> {
  const did = text(params, 'did')
  const isEntitled = async () =>
    (await keepsCredential(caller, parts)) &&
    (await refusalOf(() => checkSubscriber(caller, did, parts))) === undefined
  await checkSubscriber(caller, did, parts)
  const reading = { ...readingOf(caller, text(params, 'domain'), parts), requestId }
  const common = {
    caller: caller.kind === 'user' || caller.kind === 'service' ? caller.did : caller.kind,
    callerMax: caller.kind === 'service' ? streamsOfServiceMax : streamsOfPersonMax,
    format: protocolOf(request) === jsonProtocol ? ('json' as const) : ('cbor' as const),
    isEntitled,
    expiresAtMs: await expiryOf(caller, parts),
  }
  if (did !== undefined) {
    const cursor = number(params, 'cursor')
    const facts = { ...parts, ...reading, did: parseDid(did), cursor, now: Date.now }
    return { ...common, kind: 'repo', open: (outlet) => new RepoStream({ ...facts, outlet }) }
  }
  const kind = flag(params, 'commits') ? 'commits' : 'enrollments'
  const service = parts.config.publicUrl
  return {
    ...common,
    kind,
    open: (outlet, cursors) => {
      const memberships = new Memberships({ ...parts, service })
      return new ServiceStream({ ...parts, ...reading, outlet, cursors, memberships })
    },
  }
}

const streamsOfPersonMax = 100
const streamsOfServiceMax = 20_000

/** @throws XrpcError 400, 403 for a boundary that is none, or none of the reader's */
function readingOf(
  caller: Caller,
  domain: string | undefined,
  { enrollments }: AccessFacts,
): Omit<Reading, 'requestId'> {
  const seesTakendown = caller.kind === 'admin'
  const whole: Eyes = caller.kind === 'service' ? grantOf(caller, enrollments) : 'all'
  const isAll = caller.kind !== 'service' || caller.boundaries === 'all'
  if (domain === undefined) return { eyes: whole, seesWhole: isAll, seesTakendown }
  if (!enrollments.boundaries.includes(domain)) {
    throw invalidRequest('domain must be a boundary of this service, with its DID')
  }
  if (whole !== 'all' && !whole.includes(domain)) {
    throw new XrpcError(403, 'Forbidden', 'this boundary is not among those you may read')
  }
  return { eyes: [domain], seesWhole: false, seesTakendown }
}

/** When the credential ends: of several the first that does. */
async function expiryOf(caller: Caller, { boundKeys }: Parts): Promise<number | undefined> {
  if (caller.kind !== 'user') return undefined
  const { did, jkt, session, expiresAtMs = Infinity } = caller
  const keys = jkt === undefined ? [] : await boundKeys.all(did, Date.now())
  const key = keys.find((one) => one.jkt === jkt)
  const first = Math.min(
    expiresAtMs,
    session?.expiresAtMs ?? Infinity,
    key?.expiresAtMs ?? Infinity,
  )
  return first === Infinity ? undefined : first
}

/** Whether what opened the stream would still open it. */
async function keepsCredential(caller: Caller, parts: Parts): Promise<boolean> {
  if (caller.kind !== 'user') return true
  const nowMs = Date.now()
  const { did, session, jkt } = caller
  if (session !== undefined) {
    return (await parts.tokenSessions.find(session.digest, nowMs)) !== undefined
  }
  return jkt === undefined || (await parts.boundKeys.isBound(did, jkt, nowMs))
}

async function refusalOf(check: () => Promise<void>): Promise<XrpcError | undefined> {
  try {
    await check()
    return undefined
  } catch (error) {
    if (error instanceof XrpcError) return error
    throw error
  }
}

/** @throws XrpcError 401 AuthMissing; 403 Forbidden, RepoTakendown; 404 RepoNotFound */
export async function checkSubscriber(
  caller: Caller,
  of: string | undefined,
  { enrollments, takedowns }: AccessFacts,
): Promise<void> {
  checkAudience(caller, 'stream')
  if (of === undefined) {
    if (caller.kind === 'service') return
    throw new XrpcError(403, 'Forbidden', 'the stream of the whole service is for AppViews')
  }
  const did: Did = parseDid(of)
  if (caller.kind === 'user' && !owns(caller, did)) {
    throw new XrpcError(403, 'Forbidden', 'the stream of a repo is for its owner')
  }
  if (!(await findsRepo(caller, did, enrollments))) throw repoNotFound(did)
  const { repo } = await takedowns.of(did)
  if (!repo || caller.kind === 'admin') return
  throw caller.kind === 'user' ? repoTakendown() : repoNotFound(did)
}
