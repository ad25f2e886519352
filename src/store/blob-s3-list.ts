import { type S3Bucket, S3Failed } from './blob-s3-client.ts'

interface ListedObject {
  readonly name: string
  readonly bytes: number
  readonly writtenAtMs: number
}

/** Every object whose name begins so, one page in memory. */
export async function* objectsIn(bucket: S3Bucket, Prefix: string): AsyncGenerator<ListedObject> {
  for await (const { Contents } of pagesOf(bucket, { Prefix })) {
    for (const { Key, Size, LastModified } of Contents ?? []) {
      const writtenAtMs = LastModified?.getTime() ?? 0
      if (Key !== undefined) yield { name: Key, bytes: Size ?? 0, writtenAtMs }
    }
  }
}

/** The names of the folders right below. */
export async function* peopleIn(bucket: S3Bucket, Prefix: string): AsyncGenerator<string> {
  for await (const { CommonPrefixes } of pagesOf(bucket, { Prefix, Delimiter: '/' })) {
    for (const found of CommonPrefixes ?? []) yield (found.Prefix ?? '').slice(Prefix.length, -1)
  }
}

interface ListedUpload {
  readonly name: string
  readonly uploadId: string
  readonly begunAtMs: number
}

/**
 * Uploads in parts that have not ended. None where a server cannot list them: some end them by
 * themselves, others by a rule that the operator makes.
 */
export async function* uploadsIn(bucket: S3Bucket, Prefix: string): AsyncGenerator<ListedUpload> {
  let after: { KeyMarker?: string; UploadIdMarker?: string } = {}
  for (;;) {
    const page = await uploadPage(bucket, { Prefix, ...after })
    if (page === undefined) return
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Key === undefined || UploadId === undefined) continue
      yield { name: Key, uploadId: UploadId, begunAtMs: Initiated?.getTime() ?? 0 }
    }
    if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return
    const { NextKeyMarker: KeyMarker, NextUploadIdMarker: UploadIdMarker } = page
    after = { KeyMarker, ...(UploadIdMarker === undefined ? {} : { UploadIdMarker }) }
  }
}

async function uploadPage(
  bucket: S3Bucket,
  ask: { readonly Prefix: string; readonly KeyMarker?: string; readonly UploadIdMarker?: string },
) {
  const { ListMultipartUploadsCommand } = bucket.sdk
  try {
    return await bucket.send('a list of unfinished uploads', async (client) => {
      return await client.send(new ListMultipartUploadsCommand({ Bucket: bucket.name, ...ask }))
    })
  } catch (error) {
    if (error instanceof S3Failed && error.isUnknownThere) return undefined
    throw error
  }
}

async function* pagesOf(
  bucket: S3Bucket,
  ask: { readonly Prefix: string; readonly Delimiter?: string },
) {
  const { ListObjectsV2Command } = bucket.sdk
  let after: { ContinuationToken?: string } = {}
  for (;;) {
    const page = await bucket.send('a list', async (client) => {
      return await client.send(new ListObjectsV2Command({ Bucket: bucket.name, ...ask, ...after }))
    })
    yield page
    if (page.IsTruncated !== true || page.NextContinuationToken === undefined) return
    after = { ContinuationToken: page.NextContinuationToken }
  }
}
