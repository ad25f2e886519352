import { parseDid } from '../atproto/syntax.ts'
import { assert, unreachable } from '../lib/assert.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { Enrollment } from '../store/service.ts'
import { type Caller, grantOf } from './caller.ts'
import { text } from '../atproto/members.ts'
import type { Answer, Call, Method } from './xrpc.ts'

/** Methods on who is enrolled and in which boundaries. @see protocol.md, section 4.5 */
export function membershipMethods(parts: {
  readonly enrollments: Enrollments
  readonly boundaries: readonly string[]
}): Record<string, Method> {
  const { enrollments, boundaries } = parts
  return {
    'zone.stratos.server.listDomains': {
      audience: 'anyone',
      handle: async () => ({ body: { domains: boundaries } }),
    },
    'zone.stratos.enrollment.status': {
      audience: 'anyone',
      handle: (call) => status(call, enrollments),
    },
    'zone.stratos.identity.resolveEnrollments': {
      audience: 'anyone',
      handle: (call) => resolve(call, enrollments),
    },
    'zone.stratos.enrollment.unenroll': {
      audience: 'user',
      tokens: 'single-use',
      accepts: ['service-auth', 'session', 'dpop-token', 'development'],
      handle: async ({ caller, requestId }) => {
        assert(caller.kind === 'user', 'the door lets people in and nobody else')
        await enrollments.unenroll(caller.did, requestId)
        return { body: { success: true } }
      },
    },
  }
}

/**
 * Everybody may ask whether someone is enrolled; boundaries show only what both sides share, or
 * what an AppView may read, and those of the inactive are shared with nobody. Attested are only
 * whole sets.
 */
async function status({ params, caller }: Call, enrollments: Enrollments): Promise<Answer> {
  const did = parseDid(text(params, 'did') ?? '')
  const enrollment = await enrollments.member(did)
  if (enrollment === undefined) return { body: { did, enrolled: false } }
  const { enrolledAt, active, signingKey, rkey, boundaries } = enrollment
  const shown = await shownBoundaries({ caller, enrollment }, enrollments)
  const isAttested = active && shown === boundaries
  const attestation = isAttested ? enrollments.attestation(enrollment) : undefined
  return {
    body: {
      did,
      enrolled: true,
      enrolledAt,
      active,
      signingKey,
      enrollmentRkey: rkey,
      ...(shown === undefined ? {} : { boundaries: shown.map((value) => ({ value })) }),
      ...(attestation === undefined ? {} : { attestation }),
    },
  }
}

/** The short form of `status`, by the same rule. */
async function resolve({ params, caller }: Call, enrollments: Enrollments): Promise<Answer> {
  const did = parseDid(text(params, 'did') ?? '')
  const enrollment = await enrollments.member(did)
  if (enrollment === undefined) return { body: { did, enrolled: false, boundaries: [] } }
  const boundaries = (await shownBoundaries({ caller, enrollment }, enrollments)) ?? []
  return { body: { did, enrolled: true, boundaries } }
}

async function shownBoundaries(
  asked: { readonly caller: Caller; readonly enrollment: Enrollment },
  enrollments: Enrollments,
): Promise<readonly string[] | undefined> {
  const { caller } = asked
  const { did, active, boundaries } = asked.enrollment
  switch (caller.kind) {
    case 'admin':
      return boundaries
    case 'anonymous':
    case 'moderator':
      return undefined
    case 'service': {
      if (!active) return undefined
      const grant = grantOf(caller, enrollments)
      const shared = boundaries.filter((name) => grant.includes(name))
      // The same list where nothing was left out: it is whole, and may be attested.
      return shared.length === boundaries.length ? boundaries : shared
    }
    case 'user': {
      if (caller.did === did) return boundaries
      if (!active) return undefined
      const own = (await enrollments.find(caller.did))?.boundaries
      return own === undefined ? undefined : boundaries.filter((name) => own.includes(name))
    }
    default:
      return unreachable(caller)
  }
}
