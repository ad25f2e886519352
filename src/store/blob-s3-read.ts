import { ignoreAbsentKey, type S3Bucket, S3Failed } from './blob-s3-client.ts'
import { BlobCut, type ByteRange, type StoredBlob } from './blob-storage.ts'

/** A range of an object, through one answer: an object that is replaced meanwhile does not mix in. */
export async function readObjectRange(
  bucket: S3Bucket,
  Key: string,
  range: ByteRange | undefined,
): Promise<StoredBlob | undefined> {
  if (range !== undefined && range.end <= range.start) return await readNothing(bucket, Key, range)
  const Range = range === undefined ? {} : { Range: `bytes=${range.start}-${range.end - 1}` }
  const { GetObjectCommand } = bucket.sdk
  const asking = bucket.send('a read', async (client) => {
    return await client.send(new GetObjectCommand({ Bucket: bucket.name, Key, ...Range }))
  })
  const found = await asking.catch(cutOr(range)).catch(ignoreAbsentKey)
  if (found === undefined) return undefined
  const body: ReadableStream<Uint8Array> | undefined = found.Body?.transformToWebStream()
  const sent = /^bytes (\d+)-\d+\/(\d+)$/.exec(found.ContentRange ?? '')
  const from = Number(sent?.[1] ?? 0)
  // A server that does not say how many bytes come could leave some out unseen.
  const bytes = Number(sent?.[2] ?? found.ContentLength ?? Number.NaN)
  const { start, end } = range ?? { start: 0, end: bytes }
  if (body === undefined || Number.isNaN(bytes) || from !== start || end > bytes) {
    await body?.cancel()
    throw new BlobCut(`a blob of ${bytes} bytes was answered for bytes ${start} to ${end}`)
  }
  return { bytes, body: exactly(body, end - start) }
}

/** A range cannot be written that has no bytes. */
async function readNothing(
  bucket: S3Bucket,
  Key: string,
  { start, end }: ByteRange,
): Promise<StoredBlob | undefined> {
  const bytes = await sizeOfObject(bucket, Key)
  if (bytes === undefined) return undefined
  if (start < 0 || end < start || end > bytes) {
    throw new BlobCut(`a blob of ${bytes} bytes has none from ${start} to ${end}`)
  }
  return { bytes, body: new Blob() }
}

/** Undefined where there is no such object, NaN where the server does not say. */
export async function sizeOfObject(bucket: S3Bucket, Key: string): Promise<number | undefined> {
  const { HeadObjectCommand } = bucket.sdk
  const asking = bucket.send('a look', async (client) => {
    return await client.send(new HeadObjectCommand({ Bucket: bucket.name, Key }))
  })
  const found = await asking.catch(ignoreAbsentKey)
  return found === undefined ? undefined : (found.ContentLength ?? Number.NaN)
}

function cutOr(range: ByteRange | undefined): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof S3Failed) || error.status !== 416 || range === undefined) throw error
    throw new BlobCut(`a blob has none from ${range.start} to ${range.end}`, { cause: error })
  }
}

function broken(cause: unknown): never {
  throw new BlobCut('the bucket broke off while a blob was read', { cause })
}

/** Fails when there are fewer; a server that sends more than was asked for is cut off. */
function exactly(body: ReadableStream<Uint8Array>, wanted: number): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  let rest = wanted
  return new ReadableStream(
    {
      async pull(controller) {
        if (rest > 0) {
          const { value } = await reader.read().catch(broken)
          if (value === undefined) throw new BlobCut('a blob ended early while it was read')
          const taken = value.subarray(0, rest)
          rest -= taken.length
          controller.enqueue(taken)
        }
        if (rest > 0) return
        // To its end, where it has come: the connection can be used again.
        const { done } = await reader.read()
        if (!done) await reader.cancel()
        controller.close()
      },
      async cancel(reason) {
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}
