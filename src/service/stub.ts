import type { Cid } from '../atproto/cid.ts'
import type { AtUri, Did, Nsid } from '../atproto/syntax.ts'

/**
 * What the public PDS is told of a private record: that it exists, where, and when it says it was
 * made. Never its content or its boundaries.
 */
export function stubOf(input: {
  readonly collection: Nsid
  readonly uri: AtUri
  readonly cid: Cid
  readonly createdAt: string
  readonly rules: { readonly serviceDid: Did; readonly fragment: string }
}): object {
  const { collection, uri, cid, createdAt, rules } = input
  return {
    $type: collection,
    source: {
      vary: 'authenticated',
      subject: { uri, cid },
      service: `${rules.serviceDid}#${rules.fragment}`,
    },
    createdAt,
  }
}
