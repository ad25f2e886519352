import { XrpcError } from '../atproto/errors.ts'
import { type AtUri, type Did, parseRecordUri, recordUri } from '../atproto/syntax.ts'
import { isPrivate } from '../service/collections.ts'
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
    if (place === undefined || !isPrivate(place.collection, search.rules.collections)) continue
    const { did, collection, rkey } = place
    byOwner.set(did, [...(byOwner.get(did) ?? []), recordUri(did, collection, rkey)])
  }
  const found: Record<string, readonly string[]> = {}
  const owners = [...byOwner]
  for (let start = 0; start < owners.length; start += ownersAtOnce) {
    const some = owners.slice(start, start + ownersAtOnce)
    const parts = await Promise.all(some.map(([did, uris]) => ofOwner(did, uris, search)))
    Object.assign(found, ...parts)
  }
  return found
}

async function ofOwner(did: Did, uris: readonly AtUri[], search: Search): Promise<Targets> {
  const caller = { kind: 'user', did: search.author.did } as const
  const asked = { did, isAbout: (uri: AtUri) => uris.includes(uri) }
  const view = await viewOf(caller, asked, search)
  if (view === undefined) return {}
  try {
    return (await search.call(did, search.requestId, { kind: 'targets', uris, view })).boundaries
  } catch (error) {
    // Its owner is about to leave: the repo is closed before the enrollment ends.
    if (error instanceof XrpcError && error.error === 'RepoNotFound') return {}
    throw error
  }
}

/** A batch of writes may point to hundreds of people. */
const ownersAtOnce = 32

function placeOf(text: string) {
  try {
    return parseRecordUri(text)
  } catch (error) {
    if (error instanceof XrpcError) return undefined
    throw error
  }
}
