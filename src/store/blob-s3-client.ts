import type * as Sdk from '@aws-sdk/client-s3'

/** How a bucket is reached. */
export interface S3Settings {
  readonly bucket: string
  readonly region: string
  /** Absent for Amazon itself. */
  readonly endpoint: string | undefined
  /** Absent where the machine has a role: then the usual places are looked in. */
  readonly keys: { readonly access: string; readonly secret: string } | undefined
  /** Whether the bucket is named in the path rather than in the host. */
  readonly bucketIn: 'path' | 'host'
}

/** One bucket, and the words for what goes wrong with it. */
export class S3Bucket implements Disposable {
  /** Loaded with the first bucket: a service on disk neither waits for it nor holds it. */
  readonly sdk: typeof Sdk
  readonly name: string
  readonly #client: Sdk.S3Client
  readonly #settings: S3Settings

  private constructor(sdk: typeof Sdk, settings: S3Settings) {
    this.sdk = sdk
    this.name = settings.bucket
    this.#settings = settings
    const { region, endpoint, keys, bucketIn } = settings
    this.#client = new sdk.S3Client({
      region,
      forcePathStyle: bucketIn === 'path',
      maxAttempts: attemptsMax,
      // The newer checksums are refused by many servers that are not Amazon's; that the bytes
      // arrive as they were sent is in the signature, which covers their hash.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: {
        connectionTimeout: connectMs,
        requestTimeout: answerMs,
        socketTimeout: idleMs,
      },
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(keys === undefined
        ? {}
        : { credentials: { accessKeyId: keys.access, secretAccessKey: keys.secret } }),
    })
  }

  static async open(settings: S3Settings): Promise<S3Bucket> {
    return new S3Bucket(await import('@aws-sdk/client-s3'), settings)
  }

  /**
   * @param doing what is told when it fails
   * @throws S3Failed
   */
  async send<Output>(
    doing: string,
    call: (client: Sdk.S3Client) => Promise<Output>,
  ): Promise<Output> {
    try {
      return await call(this.#client)
    } catch (error) {
      throw this.#explained(doing, error)
    }
  }

  [Symbol.dispose](): void {
    this.#client.destroy()
  }

  /** The error of the SDK holds the request, and with it keys: only its words go on. */
  #explained(doing: string, error: unknown): S3Failed {
    const { bucket, endpoint, keys } = this.#settings
    const { code, status, words } = factsOf(error)
    let said = words
    for (const key of [keys?.secret, keys?.access]) {
      if (key !== undefined) said = said.replaceAll(key, '...')
    }
    const where = endpoint === undefined ? '' : ` at ${new URL(endpoint).host}`
    const message = `bucket ${bucket}${where}: ${doing} failed with ${code}: ${said}`
    return new S3Failed(`${message}; ${hintFor(code, status)}`, { code, status })
  }
}

/** A call to the bucket did not work; the message says what to do. */
export class S3Failed extends Error {
  override readonly name = 'S3Failed'
  readonly code: string
  readonly status: number

  constructor(
    message: string,
    { code, status }: { readonly code: string; readonly status: number },
  ) {
    super(message)
    this.code = code
    this.status = status
  }

  get isAbsent(): boolean {
    return ['NoSuchKey', 'NotFound', 'NoSuchUpload'].includes(this.code)
  }

  /** Some servers take uploads in parts, and can neither list nor end unfinished ones. */
  get isUnknownThere(): boolean {
    return ['NotImplemented', 'MethodNotAllowed'].includes(this.code)
  }
}

/** For `catch`: what is not there is no failure. */
export function ignoreAbsentKey(error: unknown): undefined {
  if (!(error instanceof S3Failed && error.isAbsent)) throw error
}

/** With the pauses of the SDK, which double from 100 ms to 20 s, and jitter. */
const attemptsMax = 4
const connectMs = 5000
/** A part of 5 MiB at 1 Mbit/s, and a copy of 50 MB inside the bucket, take about a minute. */
const answerMs = 120_000
/** Without a byte; also how long a reader may pause. */
const idleMs = 60_000

function factsOf(error: unknown): { code: string; status: number; words: string } {
  if (!(error instanceof Error)) return { code: 'UnknownError', status: 0, words: String(error) }
  const metadata: unknown = '$metadata' in error ? error.$metadata : undefined
  const status =
    typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata
      ? Number(metadata.httpStatusCode)
      : 0
  const isNamed = error.name !== 'Error' || !('code' in error)
  return { code: isNamed ? error.name : String(error.code), status, words: error.message }
}

function hintFor(code: string, status: number): string {
  if (code === 'NoSuchBucket') return 'create the bucket, or set STRATOS_S3_BUCKET to another'
  if (code === 'RequestTimeTooSkewed') return 'set the clock of this machine'
  if (['AuthorizationHeaderMalformed', 'PermanentRedirect'].includes(code) || status === 301) {
    return 'set STRATOS_S3_REGION to the region of the bucket'
  }
  if (status === 401 || status === 403 || code === 'CredentialsProviderError') {
    return (
      'check STRATOS_S3_ACCESS_KEY and STRATOS_S3_SECRET_KEY, STRATOS_S3_REGION, and that these ' +
      'keys may list the bucket and read, write and delete below stratos/'
    )
  }
  if (status === 0) return 'check STRATOS_S3_ENDPOINT, and that this machine reaches it'
  return 'what was asked for may be repeated'
}
