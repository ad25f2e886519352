import { type Cid, parseCid } from '../atproto/cid.ts'
import { type DataObject, type DataValue, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import { assert } from '../lib/assert.ts'
import type { BlobFacts } from '../store/actor-blobs.ts'

/** The blobs that a record names, as it describes them, each as often as it does. */
export function namedBlobs(record: DataValue): BlobFacts[] {
  if (Array.isArray(record)) return record.flatMap(namedBlobs)
  if (!isDataObject(record)) return []
  if (record['$type'] === 'blob') return [factsOf(record)]
  return Object.values(record).flatMap(namedBlobs)
}

/** Of some blobs that a record names, each once. */
export function distinctCids(blobs: readonly BlobFacts[]): Cid[] {
  return [...new Set(blobs.map(({ cid }) => cid))]
}

/**
 * Each blob of a record must be here as the record describes it.
 * @throws XrpcError 400 BlobNotFound
 */
export async function checkBlobs(
  named: readonly BlobFacts[],
  find: (cid: Cid) => Promise<BlobFacts | undefined>,
): Promise<void> {
  for (const { cid, mimeType, size } of named) {
    const found = await find(cid)
    if (found === undefined) throw blobNotFound(`there is no blob ${cid}, or no longer: upload it`)
    if (found.mimeType !== mimeType || found.size !== size) {
      const is = `${found.mimeType} of ${found.size} bytes`
      throw blobNotFound(`the blob ${cid} is ${is}, not ${mimeType} of ${size}`)
    }
  }
}

function factsOf({ ref, mimeType, size }: DataObject): BlobFacts {
  const link = isDataObject(ref) ? ref['$link'] : undefined
  const isWhole =
    typeof link === 'string' && typeof mimeType === 'string' && typeof size === 'number'
  assert(isWhole, 'a blob has its form by the data model')
  return { cid: parseCid(link), mimeType, size }
}

function blobNotFound(message: string): XrpcError {
  return new XrpcError(400, 'BlobNotFound', message)
}
