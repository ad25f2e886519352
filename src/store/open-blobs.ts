import { DiskBlobs } from './blob-disk.ts'
import { S3Blobs } from './blob-s3.ts'
import type { S3Settings } from './blob-s3-client.ts'
import type { MovableBlobs } from './blob-storage.ts'

export interface BlobSettings {
  readonly dataDir: string
  readonly blobStorage: 'local' | 's3'
  readonly s3Bucket: string
  readonly s3Region: string
  readonly s3Endpoint: string
  readonly s3AccessKey: string
  readonly s3SecretKey: string
  readonly s3PathStyle: boolean | null
}

/** @throws S3Failed when the bucket does not answer, or not to these keys */
export async function openBlobStorage(settings: BlobSettings): Promise<MovableBlobs> {
  if (settings.blobStorage === 'local') return new DiskBlobs(settings.dataDir)
  return await S3Blobs.open(bucketOf(settings))
}

function bucketOf(settings: BlobSettings): S3Settings {
  const { s3Bucket, s3Region, s3Endpoint, s3AccessKey, s3SecretKey, s3PathStyle } = settings
  const hasEndpoint = s3Endpoint !== ''
  return {
    bucket: s3Bucket,
    region: s3Region === '' ? 'us-east-1' : s3Region,
    endpoint: hasEndpoint ? s3Endpoint : undefined,
    keys: s3AccessKey === '' ? undefined : { access: s3AccessKey, secret: s3SecretKey },
    bucketIn: (s3PathStyle ?? hasEndpoint) ? 'path' : 'host',
  }
}
