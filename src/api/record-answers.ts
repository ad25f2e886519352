import { XrpcError } from '../atproto/errors.ts'
import type { Did, Nsid, Rkey } from '../atproto/syntax.ts'
import { type Caller, owns } from './caller.ts'

/** The one answer for what is not there and for what the caller may not see. */
export function recordNotFound(collection: Nsid, rkey: Rkey): XrpcError {
  return new XrpcError(404, 'RecordNotFound', `there is no record ${collection}/${rkey} to see`)
}

/** Said to the owner alone. */
export function recordTakendown(): XrpcError {
  const text = 'your record was taken down on this service: you may delete it, and nothing else'
  return new XrpcError(403, 'RecordTakendown', text)
}

/** How far the repo is, which is the owner's business. */
export function revHeader(
  caller: Caller,
  { did, rev }: { readonly did: Did; readonly rev: string },
): Record<string, string> {
  return owns(caller, did) ? { 'atproto-repo-rev': rev } : {}
}
