import {
  FetchError,
  OAuthCallbackError,
  OAuthResolverError,
  OAuthResponseError,
  isExpectedSessionError,
} from '@atproto/oauth-client-node'
import { FetchFailed, FetchRefused } from './fetch.ts'
import { DidNotResolved, HandleUnavailable, PdsEndpointNotFound } from './identity.ts'

// The library's errors quote states and whole requests, and carry them as properties. Nothing of
// them is passed on but what is known to be harmless: no `cause`, no message.

/** The person said no on the page of the PDS. */
export class OAuthDenied extends Error {
  override readonly name = 'OAuthDenied'

  constructor() {
    super('the sign-in was refused on the page of the PDS')
  }
}

/** Replayed, forged, too late, of another issuer, or with a code that the PDS does not take. */
export class OAuthCallbackRejected extends Error {
  override readonly name = 'OAuthCallbackRejected'

  constructor(why: string) {
    super(`this answer of a sign-in does not count: ${why}`)
  }
}

/** The PDS, its authorization server or the directory cannot be reached or used now. */
export class OAuthUnavailable extends Error {
  override readonly name = 'OAuthUnavailable'
  readonly why: string

  constructor(why: string) {
    super(`the PDS cannot be used for sign-in now: ${why}`)
    this.why = why
  }
}

/** No DID behind the handle, or one that does not name the handle in turn. */
export class HandleNotResolved extends Error {
  override readonly name = 'HandleNotResolved'

  constructor(handle: string) {
    super(`the handle ${handle.slice(0, 253)} leads to no account`)
  }
}

/** There is no session any more: revoked, expired, or the account moved. The person must return. */
export class SessionLost extends Error {
  override readonly name = 'SessionLost'

  constructor(did: string) {
    super(`the session of ${did} at its PDS is lost`)
  }
}

/** An error of our own store, which the library would mix up with those of a session. */
export class StoreFailed extends Error {
  override readonly name = 'StoreFailed'

  constructor(cause: unknown) {
    super('the store of OAuth sessions failed', { cause })
  }
}

/** For errors that the start of a sign-in ended with. */
export function authorizeFailure(error: unknown): Error {
  return (
    causeOf(error, HandleNotResolved) ??
    causeOf(error, HandleUnavailable) ??
    causeOf(error, DidNotResolved) ??
    causeOf(error, PdsEndpointNotFound) ??
    new OAuthUnavailable(reasonOf(error))
  )
}

/** For errors that the library's callback ended with. */
export function callbackFailure(error: unknown): Error {
  const response = causeOf(error, OAuthResponseError)
  if (response !== undefined && response.status < 500 && response.status !== 429) {
    return new OAuthCallbackRejected(reasonOf(error))
  }
  if (error instanceof OAuthCallbackError && error.cause === undefined) {
    return new OAuthCallbackRejected('its parameters are wrong')
  }
  if (error instanceof OAuthCallbackError && isOfTheNetwork(error.cause)) {
    return new OAuthUnavailable(reasonOf(error))
  }
  return new OAuthCallbackRejected('the PDS answered something else than a session')
}

/**
 * For errors that the use of a kept session ended with: `SessionLost`, `StoreFailed`, or
 * `OAuthUnavailable` for all the rest, of which the text may quote what a server answered.
 */
export function sessionFailure(did: string, error: unknown): Error {
  // Of an error and of another while the session was deleted for it, the library makes one.
  const errors: readonly unknown[] = error instanceof AggregateError ? error.errors : [error]
  const ours = errors.find(isOurs)
  if (ours !== undefined) return ours
  return isExpectedSessionError(error)
    ? new SessionLost(did)
    : new OAuthUnavailable(reasonOf(error))
}

function isOurs(error: unknown): error is Error {
  return (
    error instanceof SessionLost ||
    error instanceof OAuthUnavailable ||
    error instanceof StoreFailed
  )
}

/** Whether trying again later may help. */
function isOfTheNetwork(error: unknown): boolean {
  return (
    error instanceof FetchError ||
    error instanceof OAuthResolverError ||
    error instanceof OAuthResponseError
  )
}

/** What went wrong, in words that hold no secret. */
function reasonOf(error: unknown): string {
  const ours =
    causeOf(error, FetchFailed) ?? causeOf(error, FetchRefused) ?? causeOf(error, DidNotResolved)
  if (ours !== undefined) return ours.message
  const response = causeOf(error, OAuthResponseError)
  if (response !== undefined) {
    const name = response.error ?? ''
    const shown = /^\w{1,60}$/.test(name) ? name : 'without a name'
    return `it answered ${response.status}, error ${shown}`
  }
  if (error instanceof DOMException) return 'no answer in time'
  return 'its answers are not those of an AT Protocol server'
}

/** The first error of a kind in the chain of causes. */
function causeOf<Kind extends Error>(
  error: unknown,
  kind: new (...args: never[]) => Kind,
): Kind | undefined {
  let at = error
  for (let depth = 0; depth < causesMax && at instanceof Error; depth++) {
    if (at instanceof kind) return at
    at = at.cause
  }
  return undefined
}

/** The library nests four deep. */
const causesMax = 10
