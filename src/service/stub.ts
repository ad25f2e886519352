import { isDatetimeString } from '@atproto/syntax'
import type { Cid } from '../atproto/cid.ts'
import type { DataObject } from '../atproto/data.ts'
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

/**
 * When a record says that it was made, as its stub may repeat it. Where no lexicon says that it is a
 * time, any text may stand there, and none but a time is for the public.
 */
export function saidTime({ createdAt }: DataObject): string | undefined {
  return typeof createdAt === 'string' && isDatetimeString(createdAt) ? createdAt : undefined
}
