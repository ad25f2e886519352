import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { View } from '../store/actor.ts'
import { unauthorized } from './service-auth.ts'

/** Who called, proven by credentials. A person may or may not be enrolled. */
export type Caller =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'user'; readonly did: Did }
  | { readonly kind: 'moderator' }
  | { readonly kind: 'admin' }

/** Who may call a method at all; what a reader may see is decided per record. */
export type Audience = 'anyone' | 'user' | 'admin' | 'moderation'

/** @throws XrpcError 401 AuthMissing, 403 Forbidden */
export function checkAudience(caller: Caller, audience: Audience): void {
  if (audience === 'anyone' || caller.kind === audience) return
  const moderates = caller.kind === 'admin' || caller.kind === 'moderator'
  if (audience === 'moderation' && moderates) return
  if (caller.kind === 'anonymous') throw unauthorized('AuthMissing', 'this method needs a caller')
  throw new XrpcError(403, 'Forbidden', `this method is for ${audiences[audience]}`)
}

/** With whose eyes `caller` reads the repo of `did`. */
export async function viewOf(caller: Caller, did: Did, enrollments: Enrollments): Promise<View> {
  switch (caller.kind) {
    case 'admin':
      return 'all'
    case 'anonymous':
    case 'moderator':
      return { boundaries: [] }
    case 'user': {
      if (caller.did === did) return 'all'
      const enrollment = await enrollments.find(caller.did)
      return { boundaries: enrollment?.boundaries ?? [] }
    }
    default:
      return unreachable(caller)
  }
}

/** Such a reader is answered without a question to the actor's owner: strangers cost it nothing. */
export function seesNothing(view: View): boolean {
  return view !== 'all' && view.boundaries.length === 0
}

const audiences = {
  user: 'people who signed in',
  admin: 'the operator',
  moderation: 'the operator and the moderation service',
} as const
