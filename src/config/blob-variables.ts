import { between, oneOf, readBoolean, variable } from '../lib/settings.ts'

/** Settings of where the bytes of blobs are kept, and of how many. */
export const blobVariables = {
  blobBytesMax: variable('STRATOS_BLOB_MAX_BYTES', 52_428_800, between(1, 4_294_967_295), {
    text: 'Size of a blob that people may upload.',
    example: '104857600',
  }),
  blobQuotaBytes: variable('STRATOS_BLOB_QUOTA_BYTES', 1_073_741_824, between(0, 1e15 - 1), {
    text: 'Bytes of all blobs of one person; 0 means that there are no blobs.',
    example: '5368709120',
  }),
  blobStorage: variable('STRATOS_BLOB_STORAGE', 'local', oneOf('local', 's3'), {
    text: 'Where blobs are kept: in the data folder (local), or in a bucket (s3).',
    example: 's3',
  }),
  s3Bucket: variable('STRATOS_S3_BUCKET', '', readBucket, {
    text: 'Bucket of the blobs; it must exist.',
    shown: 'none',
    example: 'stratos-blobs',
  }),
  s3Region: variable('STRATOS_S3_REGION', '', readRegion, {
    text: 'Region of the bucket.',
    shown: 'us-east-1 where an endpoint is set',
    example: 'eu-central-1',
  }),
  s3Endpoint: variable('STRATOS_S3_ENDPOINT', '', readEndpoint, {
    text: 'Server of the bucket, where it is not Amazon.',
    shown: 'Amazon',
    example: 'https://s3.example.com',
  }),
  s3AccessKey: variable('STRATOS_S3_ACCESS_KEY', '', readKey, {
    text: 'Access key for the bucket, together with its secret key.',
    shown: 'the role of the machine, or what the SDK of Amazon finds',
    example: 'the access key',
  }),
  s3SecretKey: variable('STRATOS_S3_SECRET_KEY', '', readKey, {
    text: 'Secret key that belongs to the access key.',
    shown: 'as for the access key',
    example: 'the secret key',
  }),
  s3PathStyle: variable('STRATOS_S3_PATH_STYLE', null, readBoolean, {
    text: 'Whether the bucket is named in the path of a request rather than in its host.',
    shown: 'true where an endpoint is set',
    example: 'true',
  }),
} as const

interface BlobValues {
  readonly blobStorage: 'local' | 's3'
  readonly s3Bucket: string
  readonly s3Region: string
  readonly s3Endpoint: string
  readonly s3AccessKey: string
  readonly s3SecretKey: string
}

/**
 * What is missing for a bucket. A bucket may be set while blobs are still in the data folder: they
 * are moved there first.
 */
export function bucketFaults(values: BlobValues): { at: BucketVariable; why: string }[] {
  const found: { at: BucketVariable; why: string }[] = []
  const hasAccess = values.s3AccessKey !== ''
  if (hasAccess !== (values.s3SecretKey !== '')) {
    const [at, other] = hasAccess ? (['s3SecretKey', 's3AccessKey'] as const) : pairedBack
    found.push({ at, why: `must be set together with ${blobVariables[other].name}` })
  }
  if (values.blobStorage === 'local') return found
  const why = `must be set where ${blobVariables.blobStorage.name} is s3`
  if (values.s3Bucket === '') found.push({ at: 's3Bucket', why })
  if (values.s3Region === '' && values.s3Endpoint === '') {
    const orEndpoint = `, unless ${blobVariables.s3Endpoint.name} is`
    found.push({ at: 's3Region', why: why + orEndpoint })
  }
  return found
}

type BucketVariable = 's3Bucket' | 's3Region' | 's3AccessKey' | 's3SecretKey'
const pairedBack = ['s3AccessKey', 's3SecretKey'] as const

function readBucket(text: string): string {
  if (/^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/i.test(text)) return text
  throw new Error(`must be the name of a bucket alone, not ${JSON.stringify(text)}`)
}

function readRegion(text: string): string {
  if (/^[a-z0-9][a-z0-9-]{0,62}$/i.test(text)) return text
  throw new Error(`must be the name of a region, not ${JSON.stringify(text)}`)
}

/** Not repeated: what stands before an @ may be a secret key. */
function readEndpoint(text: string): string {
  const url = URL.parse(text)
  const isWeb = url?.protocol === 'https:' || url?.protocol === 'http:'
  const isBare = url?.username === '' && url.password === '' && url.search === '' && url.hash === ''
  if (isWeb && isBare) return text
  throw new Error('must be a URL that starts with https:// or http://, without keys and query')
}

/** Nor is this. */
function readKey(text: string): string {
  if (/^[\x21-\x7e]{1,1024}$/.test(text)) return text
  throw new Error('must be printable ASCII without spaces')
}
