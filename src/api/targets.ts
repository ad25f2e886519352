import { XrpcError } from '../atproto/errors.ts'
import { type AtUri, type Did, parseRecordUri, recordUri } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import type { RecordRules } from '../service/record.ts'
import type { Targets } from '../service/targets.ts'
import type { Enrollment } from '../store/service.ts'
import { type AccessFacts, viewOf } from './caller.ts'

interface Search extends AccessFacts {
  readonly rules: RecordRules
  readonly call: CallActor
  readonly author: Enrollment
  readonly requestId: string
}

/**
 * Boundaries of those of the records that are private records of this service and that the author
 * may see, as of now. All others are left out alike, whatever the reason.
 */
export async function findTargets(uris: readonly string[], search: Search): Promise<Targets> {
  const byOwner = new Map<Did, AtUri[]>()
  for (const text of uris) {
    const place = placeOf(text)
    if (place === undefined || !search.rules.collections.includes(place.collection)) continue
    const { did, collection, rkey } = place
    byOwner.set(did, [...(byOwner.get(did) ?? []), recordUri(did, collection, rkey)])
  }
  const found: Record<string, readonly string[]> = {}
  for (const [did, owned] of byOwner) {
    const caller = { kind: 'user', did: search.author.did } as const
    const asked = { did, isAbout: (uri: AtUri) => owned.includes(uri) }
    const view = await viewOf(caller, asked, search)
    if (view === undefined) continue
    const ask = { kind: 'targets', uris: owned, view } as const
    Object.assign(found, (await search.call(did, search.requestId, ask)).boundaries)
  }
  return found
}

function placeOf(text: string) {
  try {
    return parseRecordUri(text)
  } catch (error) {
    if (error instanceof XrpcError) return undefined
    throw error
  }
}
