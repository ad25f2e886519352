import type { MovableBlobs } from '../../src/store/blob-storage.ts'
import { openBlobStorage } from '../../src/store/open-blobs.ts'
import { type Bucket, startS3rver } from './s3rver.ts'
import { SeededStratos, type SeededOptions } from './seeded.ts'

/** Where the service of a suite keeps its blobs: each suite is the same over both. */
export const blobHomes = ['in a folder', 'in a bucket'] as const
export type BlobHome = (typeof blobHomes)[number]

/** A seeded service with its blobs in one of the homes, and those blobs beside it. */
export interface Housed extends AsyncDisposable {
  readonly stratos: SeededStratos
  readonly storage: MovableBlobs
}

export async function startHoused(home: BlobHome, options: SeededOptions): Promise<Housed> {
  if (home === 'in a folder') {
    const stratos = await SeededStratos.start(options)
    const storage = await openBlobStorage({ ...noBucket, dataDir: stratos.dataFolder })
    return { stratos, storage, [Symbol.asyncDispose]: () => stratos.stop() }
  }
  const bucket = await startS3rver()
  const env = { ...options.env, ...bucketEnv(bucket) }
  const stratos = await SeededStratos.start({ ...options, env })
  const storage = await openBlobStorage(bucketSettings(bucket))
  return {
    stratos,
    storage,
    [Symbol.asyncDispose]: async () => {
      await stratos.stop()
      await storage.close()
      await bucket[Symbol.asyncDispose]()
    },
  }
}

export function bucketSettings({ name, region, endpoint, accessKey, secretKey }: Bucket) {
  return {
    dataDir: '',
    blobStorage: 's3',
    s3Bucket: name,
    s3Region: region,
    s3Endpoint: endpoint,
    s3AccessKey: accessKey,
    s3SecretKey: secretKey,
    s3PathStyle: null,
  } as const
}

function bucketEnv(bucket: Bucket): Record<string, string> {
  return {
    STRATOS_BLOB_STORAGE: 's3',
    STRATOS_S3_BUCKET: bucket.name,
    STRATOS_S3_REGION: bucket.region,
    STRATOS_S3_ENDPOINT: bucket.endpoint,
    STRATOS_S3_ACCESS_KEY: bucket.accessKey,
    STRATOS_S3_SECRET_KEY: bucket.secretKey,
  }
}

const noBucket = {
  blobStorage: 'local',
  s3Bucket: '',
  s3Region: '',
  s3Endpoint: '',
  s3AccessKey: '',
  s3SecretKey: '',
  s3PathStyle: null,
} as const
