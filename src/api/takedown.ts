import { type Cid, isRawCid } from '../atproto/cid.ts'
import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid, parseRecordUri, recordUri } from '../atproto/syntax.ts'
import { assert, unreachable } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { BlobKeeper } from '../service/blob-keeper.ts'
import type { CallActor } from '../service/calls.ts'
import type { TakedownNews } from '../service/takedown-news.ts'
import {
  recordTakedownsMax,
  subjectOf,
  type Takedown,
  type TakedownStore,
  type TakedownSubject,
} from '../store/takedown.ts'
import type { AccessFacts, Caller } from './caller.ts'
import { cidOf, fields, flag, text } from '../atproto/members.ts'
import type { Answer, Call, Method } from './xrpc.ts'

/** Takes repos and records down and lets them up again. @see protocol.md, section 5 */
export function takedownMethods(parts: TakedownParts): Record<string, Method> {
  return {
    'com.atproto.admin.updateSubjectStatus': {
      audience: 'moderation',
      handle: (call) => updateSubjectStatus(call, parts),
    },
    'com.atproto.admin.getSubjectStatus': {
      audience: 'moderation',
      handle: (call) => getSubjectStatus(call, parts),
    },
  }
}

interface TakedownParts extends AccessFacts {
  readonly news: TakedownNews
  readonly blobs: BlobKeeper
  readonly call: CallActor
  readonly log: Log
}

/** The next read goes by it. The subject need not be known here, or not yet. */
async function updateSubjectStatus(call: Call, parts: TakedownParts): Promise<Answer> {
  const { input } = call
  if (input['deactivated'] !== undefined) {
    throw invalidRequest('deactivated is not supported: an account is deactivated on its PDS')
  }
  const subject = parseSubject(fields(input, 'subject') ?? {})
  const shown = { subject: shownSubject(subject) }
  const takedown = fields(input, 'takedown')
  if (takedown === undefined) return { body: shown }
  const ref = text(takedown, 'ref')
  if (ref !== undefined && ref.length > refCharsMax) {
    throw invalidRequest(`takedown/ref must not be longer than ${refCharsMax} characters`)
  }
  const applied = flag(takedown, 'applied')
  await parts.news.inTurn(subjectOf(subject), () => change(subject, { applied, ref }, call, parts))
  return { body: { ...shown, takedown: { applied, ...(ref === undefined ? {} : { ref }) } } }
}

async function change(
  subject: TakedownSubject,
  { applied, ref }: { readonly applied: boolean; readonly ref: string | undefined },
  { caller, requestId }: Call,
  parts: TakedownParts,
): Promise<void> {
  const { takedowns, log } = parts
  const isFirst = await takedowns.markNews(subject)
  const changed = applied ? await apply(subject, ref, takedowns) : await lift(subject, parts)
  if (changed) {
    const event = applied ? 'takedown.applied' : 'takedown.lifted'
    log.info(event, { subject: subjectOf(subject), by: nameOf(caller), requestId })
  }
  // What an earlier change did not come to tell is told now, whatever becomes of this one.
  await tell(subject, { isNews: changed || !isFirst, requestId }, parts)
}

/** What cannot be told now is told later: the takedown itself counts already. */
async function tell(
  subject: TakedownSubject,
  { isNews, requestId }: { readonly isNews: boolean; readonly requestId: string },
  { takedowns, news, log }: TakedownParts,
): Promise<void> {
  const named = subjectOf(subject)
  if (!isNews) return await takedowns.clearNews(named)
  try {
    await news.tell(named, subject.did, requestId)
  } catch (error) {
    log.warn('takedown.untold', { subject: named, requestId, error })
  }
}

async function lift(subject: TakedownSubject, parts: TakedownParts): Promise<boolean> {
  // Whoever is let in again must find it.
  if (subject.kind === 'blob') await parts.blobs.restore(subject.did, subject.cid)
  return await parts.takedowns.lift(subject)
}

async function apply(
  subject: TakedownSubject,
  ref: string | undefined,
  takedowns: TakedownStore,
): Promise<true> {
  if (await takedowns.apply(subject, { ref, nowMs: Date.now() })) return true
  throw invalidRequest(
    `${recordTakedownsMax} records and blobs of this repo are taken down already: take down the repo`,
  )
}

async function getSubjectStatus(call: Call, parts: TakedownParts): Promise<Answer> {
  const { params } = call
  const uri = text(params, 'uri')
  if (uri !== undefined) return await recordStatus(uri, call, parts)
  const did = text(params, 'did')
  const blob = cidOf(params, 'blob')
  if (did !== undefined && blob !== undefined) {
    return await blobStatus({ kind: 'blob', did: parseDid(did), cid: rawCid(blob) }, call, parts)
  }
  if (did === undefined) throw invalidRequest('name a subject: did, uri, or did and blob')
  return await repoStatus(parseDid(did), parts)
}

