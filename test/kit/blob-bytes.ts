import type { Did } from '../../src/atproto/syntax.ts'
import type { BlobPlace, BlobStorage } from '../../src/store/blob-storage.ts'

/** Keys of temporary bytes, unfinished ones included, and CIDs of the others, in order. */
export type KeptBytes = Record<BlobPlace['kind'], readonly string[]>

export const noBytes: KeptBytes = { temporary: [], permanent: [], quarantined: [] }

/** Which bytes of somebody are kept where. */
export async function keptBytes(storage: BlobStorage, did: Did): Promise<KeptBytes> {
  return {
    temporary: await namesOf(storage, did, 'temporary'),
    permanent: await namesOf(storage, did, 'permanent'),
    quarantined: await namesOf(storage, did, 'quarantined'),
  }
}

async function namesOf(storage: BlobStorage, did: Did, kind: BlobPlace['kind']): Promise<string[]> {
  const found: string[] = []
  for await (const { place } of storage.places(kind)) {
    if (place.did === did) found.push(place.kind === 'temporary' ? place.key : place.cid)
  }
  return found.toSorted()
}
