import { type AtUri, parseDid, parseNsid, parseRkey, recordUri } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import { type AccessFacts, owns, seesNothing, viewOf } from './caller.ts'
import { text } from '../atproto/members.ts'
import { recordNotFound, recordTakendown, revHeader } from './record-answers.ts'
import { checkSeesWhole, seesWhole } from './whole-repo.ts'
import { type Answer, Bytes, type Call, type Method } from './xrpc.ts'

interface Parts extends AccessFacts {
  readonly call: CallActor
  /** Whether stubs make keys and CIDs of records public. */
  readonly wantsStubs: boolean
}

/** Single records with their proofs. @see protocol.md, section 6 */
export function proofMethods(parts: Parts): Record<string, Method> {
  const getRecord: Method = { audience: 'anyone', handle: (call) => prove(call, parts) }
  return { 'zone.stratos.sync.getRecord': getRecord, 'com.atproto.sync.getRecord': getRecord }
}

/**
 * A proof shows keys and CIDs beside the record's own. Whoever does not see whole repos gets one
 * where stubs publish them all, and else what everybody gets of a record that is not there.
 */
async function prove({ params, caller, requestId }: Call, parts: Parts): Promise<Answer> {
  const did = parseDid(text(params, 'did') ?? '')
  const collection = parseNsid(text(params, 'collection') ?? '')
  const rkey = parseRkey(text(params, 'rkey') ?? '')
  if (!parts.wantsStubs) checkSeesWhole(caller, did)
  const uri = recordUri(did, collection, rkey)
  const asked = { did, isAbout: (one: AtUri) => one === uri }
  const view = await viewOf(caller, asked, parts)
  const neighbours = seesWhole(caller, did) ? 'all' : 'stubbed'
  if (view === undefined || (neighbours === 'stubbed' && seesNothing(view))) {
    throw recordNotFound(collection, rkey)
  }
  const ask = { kind: 'prove', collection, rkey, view, neighbours } as const
  const proof = await parts.call(did, requestId, ask)
  if ('bytes' in proof) {
    const body = new Bytes(proof.bytes, 'application/vnd.ipld.car')
    return { body, headers: revHeader(caller, { did, rev: proof.rev }) }
  }
  // Nothing else of what is there is hidden from its owner.
  if (owns(caller, did)) throw recordTakendown()
  throw recordNotFound(collection, rkey)
}