async function repoStatus(did: Did, { enrollments, takedowns }: TakedownParts): Promise<Answer> {
  const takedown = await takedowns.find(did)
  if (takedown === undefined && (await enrollments.find(did)) === undefined) throw notFound()
  const subject = shownSubject({ kind: 'repo', did })
  return { body: { subject, takedown: shownTakedown(takedown) } }
}

/** Of one that was taken down, or that a record names. */
async function blobStatus(
  blob: Extract<TakedownSubject, { kind: 'blob' }>,
  { requestId }: Call,
  { enrollments, takedowns, call }: TakedownParts,
): Promise<Answer> {
  const { did, cid } = blob
  const takedown = await takedowns.find(subjectOf(blob))
  if (takedown === undefined) {
    if ((await enrollments.find(did)) === undefined) throw notFound()
    const found = await call(did, requestId, { kind: 'blob', cid, view: 'all' })
    if ('missing' in found) throw notFound()
  }
  return { body: { subject: shownSubject(blob), takedown: shownTakedown(takedown) } }
}

/** A reference needs a CID: the present record's or, where there is none, the takedown's own. */
async function recordStatus(
  text: string,
  { requestId }: Call,
  { enrollments, takedowns, call }: TakedownParts,
): Promise<Answer> {
  const { did, collection, rkey } = parseRecordUri(text)
  const uri = recordUri(did, collection, rkey)
  const takedown = await takedowns.find(uri)
  const enrolled = (await enrollments.find(did)) !== undefined
  const ask = { kind: 'read', collection, rkey, view: 'all' } as const
  const present = enrolled ? (await call(did, requestId, ask)).cid : null
  const cid = present ?? takedown?.cid ?? undefined
  if (cid === undefined) throw notFound()
  const subject = shownSubject({ kind: 'record', did, uri, cid })
  return { body: { subject, takedown: shownTakedown(takedown) } }
}

/** @throws XrpcError 400 for what cannot be taken down here, and for a URI in any odd form */
function parseSubject(subject: Readonly<Record<string, unknown>>): TakedownSubject {
  switch (text(subject, '$type') ?? '') {
    case repoRef:
      return { kind: 'repo', did: parseDid(text(subject, 'did') ?? '') }
    case strongRef: {
      const { did, collection, rkey } = parseRecordUri(text(subject, 'uri') ?? '')
      const cid = cidOf(subject, 'cid')
      assert(cid !== undefined, 'a strong reference has a CID by its lexicon')
      return { kind: 'record', did, uri: recordUri(did, collection, rkey), cid }
    }
    case blobRef: {
      const cid = cidOf(subject, 'cid')
      assert(cid !== undefined, 'a reference to a blob has a CID by its lexicon')
      return { kind: 'blob', did: parseDid(text(subject, 'did') ?? ''), cid: rawCid(cid) }
    }
    default:
      throw invalidRequest(`subject must be a ${repoRef}, a ${strongRef} or a ${blobRef}`)
  }
}

/** @throws XrpcError 400 for the CID of a record */
function rawCid(cid: Cid): Cid {
  if (isRawCid(cid)) return cid
  throw invalidRequest('a blob has a raw CID')
}

function shownSubject(subject: TakedownSubject): object {
  switch (subject.kind) {
    case 'repo':
      return { $type: repoRef, did: subject.did }
    case 'record':
      return { $type: strongRef, uri: subject.uri, cid: subject.cid }
    case 'blob':
      return { $type: blobRef, did: subject.did, cid: subject.cid }
    default:
      return unreachable(subject)
  }
}

/** One that was applied without a name goes by its time, as on a PDS. */
function shownTakedown(takedown: Takedown | undefined): object {
  if (takedown === undefined) return { applied: false }
  return { applied: true, ref: takedown.ref ?? takedown.appliedAt }
}

function nameOf(caller: Caller): string {
  if (caller.kind === 'admin') return 'admin'
  assert(caller.kind === 'moderator', 'nobody else passes this door')
  return caller.did
}

/** Of this name and status on a PDS, too. */
function notFound(): XrpcError {
  return new XrpcError(400, 'NotFound', 'nothing is known here of this subject')
}

const repoRef = 'com.atproto.admin.defs#repoRef'
const blobRef = 'com.atproto.admin.defs#repoBlobRef'
const strongRef = 'com.atproto.repo.strongRef'
const refCharsMax = 1000
