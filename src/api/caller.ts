import { XrpcError } from '../atproto/errors.ts'
import type { AtUri, Did, Nsid } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { View } from '../store/actor.ts'
import type { Session } from '../store/session.ts'
import type { TakedownStore } from '../store/takedown.ts'
import { unauthorized } from './service-auth.ts'

/** Who called, proven by credentials. A person may or may not be enrolled. */
export type Caller =
  | { readonly kind: 'anonymous' }
  | User
  | AppView
  | { readonly kind: 'moderator'; readonly did: Did }
  | { readonly kind: 'admin' }

/** By what a person proved who they are, or was named in development. */
export type CredentialKind =
  | 'service-auth'
  | 'session'
  | 'dpop-token'
  | 'bound-key'
  | 'development'
  | 'cookie'

export interface User {
  readonly kind: 'user'
  readonly did: Did
  readonly by: CredentialKind
  /** Of a caller by `session`. */
  readonly session?: Session
  /** When the access token ends, where it says so. */
  readonly expiresAtMs?: number | undefined
  /** Thumbprint of a caller by `bound-key`. */
  readonly jkt?: string
  /** The OAuth scope of an access token, which bounds what its holder may do. */
  readonly scope?: string
}

/** Who reads, by whatever credential. */
export type Reader = Exclude<Caller, User> | Pick<User, 'kind' | 'did'>

/** An AppView that the operator lets read, and nothing else: it is no person. */
export interface AppView {
  readonly kind: 'service'
  readonly did: Did
  /** Qualified; `all` are those that the service has now. */
  readonly boundaries: 'all' | readonly string[]
}

/** A method that is called, and where from. */
export interface Door {
  /** None where there is no method: a token for one method opens nothing there. */
  readonly nsid: Nsid | undefined
  readonly audience: Audience
  readonly tokens: 'any' | 'single-use'
  /** What a token's audience has behind `#`, where that is not the service's own. */
  readonly fragment?: string | undefined
  readonly accepts: readonly CredentialKind[]
  /** As `clientNetwork` gives it. */
  readonly address: string
}

/** Tells who calls. */
export interface Doorkeeper {
  identify(request: Request, door: Door): Promise<Caller>
}

/** Who may call a method at all; what a reader may see is decided per record. */
export type Audience = 'anyone' | 'user' | 'admin' | 'moderation' | 'stream'

/** @throws XrpcError 401 AuthMissing, 403 Forbidden */
export function checkAudience(caller: Caller, audience: Audience): void {
  if (audience === 'anyone' || caller.kind === audience) return
  const moderates = caller.kind === 'admin' || caller.kind === 'moderator'
  if (audience === 'moderation' && moderates) return
  if (audience === 'stream' && caller.kind === 'service') return
  if (audience === 'stream' && (caller.kind === 'user' || caller.kind === 'admin')) return
  if (caller.kind === 'anonymous') throw unauthorized('AuthMissing', 'this method needs a caller')
  throw new XrpcError(403, 'Forbidden', `this method is for ${audiences[audience]}`)
}

/** What opens a method that says nothing else: a cookie does only where it is named. */
export const acceptedByDefault: readonly CredentialKind[] = [
  'service-auth',
  'session',
  'dpop-token',
  'bound-key',
  'development',
]

/**
 * Passes callers other than people: what opens a method for them is the matter of its audience.
 * @throws XrpcError 403 Forbidden
 */
export function checkAccepted(caller: Caller, accepts: readonly CredentialKind[]): void {
  if (caller.kind !== 'user' || accepts.includes(caller.by)) return
  throw new XrpcError(403, 'Forbidden', `${credentials[caller.by]} does not open this`)
}

/** The repo that a caller wants to read, and the records of it that the answer may be about. */
export interface Asked {
  readonly did: Did
  readonly isAbout: (uri: AtUri) => boolean
}

export interface AccessFacts {
  readonly enrollments: Enrollments
  readonly takedowns: TakedownStore
}

/**
 * With whose eyes `caller` reads a repo. Undefined where for this caller there is none, be it that
 * its owner is not enrolled or that it is taken down.
 * @throws XrpcError 403 RepoTakendown to the owner
 */
export async function viewOf(
  caller: Reader,
  { did, isAbout }: Asked,
  { enrollments, takedowns }: AccessFacts,
): Promise<View | undefined> {
  if (!(await findsRepo(caller, did, enrollments))) return undefined
  if (caller.kind === 'admin') return 'all'
  const { repo, records } = await takedowns.of(did)
  if (repo) {
    if (owns(caller, did)) throw repoTakendown()
    return undefined
  }
  const boundaries = await boundariesOf(caller, did, enrollments)
  const except = records.length === 0 ? records : records.filter(isAbout)
  if (except.length > 0) return { boundaries, except }
  return boundaries === 'all' ? 'all' : { boundaries }
}

async function boundariesOf(
  caller: Exclude<Reader, { readonly kind: 'admin' }>,
  did: Did,
  enrollments: Enrollments,
): Promise<'all' | readonly string[]> {
  switch (caller.kind) {
    case 'anonymous':
    case 'moderator':
      return []
    case 'service':
      return grantOf(caller, enrollments)
    case 'user':
      if (caller.did === did) return 'all'
      return (await enrollments.find(caller.did))?.boundaries ?? []
    default:
      return unreachable(caller)
  }
}

/** The boundaries within which an AppView may read. One that the service lost is in no grant. */
export function grantOf({ boundaries }: AppView, enrollments: Enrollments): readonly string[] {
  return boundaries === 'all' ? enrollments.boundaries : boundaries
}

export function owns(caller: Reader, did: Did): boolean {
  return caller.kind === 'user' && caller.did === did
}

/** What the owner is told; to everybody else the repo is one that is not here. */
export function repoTakendown(): XrpcError {
  return new XrpcError(
    403,
    'RepoTakendown',
    'your repo was taken down on this service: you may delete records of it, and nothing else',
  )
}

/**
 * Whether `caller` may know of a repo of `did` here: one of somebody inactive is there for its owner
 * and the operator alone, and to all others like one of somebody who never enrolled.
 */
export async function findsRepo(
  caller: Reader,
  did: Did,
  enrollments: Enrollments,
): Promise<boolean> {
  const ofMember = caller.kind === 'admin' || owns(caller, did)
  const found = ofMember ? await enrollments.member(did) : await enrollments.find(did)
  return found !== undefined
}

/** Such a reader is answered without a question to the actor's owner: strangers cost it nothing. */
export function seesNothing(view: View): boolean {
  return view !== 'all' && view.boundaries.length === 0
}

const audiences = {
  user: 'people who signed in',
  admin: 'the operator',
  moderation: 'the operator and the moderation service',
  stream: 'people who signed in, AppViews and the operator',
} as const

const credentials = {
  'service-auth': 'a service-auth token',
  session: 'a session',
  'dpop-token': 'an access token',
  'bound-key': 'a bound key',
  development: 'a bare DID',
  cookie: 'a cookie',
} as const
