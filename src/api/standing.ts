import type { Did, Handle } from '../atproto/syntax.ts'
import { DidNotResolved, HandleUnavailable, type Identities } from '../remote/identity.ts'
import { missingScopes } from '../remote/oauth-client.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { Enrollment, ServiceStore } from '../store/service.ts'

/** Where somebody stands with this service, as far as they are to know it themselves. */
export interface Standing {
  readonly did: Did
  /** One that leads back to the DID. */
  readonly handle: Handle | undefined
  /** Inactive ones, too; none for who never came or left. */
  readonly membership: Enrollment | undefined
  /** Whether this service can still write to the person's PDS. */
  readonly session: 'present' | 'lost'
  /** What the PDS did not grant. */
  readonly missingScopes: readonly string[]
}

export interface StandingSources {
  readonly enrollments: Enrollments
  readonly store: ServiceStore
  readonly identities: Identities
  /** What is asked of the PDS. */
  readonly scope: string
}

export async function standingOf(
  did: Did,
  { enrollments, store, identities, scope }: StandingSources,
): Promise<Standing> {
  const [handle, membership, session] = await Promise.all([
    handleOf(did, identities),
    enrollments.member(did),
    store.oauthSession(did),
  ])
  return {
    did,
    handle,
    membership,
    session: membership !== undefined && session !== undefined ? 'present' : 'lost',
    missingScopes: membership === undefined ? [] : missingScopes(scope, membership.scope),
  }
}

/** A page does not wait long for a name: the DID says enough. */
async function handleOf(did: Did, identities: Identities): Promise<Handle | undefined> {
  const late = Promise.withResolvers<undefined>()
  const timer = setTimeout(late.resolve, handleMsMax)
  try {
    return await Promise.race([provenHandle(did, identities), late.promise])
  } catch (error) {
    if (error instanceof DidNotResolved || error instanceof HandleUnavailable) return undefined
    throw error
  } finally {
    clearTimeout(timer)
  }
}

async function provenHandle(did: Did, identities: Identities): Promise<Handle | undefined> {
  const handle = await identities.handle(did)
  if (handle === undefined) return undefined
  return (await identities.resolveHandle(handle)) === did ? handle : undefined
}

const handleMsMax = 1500
