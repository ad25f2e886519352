import type { Did, Handle } from '../atproto/syntax.ts'

/**
 * - `absent`: the directory or the host says that there is no such DID, or it has another form.
 * - `malformed`: the answer is no document, or that of another DID.
 * - `unreachable`: no answer, or one that is too large.
 * - `busy`: we ask that host too much at once already.
 */
export type DidFailure = 'absent' | 'malformed' | 'unreachable' | 'busy'

export class DidNotResolved extends Error {
  override readonly name = 'DidNotResolved'
  readonly did: Did
  readonly failure: DidFailure

  constructor(did: Did, failure: DidFailure) {
    super(`the document of ${did} could not be had: ${failure}`)
    this.did = did
    this.failure = failure
  }
}

export class PdsEndpointNotFound extends Error {
  override readonly name = 'PdsEndpointNotFound'

  constructor(did: Did) {
    super(`the document of ${did} names no PDS`)
  }
}

export class SigningKeyNotFound extends Error {
  override readonly name = 'SigningKeyNotFound'

  constructor(did: Did) {
    super(`the document of ${did} has no usable #atproto key`)
  }
}

/** Whether the handle leads anywhere is not known; trying later may help. */
export class HandleUnavailable extends Error {
  override readonly name = 'HandleUnavailable'
  /** No proper answer, or too many look-ups of ours at once. */
  readonly failure: 'unreachable' | 'busy'

  constructor(handle: Handle, failure: 'unreachable' | 'busy') {
    super(`the handle ${handle} cannot be looked up now: ${failure}`)
    this.failure = failure
  }
}
